"""What is imported, by whom: one backend alone is enough, and `import zoo` needs none."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parents[1]
OTHERS = {"jax": ("tensorflow", "torch"), "torch": ("tensorflow",), "tensorflow": ("torch",)}

USE = """
import os, random, sys, tempfile
random.seed(0)
import numpy as np
import zoo
if os.environ["KERAS_BACKEND"] == "tensorflow":  # whose compiler takes a minute
    import tensorflow
    tensorflow.config.run_functions_eagerly(True)
text = ["the cat sat on the mat and the dog ran after it"] * 40
for kind, family, task in (("bpe", "GPTBackbone", "CausalLM"), ("unigram", "T5Backbone", "Seq2SeqLM")):
    tokenizer = zoo.Tokenizer.train(text, kind=kind, vocabulary_size=400)
    backbone = getattr(zoo, family)(vocabulary_size=tokenizer.vocabulary_size, num_layers=1, num_heads=2,
                                    hidden_dim=16, intermediate_dim=32, max_sequence_length=64,
                                    **({"decoder_start_token_id": 0} if task == "Seq2SeqLM" else {}))
    model = getattr(zoo, task)(backbone, tokenizer)
    directory = tempfile.mkdtemp()
    model.save_to_preset(directory)
    model = type(model).from_preset(directory)
    if task == "CausalLM":
        model.fit(text[:8], batch_size=4, verbose=0)
        model.evaluate(text[:4], verbose=0)
        assert isinstance(model.generate("the cat", max_new_tokens=3), str)
data = zoo.data.pretraining(zoo.data.texts(text), tokenizer, objective=zoo.data.SpanCorruption(), sequence_length=32,
                            batch_size=2)
import keras
from zoo import training
schedule = training.WarmupSchedule(1e-3, steps=3)
model.compile(training.by_pattern(keras.optimizers.AdamW(schedule, name="adamw"), model), accumulate=2)
monitor = training.Monitor([], steps=3, tokens_per_step=64, checkpoints=directory + "/checkpoints")
model.fit(data.iterate(0, 3), steps_per_epoch=3, verbose=0, shuffle=False, callbacks=[monitor])
print("imported", [name for name in sys.argv[1:] if name in sys.modules])
"""


def python(code, *args, **env):
    return subprocess.run([sys.executable, "-c", code, *args], cwd=ROOT, capture_output=True, text=True, timeout=300,
                          env={**os.environ, **env})  # fmt: skip


@pytest.mark.backends
def test_one_backend_imports_no_other(tmp_path):
    backend = keras.backend.backend()
    done = python(USE, *OTHERS[backend], KERAS_BACKEND=backend, ZOO_CACHE=str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    assert "imported []" in done.stdout


def test_import_alone_is_light():
    """No backend, no keras, and little time (the least of five runs)."""
    code = """
import sys, time
start = time.perf_counter()
import zoo
print(time.perf_counter() - start)
assert zoo.__version__ and "CausalLM" in dir(zoo)
assert not [m for m in ("keras", "jax", "tensorflow", "torch", "tokenizers") if m in sys.modules]
"""
    done = [python(code) for _ in range(5)]
    assert not any(d.returncode for d in done), done[0].stderr
    assert min(float(d.stdout) for d in done) < 0.3


def imports(path):
    """Names of the modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


FILES = sorted((ROOT / "zoo").rglob("*.py"))
WITHOUT_KERAS = ("config", "batch", "weights", "checkpoint", "tensorflow_files", "families", "hub", "registry",
                 "kerashub", "pretrained", "card", "tokenizers", "data", "metrics")  # fmt: skip
BACKENDS = ("jax", "tensorflow", "torch")
ORDER = (*WITHOUT_KERAS, "backend", "processes", "sharding", "losses", "loading", "quantization", "nn", "transformer",
         "backbone", "backbones", "samplers", "generation", "tasks", "adapters", "harness", "training",
         "planning")  # fmt: skip


def room(path):
    return path.relative_to(ROOT / "zoo").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_rooms(path):
    """Private Keras is never used, rooms import from the left alone, and text and files need no keras."""
    found, here = set(imports(path)), room(path)
    assert not [name for name in found if name.startswith("keras.src")]
    if here in WITHOUT_KERAS:
        assert not [name for name in found if name.split(".")[0] == "keras"]
    if here not in ("backend", "__init__"):
        allowed = {"checkpoint": "torch", "tensorflow_files": "tensorflow", "nn": "jax", "planning": "jax"}.get(here)
        engine = path.stem.removeprefix("_").split("_")[0]  # of a backend: _jax.py, _torch_fsdp.py
        allowed = engine if here in ("processes", "sharding") else allowed
        assert not {name.split(".")[0] for name in found} & set(BACKENDS) - {allowed}
    if here != "__init__":
        rooms = {name.split(".")[1] for name in found if name.startswith("zoo.") and name.count(".")}
        late = [other for other in rooms if other in ORDER and ORDER.index(other) > ORDER.index(here)]
        assert not late, f"{here} imports {late}"


def test_every_config_switch_is_read_in_one_module():
    """Sizes are read where needed; a switch belongs to one module of the model path."""
    import dataclasses

    from zoo.config import Config

    lines = (ROOT / "zoo" / "config.py").read_text(encoding="utf-8")
    stack = lines.index("    # Stack.\n")
    names = [f.name for f in dataclasses.fields(Config) if lines.index(f"    {f.name}:") > stack]
    for name in ("window_pattern", "rotary_pattern", "rotary_fraction"):
        names.remove(name)  # read by Config itself alone
    assert len(names) > 30
    readers = {name: set() for name in names}
    for path in FILES:
        if room(path) in ("config", "nn", "transformer", "backbone", "generation", "tasks"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and node.attr in readers:
                    owner = node.value
                    if (isinstance(owner, ast.Name) and owner.id == "config") or (
                        isinstance(owner, ast.Attribute) and owner.attr == "config"
                    ):
                        readers[node.attr].add(str(path.relative_to(ROOT)))
    assert not {name: found for name, found in readers.items() if len(found) != 1}


def test_the_model_path_stays_small():
    parts = [ROOT / "zoo" / "config.py", ROOT / "zoo" / "transformer.py", ROOT / "zoo" / "backbone.py",
             *(ROOT / "zoo" / "nn").glob("*.py")]  # fmt: skip
    assert sum(len(p.read_text(encoding="utf-8").splitlines()) for p in parts) < 1100
