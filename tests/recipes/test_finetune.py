"""recipes/finetune.py from the command line: each task without a file, what it leaves behind, what it refuses."""

import csv
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
@pytest.mark.skipif(os.environ["KERAS_BACKEND"] == "tensorflow", reason="tried by hand: it takes minutes")
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
        if task == "seq2seq":
            records = [json.loads(line) for line in (tmp_path / task / "predictions.jsonl").read_text().splitlines()]
            assert_lead(measures["rougeL_of_lead"]["value"], records)


def assert_lead(value, records):
    """It is what rouge-score finds of some number of first words, and no less than of as many as references have."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    of = {count: np.mean([scorer.score(one["reference"], " ".join(one["input"].split()[:count]))["rougeL"].fmeasure
                          for one in records]) for count in range(1, 40)}  # fmt: skip
    usual = round(np.median([len(one["reference"].split()) for one in records]))
    assert value >= of[usual] - 1e-9 and min(abs(one - value) for one in of.values()) < 1e-9


@pytest.mark.uncompiled
def test_early_stopping_keeps_the_best(run, recipe, labelled, tmp_path):
    flags = (f"--data={labelled}", "--columns=text=review,label=stars", "--epochs=50", "--batch_size=16",
             "--patience=2", "--learning_rate=2e-2", "--schedule=constant", f"--output={tmp_path}")  # fmt: skip
    text = recipe("finetune", *SMALL, *flags).stdout
    best = min((row for row in read_rows(tmp_path / "metrics.csv") if row["val_loss"]), key=lambda row: row["val_loss"])
    assert f"the model is that of step {best['step']}, the best" in text
    assert json.loads((tmp_path / "metrics.json").read_text())["step"] == best["step"]


@pytest.mark.uncompiled
def test_an_adapter_of_a_preset_whose_head_has_other_labels(run, recipe, tmp_path):
    path, flags = tmp_path / "three.csv", ("--steps=4", "--batch_size=8", "--adapter=lora:rank=2")
    path.write_text("text,label\n" + "".join(f"the {i} film,{i % 3}\n" for i in range(60)), encoding="utf-8")
    output = tmp_path / "run"
    text = recipe("finetune", *SMALL[4:], f"--preset={run[0] / 'preset'}", f"--data={path}", *flags,
                  f"--output={output}").stdout  # fmt: skip
    assert ", the examples need one for 0, 1, 2: that is new" in text and "trained: " in text
    assert json.loads((output / "adapter" / "adapter_config.json").read_text())["r"] == 2
    assert set(json.loads((output / "preset" / "config.json").read_text())["id2label"].values()) == {"0", "1", "2"}


SEARCH = """
import sys
from pathlib import Path
sys.path.insert(0, "recipes")
import finetune, searching
output, sys.argv[0] = Path(sys.argv[1]), sys.argv[2]
finetune.FLAGS(["finetune", "--data=some.csv", "--search=8", "--test_data=secret.csv"])
for refused in ("no_flag=1..2", "epochs=2..1", "epochs=few..many"):
    try:
        searching.space([refused], small=True)
    except ValueError as error:
        print(error)
space = searching.space(["learning_rate=1e-5..1e-1", "epochs=1..2", "batch_size=8|16"], small=True)
searching.search(output, 8, space)
print("chosen", *(finetune.FLAGS[name].value for name in space), finetune.FLAGS.test_data)
"""

RUN = """
import json, math, sys
from pathlib import Path
given = dict(word.removeprefix("--").partition("=")[::2] for word in sys.argv[1:])
assert "secret" not in Path(given["flagfile"]).read_text() and "--search=" not in Path(given["flagfile"]).read_text()
value = -abs(math.log10(float(given["learning_rate"])) + 3) - int(given["batch_size"]) / 100
output = Path(given["output"])
output.mkdir(parents=True)
(output / "metrics.json").write_text(json.dumps({"task": "classify", "accuracy": {"value": value}, "examples": 3}))
"""


def test_a_search_takes_the_best_of_its_runs(tmp_path):
    """Of a script whose measure is known: best is a rate of 1e-3 and a batch of 8."""
    pytest.importorskip("optuna")
    script, output = tmp_path / "script.py", tmp_path / "run"
    script.write_text(RUN)
    output.mkdir()
    done = python(SEARCH, str(output), str(script))
    assert done.returncode == 0, done.stderr[-2000:]
    assert "no flag 'no_flag'" in done.stdout and done.stdout.count("a range is low..high") == 2
    with open(output / "search.csv", newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    best = max(rows, key=lambda row: row["accuracy"])
    assert len(rows) == 8 and len({row["learning_rate"] for row in rows}) == 8
    for row in rows:
        expected = -abs(np.log10(row["learning_rate"]) + 3) - row["batch_size"] / 100
        assert row["accuracy"] == pytest.approx(expected)
    chosen = done.stdout.split("chosen ")[1].split()
    assert [float(chosen[0]), *map(int, chosen[1:3])] == [best["learning_rate"], best["epochs"], best["batch_size"]]
    assert chosen[3] == "secret.csv" and (output / "search.png").read_bytes().startswith(b"\x89PNG")


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
