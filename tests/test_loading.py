"""Models filled from files: memory, dtypes, and nothing left undrawn where a checkpoint has no weights."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import zoo
from tests.models import TINY
from zoo import backend, checkpoint
from zoo.loading import weights

pytestmark = pytest.mark.backends
ROOT = Path(__file__).parents[1]
LOAD = """
import re, sys
import keras
from zoo import CausalLM

def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])

tiny, large, out = sys.argv[1:]
CausalLM.from_preset(tiny)  # what a first model costs in itself
before = peak()
lm = CausalLM.from_preset(large)
for v in lm.variables:
    float(keras.ops.sum(v))  # what is mapped is read when it is used
loaded = peak()
lm.save_to_preset(out)
print(before, loaded, peak())
"""


def values(model):
    return {name: np.asarray(keras.ops.convert_to_numpy(v.value)) for name, v in weights(model).items()}


def saved(path, cls=zoo.LlamaBackbone, task=zoo.CausalLM, **fields):
    model = task(cls(**{**TINY, **fields}))
    model.save_to_preset(path)
    return model


def large_llama(path, layers=4, d=1024, f=2816, vocabulary=16000):
    """Writes a Llama of 337 MB, most of which has to be transposed; returns its tensors."""
    names = {f"self_attn.{name}_proj": (d, d) for name in "qkvo"}
    names |= {"mlp.gate_proj": (f, d), "mlp.up_proj": (f, d), "mlp.down_proj": (d, f)}
    names |= {"input_layernorm": (d,), "post_attention_layernorm": (d,)}
    shapes = {f"model.layers.{i}.{name}.weight": shape for i in range(layers) for name, shape in names.items()}
    shapes |= dict.fromkeys(("model.embed_tokens.weight", "lm_head.weight"), (vocabulary, d))
    shapes["model.norm.weight"] = (d,)
    noise = np.random.default_rng(0).standard_normal(1_000_003, "float32")
    tensors = {name: np.resize(noise, shape) for name, shape in shapes.items()}
    path.mkdir()
    checkpoint.write(path, tensors.items())
    config = {"vocab_size": vocabulary, "hidden_size": d, "intermediate_size": f, "num_hidden_layers": layers,
              "num_attention_heads": 16, "model_type": "llama", "tie_word_embeddings": False}  # fmt: skip
    (path / "config.json").write_text(json.dumps(config))
    return tensors


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_peak_memory_of_loading_and_saving(tmp_path):
    saved(tmp_path / "tiny")
    tensors = large_llama(tmp_path / "large")
    size = (tmp_path / "large" / "model.safetensors").stat().st_size
    command = [sys.executable, "-c", LOAD, tmp_path / "tiny", tmp_path / "large", tmp_path / "out"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    before, loaded, after = map(int, done.stdout.split())
    assert size > 300e6 and size < loaded - before < 1.15 * size
    assert after - before < 1.05 * size + 3 * max(x.nbytes for x in tensors.values())
    written = checkpoint.Checkpoint(tmp_path / "out")
    assert set(written) == set(tensors)
    for name, x in tensors.items():
        np.testing.assert_array_equal(written.read(name), x, err_msg=name)


@pytest.mark.parametrize("stored", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "mixed_bfloat16"])
def test_dtypes_of_file_and_model(tmp_path, stored, dtype):
    model = saved(tmp_path / "a")
    model.save_to_preset(tmp_path / "b", dtype=stored)
    again = zoo.CausalLM.from_preset(tmp_path / "b", dtype=dtype)
    kind = "float32" if dtype == "mixed_bfloat16" else dtype
    expected = values(model)
    for name, x in values(again).items():
        assert x.dtype.name == kind
        np.testing.assert_array_equal(x, expected[name].astype(stored).astype(kind), err_msg=name)


def test_a_loaded_model_trains_on_its_own_memory(tmp_path):
    """No two variables, and no variable and file, share what a step writes to."""
    saved(tmp_path, zoo.GPTBackbone)  # query, key and value are slices of one tensor
    before = (tmp_path / "model.safetensors").read_bytes()
    lm = zoo.CausalLM.from_preset(tmp_path)
    first = values(lm)
    for i, v in enumerate(weights(lm).values()):
        v.assign_add(keras.ops.full(v.shape, i + 1, v.dtype))
    for i, (name, x) in enumerate(values(lm).items()):
        np.testing.assert_array_equal(x, first[name] + np.float32(i + 1), err_msg=name)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    other = zoo.CausalLM.from_preset(tmp_path)
    for name, x in values(other).items():
        np.testing.assert_array_equal(x, first[name])


def test_heads_that_a_checkpoint_lacks_are_drawn(tmp_path):
    """Weights of a body are not drawn before they are loaded; the rest must be, as in a new model."""
    backbone = zoo.LlamaBackbone(**{**TINY, "vocabulary_size": 500, "hidden_dim": 64})
    backbone.save_to_preset(tmp_path)
    with pytest.warns(UserWarning, match="head/kernel"):
        lm = zoo.CausalLM.from_preset(tmp_path)
    found = values(lm)
    assert abs(found["head/kernel"].std() / backbone.config.initializer_range - 1) < 0.05
    for name, x in values(backbone).items():
        np.testing.assert_array_equal(found[name], x)


def test_without_weights_everything_is_drawn(tmp_path):
    saved(tmp_path)
    found = values(zoo.CausalLM.from_preset(tmp_path, load_weights=False))
    assert all(x.std() > 0 for name, x in found.items() if name.endswith(("kernel", "embeddings")))
    assert not backend.is_uninitialised()
