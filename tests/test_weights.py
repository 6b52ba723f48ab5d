"""Moves against torch's own layouts; files against the safetensors and torch libraries, whole and damaged."""

import json
import os
import struct
import warnings

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from zoo import checkpoint, weights
from zoo.checkpoint import Checkpoint

RNG = np.random.default_rng(0)
TABLE = {
    "token/embeddings": (("base.emb.weight", "out.weight"), weights.same),
    "encoder/block_{}/mlp/up/kernel": ("base.layers.{}.up.weight", weights.transpose),
    "encoder/final_norm/scale": ("base.LayerNorm.weight", weights.same),
    "encoder/final_norm/bias": ("base.LayerNorm.bias", weights.same),
    "head/transform/kernel": ("head.dense.weight", weights.transpose),
    "head/bias": ("head.bias", weights.same),
}
STATE = {
    "base.emb.weight": RNG.normal(size=(7, 4)).astype("float32"),
    "base.layers.0.up.weight": RNG.normal(size=(6, 4)).astype("float32"),
    "base.layers.1.up.weight": RNG.normal(size=(6, 4)).astype("float32"),
    "base.LayerNorm.weight": RNG.normal(size=(4,)).astype("float32"),
    "base.LayerNorm.bias": RNG.normal(size=(4,)).astype("float32"),
    "head.dense.weight": RNG.normal(size=(4, 4)).astype("float32"),
    "head.bias": RNG.normal(size=(7,)).astype("float32"),
}
SHAPES = {
    "token/embeddings": (7, 4), "encoder/block_0/mlp/up/kernel": (4, 6), "encoder/block_1/mlp/up/kernel": (4, 6),
    "encoder/final_norm/scale": (4,), "encoder/final_norm/bias": (4,), "head/transform/kernel": (4, 4),
    "head/bias": (7,),
}  # fmt: skip


def body(names):
    return {name: shape for name, shape in names.items() if not name.startswith("head/")}


def load(directory, state, shapes=SHAPES, **kwargs):
    save_file(state, directory / "model.safetensors")
    return load_from(directory, shapes, **kwargs)


def load_from(directory, shapes=SHAPES, **kwargs):
    got = {}
    targets = {n: (s, lambda x, n=n: got.__setitem__(n, np.array(x))) for n, s in shapes.items()}
    return weights.load(Checkpoint(directory), TABLE, targets, prefix="base", **kwargs), got


def expected(state=STATE):
    return {
        "token/embeddings": state["base.emb.weight"],
        "encoder/block_0/mlp/up/kernel": state["base.layers.0.up.weight"].T,
        "encoder/block_1/mlp/up/kernel": state["base.layers.1.up.weight"].T,
        "encoder/final_norm/scale": state["base.LayerNorm.weight"],
        "encoder/final_norm/bias": state["base.LayerNorm.bias"],
        "head/transform/kernel": state["head.dense.weight"].T,
        "head/bias": state["head.bias"],
    }


def assert_same(got, wanted):
    assert got.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_array_equal(got[name], wanted[name], err_msg=name)


# --- moves ---


