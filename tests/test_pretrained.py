"""Presets: finding, reading and writing directories, against files of `transformers`."""

import os
import subprocess
import sys

import numpy as np
import pytest

from tests.variables import variables
from zoo import families, pretrained
from zoo.checkpoint import Checkpoint
from zoo.config import Config

SHAPE = {"vocabulary_size": 11, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 64,
         "max_sequence_length": 16}  # fmt: skip


def made(name="gpt2", seed=0):
    family, rng = families.by_name(name), np.random.default_rng(seed)
    config = Config(**{**family.switches(SHAPE), **SHAPE})
    return family, config, {n: rng.normal(size=s).astype("float32") for n, s in variables(config).items()}


def loaded(directory):
    family, config, _ = pretrained.read(directory)
    got = {}
    targets = {n: (s, lambda x, n=n: got.__setitem__(n, np.array(x))) for n, s in variables(config).items()}
    pretrained.load_weights(directory, family, config, targets)
    return got


def assert_same(got, wanted):
    assert got.keys() == wanted.keys()
    assert all(np.array_equal(got[name], wanted[name]) for name in wanted)


class FakeTokenizer:
    def __init__(self, text="tokens", breaks=False):
        self.text, self.breaks = text, breaks

    def save(self, directory):
        (directory / "tokenizer.json").write_text(self.text)
        if self.breaks:
            raise OSError("disk full")


def test_a_saved_preset_reads_back(tmp_path):
    family, config, arrays = made()
    pretrained.save(tmp_path / "a" / "b", family, config, "CausalLM", arrays, FakeTokenizer(), extra={"id2label": {}})
    assert sorted(os.listdir(tmp_path / "a" / "b")) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert os.listdir(tmp_path / "a") == ["b"]
    again, same, hf = pretrained.read(tmp_path / "a" / "b")
    assert again is family and same == config and hf["id2label"] == {} and hf["dtype"] == "float32"
    assert pretrained.task_of(hf) == "CausalLM" and pretrained.has_tokenizer(tmp_path / "a" / "b")
    assert_same(loaded(tmp_path / "a" / "b"), arrays)


def test_a_bare_backbone_has_the_names_of_the_bare_class(tmp_path):
    import transformers

    for name in families.families():
        family, config, arrays = made(name)
        body = {n: x for n, x in arrays.items() if not n.startswith("head/")}
        pretrained.save(tmp_path / name, family, config, "Backbone", body)
        kind = getattr(transformers, family.architectures["Backbone"])
        model, info = kind.from_pretrained(tmp_path / name, output_loading_info=True)
        model.save_pretrained(tmp_path / "theirs" / name)
        ours, theirs = Checkpoint(tmp_path / name), Checkpoint(tmp_path / "theirs" / name)
        assert set(ours) <= set(theirs) and all("pooler" in n or "positions" in n for n in set(theirs) - set(ours))
        assert not info["unexpected_keys"] and not info["mismatched_keys"]
        assert all("pooler" in key or "positions" in key for key in info["missing_keys"])


def test_dtype_and_shards(tmp_path):
    family, config, arrays = made()
    pretrained.save(tmp_path, family, config, "CausalLM", arrays, dtype="bfloat16", max_shard_size=1000)
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 1
    assert pretrained.read(tmp_path)[2]["dtype"] == "bfloat16"
    for name, x in loaded(tmp_path).items():
        np.testing.assert_array_equal(x, arrays[name].astype(x.dtype))
        assert x.dtype.name == "bfloat16"


def test_saving_over_a_sharded_preset_leaves_only_the_new_one(tmp_path):
    family, config, arrays = made()
    (tmp_path / "README.md").write_text("mine")
    pretrained.save(tmp_path, family, config, "CausalLM", arrays, max_shard_size=1000)
    for kwargs in ({}, {"max_shard_size": 2000}):
        _, _, newer = made(seed=len(kwargs) + 1)
        pretrained.save(tmp_path, family, config, "CausalLM", newer, **kwargs)
        assert_same(loaded(tmp_path), newer)
    assert not (tmp_path / "model.safetensors").exists() and (tmp_path / "README.md").read_text() == "mine"


@pytest.mark.parametrize("where", ["weights", "tokenizer"])
def test_an_interrupted_save_leaves_the_old_preset(tmp_path, where):
    family, config, arrays = made()
    out = tmp_path / "preset"
    pretrained.save(out, family, config, "CausalLM", arrays, FakeTokenizer("old"))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    newer, seen = dict(made(seed=1)[2]), []
    if where == "weights":

        class Stop:
            shape, dtype = newer["decoder/final_norm/bias"].shape, np.dtype("float32")

            def __array__(self, dtype=None, copy=None):
                seen.append(1)
                raise KeyboardInterrupt

        newer["decoder/final_norm/bias"] = Stop()
    with pytest.raises((KeyboardInterrupt, OSError)):
        pretrained.save(out, family, config, "CausalLM", newer, FakeTokenizer("new", breaks=True), max_shard_size=500)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert os.listdir(tmp_path) == ["preset"] and (seen or where == "tokenizer")


def test_a_task_that_the_family_lacks_is_refused(tmp_path):
    family, config, arrays = made()
    with pytest.raises(ValueError, match="gpt2 has no Seq2SeqLM"):
        pretrained.save(tmp_path / "out", family, config, "Seq2SeqLM", arrays)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("text", "message"), [
    ("", "JSON"), ("[1]", "JSON object"), ('{"a": 1}', "model_type"), ('{"model_type": "gtp2"}', "did you mean gpt2"),
    ('{"model_type": "gpt2", "n_embd": 8}', "needs vocabulary_size"), ("[" * 100_000, "JSON"),
    ('{"model_type": "gpt2", "vocab_size": "9", "n_embd": 8, "n_layer": 1, "n_head": 1}', "vocabulary_size.*'9'"),
    ('{"model_type": "gpt2", "resid_pdrop": "no", "vocab_size": 9, "n_embd": 8, "n_layer": 1, "n_head": 1}', "json: "),
    ('{"model_type": "llama", "quantization_config": {"bits": 4}}', "quantization_config"),
])  # fmt: skip
def test_a_config_json_that_cannot_be_used(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        pretrained.read(tmp_path)
    assert "config.json" in str(error.value)


def test_real_checkpoints(shared_data):
    """Files that others made, with tied embeddings stored once and three times."""
    for name in ("stories260K", "t5-dummy"):
        directory = shared_data / "weights" / name
        stored = Checkpoint(directory)
        token = "model.embed_tokens.weight" if name == "stories260K" else "shared.weight"
        np.testing.assert_array_equal(loaded(directory)["token/embeddings"], stored.read(token))


# --- where presets come from ---


def test_a_directory_and_what_is_none(tmp_path):
    family, config, arrays = made()
    pretrained.save(tmp_path / "p", family, config, "CausalLM", arrays)
    assert pretrained.resolve(tmp_path / "p") == tmp_path / "p" == pretrained.resolve(str(tmp_path / "p"))
    with pytest.raises(ValueError, match=r"has no config\.json"):
        pretrained.resolve(tmp_path)
    with pytest.raises(ValueError, match=r"is no directory.*near: .*gpt2"):
        pretrained.resolve("gpt2_smal")
    with pytest.raises(ValueError, match="hf://someone/model"):
        pretrained.resolve("someone/model")


def test_no_backend_is_imported():
    code = "import sys, zoo.pretrained; sys.exit(bool({'keras', 'torch', 'jax', 'tensorflow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=os.path.dirname(os.path.dirname(__file__))).returncode == 0
