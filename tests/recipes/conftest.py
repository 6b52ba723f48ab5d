"""Recipes are run as users run them, in a process of their own; forks.py says which of them start anew."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.recipes.forks import Forks, run_anew

ROOT = Path(__file__).parents[2]
TINY = ("--vocabulary_size=400", "--num_layers=1", "--num_heads=2", "--hidden_dim=16", "--sequence_length=32",
        "--batch_size=4", "--steps=20", "--learning_rate=1e-2", "--validation_batches=2", "--validate_every=10",
        "--checkpoint_every=10")  # fmt: skip
SMALL = ("--vocabulary_size=512", "--num_layers=1", "--num_heads=2", "--hidden_dim=64", "--sequence_length=64",
         "--batch_size=8", "--steps=200", "--learning_rate=5e-3", "--validation_batches=4", "--validate_every=100",
         "--checkpoint_every=100", "--dropout=0.1")  # fmt: skip


@pytest.fixture(scope="session")
def recipe(tmp_path_factory):
    """Runs a recipe with flags, standard input and variables of the environment.

    Returns the finished process, or with `wait=False` one that runs.
    """
    cache, forks = tmp_path_factory.mktemp("cache"), Forks(tmp_path_factory.mktemp("streams"))

    def run(name, *flags, check=True, input="", wait=True, **environment):
        anew = "PYTHONPATH" in environment
        paths = [environment.pop("PYTHONPATH", None), str(ROOT), os.environ.get("PYTHONPATH")]
        environment = {**os.environ, "ZOO_CACHE": str(cache), "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                       "CUDA_VISIBLE_DEVICES": "", **environment}  # fmt: skip
        path = str(ROOT / "recipes" / f"{name}.py")
        if not wait:
            return subprocess.Popen([sys.executable, path, *flags], env=environment, stdout=subprocess.PIPE,
                                    stderr=subprocess.PIPE, text=True)  # fmt: skip
        done = (run_anew if anew else forks.run)(path, flags, environment, input)
        assert not check or done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done

    yield run
    forks.end()


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A file with 130 kB of English, paragraphs between blank lines."""
    from zoo.data.prose import docstrings

    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    path.write_text("\n\n".join(text for _, _, text in docstrings()[100:500]), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def pretrained(recipe, corpus, tmp_path_factory):
    """The directory and the output of a finished run of a family."""
    runs = {}

    def get(family):
        if family not in runs:
            output = tmp_path_factory.mktemp("runs") / family
            size = SMALL if family == "gpt2" else TINY
            flags = [f"--family={family}", f"--data={corpus}", "--split=blank", f"--output={output}"]
            runs[family] = output, recipe("pretrain", *size, *flags).stdout
        return runs[family]

    return get