def test_fused_and_interleaved_linears_split_as_torch_applies_them():
    """What a split kernel computes is a slice of what the whole Linear computes."""
    import torch

    x, sizes, heads = RNG.normal(size=(5, 8)), [8, 4, 4], 2
    linear = torch.nn.Linear(8, 16).double()
    kernel, bias = linear.weight.detach().numpy(), linear.bias.detach().numpy()
    whole = linear(torch.tensor(x)).detach().numpy()
    moves = [weights.outputs(sizes, i) for i in range(3)]
    parts = [x @ move.load(kernel) + move.load(bias) for move in moves]
    np.testing.assert_allclose(np.concatenate(parts, axis=-1), whole, rtol=1e-12)
    np.testing.assert_array_equal(moves[0].save([move.load(kernel) for move in moves]), kernel)
    np.testing.assert_array_equal(moves[0].save([move.load(bias) for move in moves]), bias)
    flat = [weights.columns(sizes, i) for i in range(3)]  # the same kernel stored the other way round
    np.testing.assert_array_equal([m.load(kernel.T).shape for m in flat], [(8, 8), (8, 4), (8, 4)])
    np.testing.assert_array_equal(flat[0].save([m.load(kernel.T) for m in flat]), kernel.T)
    linear = torch.nn.Linear(8, 3 * heads * 4).double()
    kernel, bias = linear.weight.detach().numpy(), linear.bias.detach().numpy()
    grid = linear(torch.tensor(x)).detach().numpy().reshape(5, heads, 3, 4)  # how GPT-NeoX views its output
    moves = [weights.interleaved(heads, i) for i in range(3)]
    for i, move in enumerate(moves):
        np.testing.assert_allclose((x @ move.load(kernel) + move.load(bias)).reshape(5, heads, 4), grid[:, :, i])
    np.testing.assert_array_equal(moves[0].save([move.load(kernel) for move in moves]), kernel)
    np.testing.assert_array_equal(moves[0].save([move.load(bias) for move in moves]), bias)


