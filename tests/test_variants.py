"""The variants of `zoo.nn.variants` against `transformers`, the papers, and second ways to compute them."""

import keras
import numpy as np
import pytest
from keras import ops

import zoo
from tests.models import TINY, gradients, parameters, quickly, randomise, relative_error, run
from tests.parity_cases import CASES, case
from zoo import backend
from zoo.nn.documents import document_lengths, restart_positions
from zoo.nn.positions import rotary_angles
from zoo.nn.variants.disentangled import disentangled_bias, distance_rows
from zoo.nn.variants.relative import alibi_slopes

pytestmark = pytest.mark.backends
TOLERANCE = 1e-5


def numpy(x):
    return ops.convert_to_numpy(x)


# --- ALiBi ---


def test_slopes_are_the_papers():
    """Press et al. 2022, section 3: 1/2, …, 1/256 for 8 heads, and the same with square roots between for 16."""
    assert alibi_slopes(8) == [2.0**-i for i in range(1, 9)]
    np.testing.assert_allclose(alibi_slopes(16), [2.0 ** (-i / 2) for i in range(1, 17)])
    bloom = pytest.importorskip("transformers.models.bloom.modeling_bloom")
    for heads in range(1, 72):
        np.testing.assert_allclose(alibi_slopes(heads), bloom._get_alibi_slopes(heads, "cpu").numpy(), rtol=1e-6)


# --- disentangled attention ---


@pytest.mark.parametrize(("buckets", "limit"), [(256, 512), (8, 64), (8, 12), (32, 128), (4, 512)])
def test_rows_of_distances_are_those_of_transformers(buckets, limit):
    torch = pytest.importorskip("torch")
    deberta = pytest.importorskip("transformers.models.deberta_v2.modeling_deberta_v2")
    t = 700
    x = torch.zeros(1, t, 1)
    theirs = (deberta.build_relative_position(x, x, buckets, limit)[0] + buckets).clamp(0, 2 * buckets - 1).numpy()
    rows = distance_rows(t, buckets, limit)
    distance = np.arange(t)[:, None] - np.arange(t)
    np.testing.assert_array_equal(rows[t - 1 - distance], theirs)


def test_disentangled_scores_are_products_picked_one_by_one():
    rng, (b, t, n, k, h) = np.random.default_rng(0), (2, 5, 4, 2, 3)
    q, keys = rng.normal(size=(b, t, n, h)), rng.normal(size=(b, t, k, h))
    rq, rk = rng.normal(size=(2 * t, n, h)), rng.normal(size=(2 * t, k, h))
    found = numpy(disentangled_bias(*(ops.convert_to_tensor(x.astype("float32")) for x in (q, keys, rq, rk))))
    for i in range(t):
        for j in range(t):
            row = t - 1 - (i - j)
            for head in range(n):
                group = head // (n // k)
                wanted = q[:, i, head] @ rk[row, group] + keys[:, j, group] @ rq[row, head]
                np.testing.assert_allclose(found[:, head, i, j], wanted, rtol=1e-4, atol=1e-5)


def test_the_head_that_v3_was_pretrained_with_is_read(tmp_path):
    """Its files name it otherwise than the class that `transformers` gives them to."""
    torch, (kind, config) = pytest.importorskip("torch"), CASES["deberta_v3"]()
    config.legacy = False
    theirs = kind(config).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    theirs.save_pretrained(tmp_path / "theirs")
    ids = np.random.default_rng(0).integers(3, 96, (2, 12)).astype("int32")
    with torch.no_grad():
        expected = theirs(torch.tensor(ids).long()).logits.numpy()
    task = zoo.MaskedLM.from_preset(tmp_path / "theirs")
    assert relative_error(run(task, {"token_ids": ids}), expected) < TOLERANCE
    task.save_to_preset(tmp_path / "ours")
    with torch.no_grad():
        again = kind.from_pretrained(tmp_path / "ours").eval()(torch.tensor(ids).long()).logits.numpy()
    np.testing.assert_array_equal(again, expected)


@pytest.mark.parametrize("fields", [{"relative": "disentangled"}, {"convolution": 3}])
def test_what_sees_both_ways_is_refused_in_a_decoder(fields):
    with pytest.raises(ValueError, match=r"disentangled.*convolution.*encoder"):
        zoo.Backbone(**TINY, **fields)


