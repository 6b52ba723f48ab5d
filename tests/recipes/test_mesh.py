"""Recipes on a mesh of four virtual devices: the run of one device, resumed on another mesh, and a text from it."""

import os

import pytest

from tests.recipes.conftest import TINY
from zoo.training.reports import read_rows

FLAGS = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4"
DEVICES = {"XLA_FLAGS": FLAGS, "KERAS_BACKEND": "jax"}
EXPECTED = "--mesh=data:4 splits batches in 4, which does not divide 2 rows: use --batch_size=8"


def test_a_run_moves_from_mesh_to_mesh(recipe, corpus, tmp_path):
    def train(output, *flags):
        recipe("pretrain", *TINY, f"--data={corpus}", "--split=blank", "--schedule=constant", "--log_every=1",
               f"--output={tmp_path / output}", *flags, **DEVICES)  # fmt: skip

    train("one", "--steps=6")
    train("many", "--steps=3", "--mesh=data:2,model:2", "--shard=fsdp")
    train("many", "--steps=6", "--mesh=data:4", "--shard=none", "--resume")
    one, many = ([row["loss"] for row in read_rows(tmp_path / run / "metrics.csv")] for run in ("one", "many"))
    assert len(one) == 6 and many == pytest.approx(one, rel=1e-4)
    preset = f"--preset={tmp_path / 'many' / 'preset'}"
    texts = [recipe("generate", preset, "--prompt=The", "--max_new_tokens=8", *mesh, **DEVICES).stdout
             for mesh in ([], ["--mesh=model:2"])]  # fmt: skip
    assert texts[0] == texts[1] and len(texts[0]) > len("The")


def test_a_batch_that_does_not_divide_is_refused(recipe, tmp_path):
    flags = ("--mesh=data:4", "--batch_size=4", "--accumulate=2", f"--output={tmp_path / 'run'}")
    done = recipe("pretrain", *flags, check=False, **DEVICES)
    assert done.returncode == 1 and EXPECTED in done.stderr
    assert not (tmp_path / "run").exists()