def test_groups_of_queries_lie_before_their_key_and_value():
    """How Falcon 40B views its fused output: 2 groups of 2 queries, a key and a value."""
    import torch

    x, heads, groups, width = RNG.normal(size=(5, 8)), 4, 2, 3
    linear = torch.nn.Linear(8, groups * (heads // groups + 2) * width).double()
    kernel, bias = linear.weight.detach().numpy(), linear.bias.detach().numpy()
    grid = linear(torch.tensor(x)).detach().numpy().reshape(5, groups, heads // groups + 2, width)
    moves = [weights.interleaved(heads, i, groups) for i in range(3)]
    parts = [x @ move.load(kernel) + move.load(bias) for move in moves]
    for part, wanted in zip(parts, (grid[:, :, :-2], grid[:, :, -2], grid[:, :, -1])):
        np.testing.assert_allclose(part, wanted.reshape(5, -1), rtol=1e-12)
    np.testing.assert_array_equal(moves[0].save([move.load(kernel) for move in moves]), kernel)
    np.testing.assert_array_equal(moves[0].save([move.load(bias) for move in moves]), bias)


def test_neighbours_that_rotate_together_are_set_half_of_the_width_apart():
    """Scores of GPT-J's rotation of neighbours are those of halves with regrouped weights; both ways bit for bit."""
    gptj = pytest.importorskip("transformers.models.gptj.modeling_gptj")
    import torch

    heads, width, turned = 2, 6, 4
    move, (q, k) = weights.pairs(heads, turned), RNG.normal(size=(2, heads * width, 8)).astype("float32")
    x, angle = RNG.normal(size=(3, 8)).astype("float32"), RNG.normal(size=(3, turned // 2)).astype("float32")

    def neighbours(kernel):
        y = torch.tensor((x @ kernel.T).reshape(1, 3, heads, width))
        sin, cos = (torch.tensor(f(angle))[None] for f in (np.sin, np.cos))
        return torch.cat([gptj.apply_rotary_pos_emb(y[..., :turned], sin, cos), y[..., turned:]], -1)[0].numpy()

    def halves(kernel):
        y = (x @ move.load(kernel)).reshape(3, heads, width)
        a, b, rest = y[..., :2], y[..., 2:4], y[..., 4:]
        sin, cos = np.sin(angle)[:, None], np.cos(angle)[:, None]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin, rest], axis=-1)

    scores = [np.einsum("tnh,snh->nts", f(q), f(k)) for f in (neighbours, halves)]
    np.testing.assert_allclose(*scores, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(move.save([move.load(q)]), q)
    with pytest.raises(ValueError):
        move.load(np.zeros((heads * 3, 8), "float32"))


def test_a_fused_tensor_of_another_size_is_never_taken_for_a_part():
    with pytest.raises(ValueError):
        weights.outputs([4, 4, 4], 0).load(np.zeros((4, 4)))
    with pytest.raises(ValueError):
        weights.columns([4, 4, 4], 0).load(np.zeros((4, 4)))


# --- names ---


@pytest.mark.parametrize("spelling", ["plain", "no_prefix", "gamma", "copy", "copy_alone", "more"])
def test_spellings_that_repositories_use(tmp_path, spelling):
    state = dict(STATE)
    if spelling == "no_prefix":
        state = {name.removeprefix("base."): x for name, x in state.items()}
    if spelling == "gamma":
        state["base.LayerNorm.gamma"] = state.pop("base.LayerNorm.weight")
        state["base.LayerNorm.beta"] = state.pop("base.LayerNorm.bias")
    if spelling == "copy":
        state["out.weight"] = state["base.emb.weight"].copy()
    if spelling == "copy_alone":
        state["out.weight"] = state.pop("base.emb.weight")
    if spelling == "more":
        state["base.position_ids"] = np.arange(9)
    report, got = load(tmp_path, state, ignore=(r"position_ids$",))
    assert_same(got, expected())
    assert str(report) == ""


def test_tied_weights_that_differ_are_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"base\.emb\.weight and out\.weight.*tie_word_embeddings"):
        load(tmp_path, {**STATE, "out.weight": STATE["base.emb.weight"] + 1})


def test_the_error_lists_every_kind_of_trouble_and_assigns_nothing(tmp_path):
    state = {**STATE, "stray": np.zeros(3, "float32"), "base.layers.2.up.weight": np.zeros((6, 4), "float32")}
    del state["base.LayerNorm.bias"]
    state["base.layers.1.up.weight"] = np.zeros((5, 4), "float32")
    with pytest.raises(ValueError) as error:
        load(tmp_path, state)
    text = str(error.value)
    for piece in ("ours, not in the checkpoint (1): encoder/final_norm/bias", "(2): base.layers.2.up.weight, stray",
                  "encoder/block_1/mlp/up/kernel (4, 6), but base.layers.1.up.weight (5, 4)"):  # fmt: skip
        assert piece in text
    assigned = []
    targets = {name: (shape, assigned.append) for name, shape in SHAPES.items()}
    with pytest.raises(ValueError):
        weights.load(Checkpoint(tmp_path), TABLE, targets, prefix="base")
    assert not assigned


def test_a_head_that_the_checkpoint_lacks_is_a_warning_and_half_a_head_an_error(tmp_path):
    bare = {name: x for name, x in STATE.items() if not name.startswith("head.")}
    with pytest.warns(UserWarning, match=r"head/transform/kernel, head/bias.*random"):
        report, got = load(tmp_path, bare)
    assert report.random_heads == ["head/transform/kernel", "head/bias"] and got.keys() == body(SHAPES).keys()
    with pytest.raises(ValueError, match="head/bias"):
        load(tmp_path, {**bare, "head.dense.weight": STATE["head.dense.weight"]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(tmp_path, {**bare, "head.dense.weight": STATE["head.dense.weight"]}, optional=("head/bias",))


def test_a_head_that_the_model_lacks_is_left_aside(tmp_path):
    report, got = load(tmp_path, STATE, body(SHAPES))
    assert_same(got, body(expected()))
    assert str(report) == ""


def test_quantised_numbers_are_not_taken_for_weights(tmp_path):
    with pytest.raises(ValueError, match=r"base\.emb\.weight holds no plain floating-point"):
        load(tmp_path, {**STATE, "base.emb.weight": np.ones((7, 4), "int8")})


# --- files ---


@pytest.mark.parametrize("dtype", ["float32", "float16", ml_dtypes.bfloat16, "float64"])
def test_dtypes_arrive_as_stored(tmp_path, dtype):
    state = {name: x.astype(dtype) for name, x in STATE.items()}
    _, got = load(tmp_path, state)
    assert_same(got, expected(state))
    assert {x.dtype for x in got.values()} == {np.dtype(dtype)}


def test_what_we_write_others_read(tmp_path):
    from safetensors import safe_open

    tensors = weights.theirs(TABLE, expected(), ml_dtypes.bfloat16)
    assert checkpoint.write(tmp_path, tensors) == ["model.safetensors"]
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"} and set(file.keys()) == set(STATE)
        for name in STATE:
            wanted = STATE[name].astype(ml_dtypes.bfloat16).astype("float32")
            np.testing.assert_array_equal(file.get_tensor(name).float().numpy(), wanted)


def test_shards_hold_what_one_file_holds(tmp_path):
    files = checkpoint.write(tmp_path, weights.theirs(TABLE, expected()), max_shard_size=150)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert files[-1] == "model.safetensors.index.json" and len(files) > 3
    assert sorted(os.listdir(tmp_path)) == sorted(files)
    assert index["metadata"]["total_size"] == sum(x.nbytes for x in STATE.values())
    for name, file in index["weight_map"].items():
        np.testing.assert_array_equal(load_file(tmp_path / file)[name], STATE[name])
    for file in files[:-1]:
        held = load_file(tmp_path / file)
        assert len(held) == 1 or sum(x.nbytes for x in held.values()) <= 150
    _, got = load_from(tmp_path)
    assert_same(got, expected())


def test_arrays_are_made_one_at_a_time_when_they_are_written(tmp_path):
    import tracemalloc

    class Variable:
        def __init__(self, seed):
            self.shape, self.dtype, self.seed = (512, 1024), np.dtype("float32"), seed

        def __array__(self, dtype=None, copy=None):
            return np.full(self.shape, self.seed, self.dtype)

    table = {"encoder/block_{}/mlp/up/kernel": ("h.{}.weight", weights.transpose)}
    ours = {f"encoder/block_{i}/mlp/up/kernel": Variable(i) for i in range(24)}
    tracemalloc.start()
    checkpoint.write(tmp_path, weights.theirs(table, ours, "float16"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 512 * 1024 * 4
    held = load_file(tmp_path / "model.safetensors")
    assert all(held[f"h.{i}.weight"].shape == (1024, 512) and (held[f"h.{i}.weight"] == i).all() for i in range(24))


def test_an_array_without_a_name_or_half_a_fused_tensor_is_an_error():
    with pytest.raises(ValueError, match="encoder/unheard/kernel"):
        list(weights.theirs(TABLE, {"encoder/unheard/kernel": np.zeros(1)}))
    halves = {f"a/{part}": ("ab.weight", weights.outputs([2, 2], i)) for i, part in enumerate("xy")}
    with pytest.raises(ValueError, match=r"ab\.weight needs 2 variables, got only a/y"):
        list(weights.theirs(halves, {"a/y": np.zeros((2, 2))}))


@pytest.mark.parametrize("name", ["../outside.safetensors", "/tmp/outside.safetensors", "..\\x.safetensors",
                                  "C:\\x.safetensors", "a/../../x.safetensors", "weights.pkl", 7])  # fmt: skip
def test_an_index_that_points_elsewhere_is_refused(tmp_path, name):
    inside = tmp_path / "inside"
    inside.mkdir()
    save_file(STATE, tmp_path / "outside.safetensors")
    (inside / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"base.emb.weight": name}}))
    with pytest.raises(ValueError, match="only weight files beside the index"):
        Checkpoint(inside)


def test_an_index_without_its_shard_is_refused(tmp_path):
    checkpoint.write(tmp_path, STATE.items(), max_shard_size=150)
    lost = sorted(tmp_path.glob("model-*"))[0]
    lost.unlink()
    with pytest.raises(ValueError, match=f"{lost.name}.*incomplete"):
        Checkpoint(tmp_path)


def _header(entries):
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


def _entry(begin, end, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


DAMAGED = {
    "empty": b"", "short": b"\x01\x02", "no header": struct.pack("<Q", 50), "vast header": b"\xff" * 40,
    "not json": struct.pack("<Q", 4) + b"{{{{", "a list": _header([1, 2]), "text": b"<!DOCTYPE html>" * 20,
    "no data": _header({"a": _entry(0, 8)}), "cut data": _header({"a": _entry(0, 8)}) + b"\0" * 5,
    "overlap": _header({"a": _entry(0, 8), "b": _entry(4, 12)}) + b"\0" * 12,
    "backwards": _header({"a": _entry(8, 0)}) + b"\0" * 8, "wrong size": _header({"a": _entry(0, 8, (3,))}) + b"\0" * 8,
    "vast shape": _header({"a": _entry(0, 8, (2**40, 2**40))}) + b"\0" * 8,
    "negative": _header({"a": _entry(-8, 8)}) + b"\0" * 8,
    "dtype": _header({"a": _entry(0, 8, (2,), "F99")}) + b"\0" * 8,
    "deep": struct.pack("<Q", 20000) + b"[" * 20000, "more data": _header({"a": _entry(0, 8)}) + b"\0" * 80,
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_files_are_an_error_that_names_them(tmp_path, kind):
    (tmp_path / "model.safetensors").write_bytes(DAMAGED[kind])
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        Checkpoint(tmp_path)


def test_a_file_truncated_anywhere_is_an_error(tmp_path):
    save_file(STATE, tmp_path / "model.safetensors")
    whole = (tmp_path / "model.safetensors").read_bytes()
    for size in range(0, len(whole), 7):
        (tmp_path / "model.safetensors").write_bytes(whole[:size])
        with pytest.raises(ValueError):
            Checkpoint(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"weight_map": 3}', '{"weight_map": {}}', "[" * 100_000])
def test_a_damaged_index_is_an_error(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ValueError, match=r"index\.json"):
        Checkpoint(tmp_path)


def test_no_weights_at_all_says_what_is_there(tmp_path):
    (tmp_path / "tf_model.h5").write_bytes(b"")
    with pytest.raises(ValueError, match=r"tf_model\.h5"):
        Checkpoint(tmp_path)


def test_an_interrupted_write_leaves_the_older_file(tmp_path):
    checkpoint.write(tmp_path, STATE.items())
    before = (tmp_path / "model.safetensors").read_bytes()

    def broken():
        yield from list({name: x + 1 for name, x in STATE.items()}.items())[:5]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoint.write(tmp_path, broken(), max_shard_size=100)
    assert os.listdir(tmp_path) == ["model.safetensors"]
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_pickled_weights_are_read_without_unpickling(tmp_path):
    import torch

    for modern in (True, False):
        state = {name: torch.tensor(x).bfloat16() for name, x in STATE.items()}
        torch.save(state, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=modern)
        _, got = load_from(tmp_path)
        assert_same(got, expected({name: x.astype(ml_dtypes.bfloat16) for name, x in STATE.items()}))

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trap"),)

    torch.save({"base.emb.weight": Trap()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="not a plain PyTorch checkpoint"):
        Checkpoint(tmp_path)
    assert not (tmp_path / "trap").exists()
    (tmp_path / "pytorch_model.bin").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin"):
        Checkpoint(tmp_path)
    save_file(STATE, tmp_path / "model.safetensors")  # is preferred
    _, got = load_from(tmp_path)
    assert_same(got, expected())


def test_loading_holds_about_one_tensor(tmp_path):
    import tracemalloc

    table = {"encoder/block_{}/mlp/up/kernel": ("h.{}.weight", weights.transpose)}
    save_file({f"h.{i}.weight": np.ones((512, 1024), "float32") for i in range(24)}, tmp_path / "model.safetensors")
    targets = {f"encoder/block_{i}/mlp/up/kernel": ((1024, 512), lambda x: None) for i in range(24)}
    tracemalloc.start()
    weights.load(Checkpoint(tmp_path), table, targets)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 512 * 1024 * 4