# --- rotary scalings ---

_FACTORS = {"short_factor": [1.0, 1.5, 2.0, 3.0], "long_factor": [1.5, 3.0, 6.0, 9.0]}
SCALINGS = {
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 3.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 16},
    "yarn_sharp": {"factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 3.0, "beta_slow": 0.5,
                   "attention_factor": 1.3, "truncate": False},
    "yarn_mscale": {"factor": 40.0, "original_max_position_embeddings": 16, "mscale": 0.7, "mscale_all_dim": 1.0},
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16},
    "longrope": {"factor": 2.0, "original_max_position_embeddings": 16, **_FACTORS},
}  # fmt: skip


@pytest.fixture(scope="module", params=SCALINGS)
def stretched(request, tmp_path_factory):
    """(their model, our task) of a Llama trained on 16 tokens, with a scaling that says so."""
    torch, name = pytest.importorskip("torch"), request.param
    pytest.importorskip("transformers")
    rope = {"rope_type": name.split("_")[0], "rope_theta": 100.0, **SCALINGS[name]}
    longest = 16 if name == "dynamic" else 64
    torch.manual_seed(0)
    kind, config = case("LlamaForCausalLM", "LlamaConfig", vocab_size=96, hidden_size=32, num_hidden_layers=1,
                        num_attention_heads=4, intermediate_size=48, max_position_embeddings=longest,
                        rope_parameters=rope, initializer_range=0.3)()  # fmt: skip
    theirs, path = kind(config).eval(), tmp_path_factory.mktemp("stretched") / name
    theirs.save_pretrained(path)
    return theirs, zoo.CausalLM.from_preset(path)


def logits_of(theirs, ids):
    import torch

    with torch.no_grad():
        return theirs(torch.tensor(ids).long()).logits.numpy()


@pytest.mark.parametrize("t", parameters((12, 16, 17, 40), (16, 40)))
def test_texts_within_and_beyond_the_trained_length(stretched, t):
    theirs, task = stretched
    ids = np.random.default_rng(0).integers(3, 96, (2, t)).astype("int32")
    assert relative_error(run(task, {"token_ids": ids}), logits_of(theirs, ids)) < TOLERANCE


def test_a_long_and_a_short_document_in_one_row_rotate_as_alone(stretched):
    theirs, task = stretched
    ids = np.random.default_rng(1).integers(3, 96, (1, 40)).astype("int32")
    packed = {"token_ids": ids, "segment_ids": np.array([[1] * 9 + [2] * 25 + [3] * 6], "int32")}
    alone = [logits_of(theirs, ids[:, a:b]) for a, b in ((0, 9), (9, 34), (34, 40))]
    assert relative_error(run(task, packed), np.concatenate(alone, axis=1)) < TOLERANCE


def test_a_cache_decides_for_the_longest_text_it_can_hold(stretched):
    """Token by token is what the whole pass gives on a text as long as the cache."""
    theirs, task = stretched
    ids, prompt = np.random.default_rng(2).integers(3, 96, (2, 24)).astype("int32"), 7
    decode, tensor, seen = task.backbone.decode, ops.convert_to_tensor, np.ones((2, 24), "int32")
    prefill = quickly(lambda ids, cache: decode(ids, cache, 0), task.variables)
    step = quickly(lambda ids, cache, at: decode(ids, cache, at, padding_mask=tensor(seen)), task.variables)
    x, cache = prefill(tensor(ids[:, :prompt]), task.backbone.new_cache(2, 24))
    outputs = [x]
    for at in range(prompt, 24):
        x, cache = step(tensor(ids[:, at : at + 1]), cache, tensor(np.int32(at)))
        outputs.append(x)
    found = numpy(task.head(ops.concatenate(outputs, axis=1)))
    assert relative_error(found, logits_of(theirs, ids)) < TOLERANCE


