"""recipes/finetune.py from the command line: each task without a file, what it leaves behind, what it refuses."""

import importlib.util
import json
import os
import re
import shutil

import numpy as np
import pytest

from tests.recipes.test_pretrain import assert_refused
from tests.test_imports import python
from zoo.checkpoint import Checkpoint
from zoo.training.reports import read_rows

SMALL = ("--num_layers=1", "--num_heads=2", "--hidden_dim=32", "--vocabulary_size=500", "--sequence_length=32",
         "--log_every=2", "--test_limit=16", "--validation_batches=2")  # fmt: skip


@pytest.fixture(scope="session")
def labelled(tmp_path_factory):
    """A CSV file of 300 texts whose label is in their words."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("labelled") / "train.csv"
    words = {"good": ["fine", "warm", "bright"], "bad": ["dull", "cold", "grey"]}
    lines = ["review,stars"]
    for i in range(300):
        label = ("good", "bad")[i % 2]
        lines.append(f"the {i} film is {rng.choice(words[label])} and {rng.choice(words[label])},{label}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def run(recipe, labelled, tmp_path_factory):
    """The directory and the output of a finished run on that file."""
    output = tmp_path_factory.mktemp("runs") / "classify"
    flags = (f"--data={labelled}", "--columns=text=review,label=stars", "--class_weights=balanced", "--epochs=6",
             "--batch_size=16", "--learning_rate=5e-3", f"--output={output}")  # fmt: skip
    return output, recipe("finetune", *SMALL, *flags).stdout


@pytest.mark.backends
@pytest.mark.skipif(os.environ["KERAS_BACKEND"] == "tensorflow", reason="not tried on TensorFlow yet")
def test_a_run_leaves_a_model_that_has_learnt(run, backend):
    import zoo

    output, text = run
    rows = read_rows(output / "metrics.csv")
    assert [row["step"] for row in rows if row["val_loss"] is not None] == [16, 32, 48, 64, 80, 96]
    measures = json.loads((output / "metrics.json").read_text())
    assert measures["accuracy"]["value"] > 0.9 and measures["step"] == 96 and measures["examples"] == 16
    assert (output / "confusion.png").read_bytes().startswith(b"\x89PNG") and (output / "loss.png").is_file()
    predictions = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
    right = np.mean([row["prediction"] == row["reference"] for row in predictions])
    assert len(predictions) == 16 and right == pytest.approx(measures["accuracy"]["value"])
    model = zoo.TextClassifier.from_preset(output / "preset")
    assert model.labels == ("bad", "good")
    [found] = model.classify(predictions[0]["input"])
    assert max(found, key=found.get) == predictions[0]["prediction"]
    card = (output / "preset" / "README.md").read_text()
    assert f"| accuracy | {measures['accuracy']['value']:.4g} |" in card and "zoo.TextClassifier" in text
    assert f"--backend={backend}" in (output / "run.cfg").read_text()


def test_a_resumed_run_ends_in_the_same_state(run, recipe, tmp_path):
    output, _ = run
    again = tmp_path / "again"
    shutil.copytree(output, again)
    shutil.rmtree(again / "preset")
    shutil.rmtree(again / "checkpoints" / f"{96:09d}")
    assert "80 of which are done" in recipe("finetune", f"--output={again}", "--resume").stdout
    ours, theirs = (Checkpoint(path / "preset") for path in (again, output))
    assert all(np.array_equal(ours.read(name), theirs.read(name)) for name in theirs)
    assert json.loads((again / "metrics.json").read_text()) == json.loads((output / "metrics.json").read_text())


IN_ONE_PROCESS = """
import sys
sys.path.insert(0, "recipes")
import common, finetune
from absl.testing import flagsaver
tasks, output, *rest = sys.argv[1:]
for task in tasks.split(","):
    with flagsaver.flagsaver():
        finetune.FLAGS(["finetune", f"--task={task}", f"--output={output}/{task}", *rest])
        finetune.main()
    common.choose_backend = lambda: None
"""


@pytest.mark.uncompiled
def test_every_task_runs_without_a_file(tmp_path):
    """In one process, since most of the time of a small run goes into its start."""
    needs = {"seq2seq": "rouge_score"}
    tasks = ["answer"]
    tasks += [task for task, package in needs.items() if importlib.util.find_spec(package)]
    flags = ("--steps=3", "--validate_every=3", "--checkpoint_every=3", "--target_length=4", "--batch_size=8")
    flags += ("--vocabulary_size=1000", "--sequence_length=96", "--limit=120")
    done = python(IN_ONE_PROCESS, ",".join(tasks), str(tmp_path), "--backend=torch", *SMALL, *flags)
    assert done.returncode == 0, done.stderr[-3000:]
    for task in tasks:
        measures = json.loads((tmp_path / task / "metrics.json").read_text())
        assert measures["step"] == 3 and measures["examples"] == 16
        drawn = {"tag": "confusion", "relate": "confusion", "answer": "scores", "seq2seq": "lengths"}.get(task)
        assert drawn is None or (tmp_path / task / f"{drawn}.png").is_file()
        assert (tmp_path / task / "preset" / "README.md").is_file()


@pytest.mark.uncompiled
def test_early_stopping_keeps_the_best(run, recipe, labelled, tmp_path):
    flags = (f"--data={labelled}", "--columns=text=review,label=stars", "--epochs=50", "--batch_size=16",
             "--patience=2", "--learning_rate=2e-2", "--schedule=constant", f"--output={tmp_path}")  # fmt: skip
    text = recipe("finetune", *SMALL, *flags).stdout
    best = min((row for row in read_rows(tmp_path / "metrics.csv") if row["val_loss"]), key=lambda row: row["val_loss"])
    assert f"the model is that of step {best['step']}, the best" in text
    assert json.loads((tmp_path / "metrics.json").read_text())["step"] == best["step"]


REFUSED = {  # content of the file, flags, what is said
    "column": ("text,stars\na,b\n", [], "has no column 'label', only 'text', 'stars'"),
    "empty": ("", [], "is empty"),
    "one class": ("text,label\n" + "".join(f"{i},a\n" for i in range(40)), [], "only the label 'a'"),
    "preset": ("text,label\n" + "".join(f"{i},{i % 2}\n" for i in range(40)), ["--preset=gpt9"], "No preset 'gpt9'"),
    "weights": ("first,second\n" + "".join(f"{i},b\n" for i in range(40)), ["--task=embed", "--class_weights=balanced"],
                "--class_weights is of classify and tag and relate"),
    "batch": ("text,label\n" + "".join(f"{i},{i % 2}\n" for i in range(40)), ["--batch_size=64"], "batch_size=64 is"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "flags", "message"), REFUSED.values(), ids=REFUSED)
def test_refuses_before_training(text, flags, message, recipe, tmp_path):
    path = tmp_path / "data.csv"
    path.write_text(text, encoding="utf-8")
    done = recipe("finetune", f"--data={path}", *flags, f"--output={tmp_path / 'run'}", check=False)
    assert_refused(done, message)
    assert not (tmp_path / "run" / "run.cfg").exists()


def test_refuses_a_label_that_training_never_sees(labelled, recipe, tmp_path):
    other = tmp_path / "test.csv"
    other.write_text("review,stars\nso so,fair\n", encoding="utf-8")
    done = recipe("finetune", f"--data={labelled}", f"--test_data={other}", "--columns=text=review,label=stars",
                  f"--output={tmp_path / 'run'}", check=False)  # fmt: skip
    assert_refused(done, "(test) has the label 'fair', which no example to train on has")
    assert not re.search("step 1", done.stdout)
