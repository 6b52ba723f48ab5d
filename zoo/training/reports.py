"""Where the rows of a run go: a CSV file, a picture of the loss, the terminal. They know rows, and no model.

A row is a dictionary with `COLUMNS`; what was not measured is None. `mfu` is model-FLOPs utilisation, a share;
`perplexity` and `bits_per_byte` are of the validation loss; `spike` is how far the loss is above the rows before.
Anything with the methods `begin(done, steps)`, `tick(step)`, `row(row)` and `end()` can stand beside these.
"""

import csv
import os
import sys
import time
from pathlib import Path

from zoo.checkpoint import write_png

COLUMNS = ("step", "loss", "val_loss", "learning_rate", "tokens_per_second", "mfu", "gradient_norm", "perplexity",
           "bits_per_byte", "spike")  # fmt: skip


class Report:
    """Base of the reports: does nothing."""

    def begin(self, done, steps):
        """Training starts after `done` of `steps`."""

    def tick(self, step):
        """Another step is under way; called often."""

    def row(self, row):
        """A row was measured."""

    def end(self):
        """Training ended, whole or not."""


class CSVLog(Report):
    """A row a line, flushed. A run that is resumed after step n keeps its rows up to n.

    Args:
        path: the file.
    """

    def __init__(self, path):
        self.path = Path(path)

    def begin(self, done, steps):
        kept = [row for row in read_rows(self.path) if row["step"] <= done] if done and self.path.exists() else []
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(map(_written, kept))
        os.replace(temporary, self.path)
        self._file = self.path.open("a", newline="", encoding="utf-8")

    def row(self, row):
        csv.DictWriter(self._file, COLUMNS).writerow(_written(row))
        self._file.flush()

    def end(self):
        self._file.close()


def read_rows(path):
    """The rows of a `CSVLog`: dictionaries of numbers, None where blank; a line cut off by a crash is left out."""
    rows = []
    with open(path, newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            if None in line.values() or not line["step"]:
                continue
            row = {name: float(line[name]) if line.get(name) else None for name in COLUMNS}
            rows.append({**row, "step": int(row["step"])})
    return rows


def _written(row):
    return {name: "" if row[name] is None else f"{row[name]:.6g}" if name != "step" else row[name] for name in COLUMNS}


class LossPlot(Report):
    """The loss of a `CSVLog` as a picture, drawn anew at each validation and at the end.

    Args:
        path: the PNG file.
        log: the CSV file, which must be reported to before this.
        title: above the curves.
    """

    def __init__(self, path, log, title):
        self.path, self.log, self.title = Path(path), log, title

    def row(self, row):
        if row["val_loss"] is not None:
            self.draw()

    def end(self):
        self.draw()

    def draw(self):
        """Draws the picture from the file."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4.5), dpi=120, layout="constrained")
        axes = figure.add_subplot()
        rows = read_rows(self.log)
        for name, label, marker in (("loss", "training", ""), ("val_loss", "validation", "o")):
            points = [(row["step"], row[name]) for row in rows if row[name] is not None]
            axes.plot(*zip(*points) if points else ([], []), label=label, marker=marker, markersize=4)
        axes.set(xlabel="step", ylabel="loss (nats per token)", title=self.title)
        axes.grid(alpha=0.3)
        axes.legend()
        write_png(self.path, figure)


class TensorBoard(Report):
    """The rows as TensorBoard's event files, without TensorFlow.

    Args:
        path: the directory that TensorBoard is pointed at.
    """

    def __init__(self, path):
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise ImportError("TensorBoard's files need tensorboardX: pip install keras-zoo[tensorboard].") from None
        self._make = lambda done: SummaryWriter(str(path), purge_step=done + 1 if done else None)

    def begin(self, done, steps):
        self._writer = self._make(done)

    def row(self, row):
        for name in COLUMNS[1:]:
            if row[name] is not None:
                self._writer.add_scalar(name, row[name], row["step"])
        self._writer.flush()

    def end(self):
        self._writer.close()


class ProgressBar(Report):
    """A live bar on a terminal: steps, loss, tokens per second, time left; elsewhere a line a row.

    Args:
        file: where to; standard output by default.
    """

    def __init__(self, file=None):
        self.file = file or sys.stdout

    def begin(self, done, steps):
        from tqdm import tqdm

        self.steps, self.first, self.shown, self.bar = steps, None, {}, None
        if self.file.isatty():
            form = "{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
            self.bar = tqdm(total=steps, initial=done, file=self.file, bar_format=form, dynamic_ncols=True)

    def tick(self, step):
        if self.bar is not None:
            self.bar.update(step - self.bar.n)

    def row(self, row):
        self.shown |= {name: value for name, value in row.items() if value is not None}
        speed = f"{self.shown.get('tokens_per_second', 0):,.0f} tokens/s"
        losses = [f"{name} {self.shown[name]:.3f}" for name in ("loss", "val_loss") if name in self.shown]
        losses += [f"spike +{row['spike']:.3f}"] if row["spike"] is not None else []
        if self.bar is not None:
            self.bar.set_postfix_str(", ".join([*losses, speed]))
            return
        parts = [f"step {row['step']}/{self.steps}", *losses]
        if self.first is None:
            self.first = row["step"], time.monotonic()  # the step before compiled, which tells nothing of those to come
        else:
            step, then = self.first
            left = (time.monotonic() - then) / (row["step"] - step) * (self.steps - row["step"])
            parts += [speed, f"{_clock(left)} left"]
        print("  ".join(parts), file=self.file, flush=True)

    def end(self):
        if self.bar is not None:
            self.bar.close()


def _clock(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
