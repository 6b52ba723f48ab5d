"""Recipes on a mesh of four virtual devices: the run of one device, resumed on another mesh, and a text from it."""

import json
import os

import pytest

from tests.recipes.conftest import TINY
from tests.test_imports import python
from zoo import Tokenizer
from zoo.training.reports import read_rows

DEVICES = {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4", "KERAS_BACKEND": "jax"}
EXPECTED = "--mesh=data:4 splits batches in 4, which does not divide 2 rows: use --batch_size=8"


def test_a_run_moves_from_mesh_to_mesh(recipe, corpus, tmp_path):
    """Its odd vocabulary is padded, so that it is split over `model`."""

    def train(output, *flags):
        done = recipe("pretrain", *TINY, "--vocabulary_size=399", "--pad_vocabulary_to=4", f"--data={corpus}",
                      "--split=blank", "--schedule=constant", "--log_every=1", f"--output={tmp_path / output}", *flags,
                      **DEVICES)  # fmt: skip
        assert "is not split" not in done.stderr

    train("one", "--steps=6")
    train("many", "--steps=3", "--mesh=data:2,model:2", "--shard=fsdp")
    train("many", "--steps=6", "--mesh=data:4", "--shard=none", "--resume")
    one, many = ([row["loss"] for row in read_rows(tmp_path / run / "metrics.csv")] for run in ("one", "many"))
    assert len(one) == 6 and many == pytest.approx(one, rel=1e-4)
    preset = f"--preset={tmp_path / 'many' / 'preset'}"
    config = json.loads((tmp_path / "many" / "preset" / "config.json").read_text())
    assert config["vocab_size"] == 400 and Tokenizer.from_preset(tmp_path / "many" / "preset").vocabulary_size == 399
    texts = [recipe("generate", preset, "--prompt=The", "--max_new_tokens=8", *mesh, **DEVICES).stdout
             for mesh in ([], ["--mesh=model:2"])]  # fmt: skip
    assert texts[0] == texts[1] and len(texts[0]) > len("The")


def test_a_batch_that_does_not_divide_is_refused(recipe, tmp_path):
    flags = ("--mesh=data:4", "--batch_size=4", "--accumulate=2", f"--output={tmp_path / 'run'}")
    done = recipe("pretrain", *flags, check=False, **DEVICES)
    assert done.returncode == 1 and EXPECTED in done.stderr
    assert not (tmp_path / "run").exists()


FIRST_OF_TWO = """
import os, runpy, sys, types
import zoo
sys.path.insert(0, "recipes")
sys.argv = sys.argv[1:]
zoo.processes = types.SimpleNamespace(start=lambda *_: None, count=lambda: 2, index=lambda: 0, is_first=lambda: True)
mesh = types.SimpleNamespace(num_model_replicas=2)
zoo.sharding = types.SimpleNamespace(make=lambda *_: mesh, use=lambda _: None, current=lambda: mesh)
runpy.run_path(os.path.abspath("recipes/" + sys.argv[0]), run_name="__main__")
"""


@pytest.mark.parametrize("flags, message", [
    (["pretrain.py"], "2 processes need --mesh, such as --mesh=data:8"),
    (["pretrain.py", "--mesh=data:2", "--data=README.md"], "Several processes need --output, a directory that all"),
    (["finetune.py", "--mesh=data:2"], "Several processes need --output, a directory that all"),
    (["generate.py", "--mesh=data:2", "--preset=x"], "Several processes read no standard input: give --prompt or"),
])  # fmt: skip
def test_what_several_processes_need_is_said(flags, message):
    """Before Keras is imported, and by a process that believes in a second one."""
    done = python(FIRST_OF_TWO, *flags, "--coordinator=nobody:1")
    assert done.returncode == 1 and f"error: {message}" in done.stderr, done.stderr
    assert "process 0 of 2 stops here" in done.stderr and "Traceback" not in done.stderr
