"""A search for the best flags of a fine-tuning, by Optuna: runs of the same recipe, of which the best counts.

Each run is a process of its own in --output/search, and does what the recipe would do with these flags; one that is
there already is not done again. It knows flags and a measure a run, and no model.
"""

import csv
import io
import json
import shutil
import subprocess
import sys

import common
from absl import flags
from adapting import number

from zoo.checkpoint import write_png, write_text

FLAGS = flags.FLAGS
OTHERS = ("search", "output", "resume", "test_data")  # flags that are not the runs'
MEASURES = {"tag": "f1", "answer": "f1"}  # what counts; of other tasks the first of these that there is
FIRST = ("accuracy", "spearman", "rougeL", "bleu", "perplexity")  # the last is better when it is lower


def space(words, small):
    """Flag -> (low, high) or a list of values.

    Args:
        words: such as learning_rate=1e-5..1e-3, a list; None: one that suits most tasks.
        small: whether learning rates are those of pretrained weights.

    Raises:
        ValueError: a flag that is not there, or words that are no range.
    """
    rates = "learning_rate=1e-5..5e-4" if small else "learning_rate=1e-4..1e-2"
    found = {}
    for word in words or (rates, "batch_size=8|16|32", "epochs=1..4"):
        name, _, values = word.partition("=")
        low, dots, high = values.partition("..")
        low, high = number(low), number(high)
        if name not in FLAGS or name in OTHERS:
            raise ValueError(f"--search_space={word}: there is no flag {name!r} to search over.")
        if dots and (isinstance(low, str) or isinstance(high, str) or not low < high):
            raise ValueError(f"--search_space={word}: a range is low..high, such as learning_rate=1e-5..1e-3.")
        found[name] = (low, high) if dots else [number(value) for value in values.split("|")]
    return found


def search(output, count, found):
    """Makes `count` runs, sets the flags of the best, and leaves search.csv and search.png in the output."""
    try:
        import optuna
    except ImportError:
        raise ImportError("--search needs Optuna: pip install keras-zoo[search].") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=FLAGS.seed), direction="maximize")
    _write_flags(output / "search" / "flags.cfg")
    rows = []
    for i in range(count):
        trial = study.ask()
        chosen = {name: _suggest(trial, name, values) for name, values in found.items()}
        measure, value = _run(output / "search" / f"{i:03d}", chosen)
        study.tell(trial, -value if measure == FIRST[-1] else value)
        rows.append({"run": i, **chosen, measure: value})
        print(f"search {i + 1}/{count}: {_words(chosen)}: {measure} {value:.4g}", flush=True)
    text = io.StringIO()
    table = csv.DictWriter(text, rows[0])
    table.writeheader()
    table.writerows(rows)
    write_text(output / "search.csv", text.getvalue())
    _draw(output / "search.png", rows, list(found), measure)
    best = rows[study.best_trial.number]
    print(f"\nThe best: {_words({name: best[name] for name in found})}: {measure} {best[measure]:.4g}\n")
    for name in found:
        FLAGS[name].value = best[name]


def _write_flags(path):
    """A flagfile for the runs, which measure on what is validated on.

    Raises:
        ValueError: runs with other flags are there.
    """
    held, old = {name: FLAGS[name].value for name in OTHERS}, path.read_text() if path.is_file() else None
    path.parent.mkdir(exist_ok=True)
    for name in OTHERS:
        FLAGS[name].value = None
    common.write_flags(path)
    for name, value in held.items():
        FLAGS[name].value = value
    if old not in (None, path.read_text()):
        write_text(path, old)
        raise ValueError(f"{path.parent} holds runs of a search with other flags: choose another --output.")


def _suggest(trial, name, values):
    if isinstance(values, list):
        return trial.suggest_categorical(name, values)
    low, high = values
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(name, low, high)
    return trial.suggest_float(name, low, high, log=low > 0 and high / low >= 10)


def _run(path, chosen):
    """The name and the value of what a run with these flags reaches on the examples to validate on."""
    file = path / "metrics.json"
    if not file.is_file():
        shutil.rmtree(path, ignore_errors=True)
        given = [f"--flagfile={path.parent / 'flags.cfg'}", *(f"--{name}={value}" for name, value in chosen.items())]
        command = [sys.executable, sys.argv[0], *given, f"--output={path}"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise ValueError(f"The run with {_words(chosen)} failed: {said.removeprefix('error: ')}")
        for name in ("checkpoints", "preset", "adapter"):  # the flags are what is wanted
            shutil.rmtree(path / name, ignore_errors=True)
    measures = json.loads(file.read_text(encoding="utf-8"))
    name = MEASURES.get(FLAGS.task) or next(name for name in FIRST if name in measures)
    return name, measures[name]["value"] or 0.0


def _words(chosen):
    return ", ".join(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
                     for name, value in chosen.items())  # fmt: skip


def _draw(path, rows, names, measure):
    """The measure over each flag."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.5 * len(names), 3.5), dpi=120, layout="constrained")
    for i, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), i + 1)
        values = [row[name] for row in rows]
        axes.plot(values, [row[measure] for row in rows], "o")
        if all(isinstance(value, float) and value > 0 for value in values) and max(values) > 5 * min(values):
            axes.set_xscale("log")
        axes.set(xlabel=name, ylabel=measure if i == 0 else "")
    write_png(path, figure)