def test_positions_and_lengths_are_those_of_the_documents():
    segments = ops.convert_to_tensor(np.array([[1, 1, 2, 2, 2, 0, 0, 0], [3, 1, 1, 1, 1, 1, 1, 1]], "int32"))
    found = numpy(restart_positions(segments))
    np.testing.assert_array_equal(found, [[0, 1, 0, 1, 2, 0, 1, 2], [0, 0, 1, 2, 3, 4, 5, 6]])
    positions = ops.convert_to_tensor(np.array([[0, 1, 2, 0, 1, 0, 0, 1], [4, 5, 6, 7, 0, 1, 2, 3]], "int32"))
    found = numpy(document_lengths(positions))
    np.testing.assert_array_equal(found, [[3, 3, 3, 2, 2, 1, 2, 2], [8, 8, 8, 8, 4, 4, 4, 4]])


def test_a_text_of_the_trained_length_is_not_stretched():
    positions = ops.arange(16)[None]
    plain = [numpy(x) for x in rotary_angles(positions, 8, 100.0)]
    for scaling in (("dynamic", 4.0, 16), ("longrope", 16, 1.0, *[1.0] * 4, *[9.0] * 4)):
        for a, b in zip(plain, rotary_angles(positions, 8, 100.0, scaling)):
            np.testing.assert_allclose(a, numpy(b), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scaling", [("linear",), ("yarn", 2.0), ("ntk", 2.0), ("longrope", 16, 1.0, 1.0, 1.0)])
def test_a_scaling_that_is_not_whole_is_refused(scaling):
    with pytest.raises(ValueError, match="rotary_scaling"):
        zoo.Backbone(**TINY, rotary_theta=100.0, rotary_scaling=scaling)


# --- all of them, in training ---

NEW = {
    "BLOOMBackbone": {}, "FalconBackbone": {}, "OLMo2Backbone": {}, "SmolLM3Backbone": {"num_layers": 4},
    "StableLMBackbone": {"qk_norm": "each_head"}, "GraniteBackbone": {"residual_scale": 0.3}, "GPTJBackbone": {},
    "OPTBackbone": {"embedding_dim": 16}, "DeBERTaV3Backbone": {"relative_buckets": 8, "convolution": 3},
    "Phi3Backbone": {"rotary_scaling": ("longrope", 8, 1.1, *[1.0] * 4, *[3.0] * 4)},
}  # fmt: skip
# Backends that compile try what adds to the scores, groups of heads, and what computes the scores otherwise.
EACH = parameters(NEW, ("BLOOMBackbone", "FalconBackbone", "DeBERTaV3Backbone"))


def model_of(name, dtype=None, **fields):
    backbone = getattr(zoo, name)(**{**TINY, **NEW[name], **fields}, dtype=dtype)
    return (zoo.MaskedLM if backbone.config.architecture == "encoder" else zoo.CausalLM)(backbone)


def batch():
    rng = np.random.default_rng(0)
    ids = rng.integers(3, 96, (2, 12)).astype("int32")
    segments = np.array([[1] * 7 + [2] * 5, [1] * 9 + [0] * 3], "int32")
    return {"token_ids": ids, "segment_ids": segments}, rng.integers(0, 96, (2, 12)), segments > 0


@pytest.mark.parametrize("name", EACH)
def test_recomputed_gradients_are_the_same(name):
    x, labels, weight = batch()
    plain = gradients(randomise(model_of(name, dropout=0.0, attention_dropout=0.0)), x, labels, weight, training=True)
    again = model_of(name, dropout=0.0, attention_dropout=0.0, remat=True)
    again = gradients(randomise(again), x, labels, weight, training=True)
    assert plain.keys() == again.keys()
    largest = max(np.abs(g).max() for g in plain.values())
    for variable, wanted in plain.items():
        assert np.abs(wanted).max() > 0, variable
        np.testing.assert_allclose(again[variable], wanted, atol=1e-5 * largest, err_msg=variable)


@pytest.mark.parametrize("name", EACH)
def test_half_precision_stays_near_and_fused_attention_equal(name, monkeypatch):
    x, _, counts = batch()
    expected = run(randomise(model_of(name)), x)[counts]
    half = run(randomise(model_of(name, "mixed_bfloat16")), x)[counts]
    assert half.dtype == np.float32 and relative_error(half, expected) < 0.05
    for fused in (True, False)[keras.backend.backend() == "tensorflow" :]:  # which has no grouped heads there
        monkeypatch.setattr(backend, "fused_attention_pays", lambda fused=fused: fused)
        assert relative_error(run(randomise(model_of(name)), x)[counts], expected) < TOLERANCE
