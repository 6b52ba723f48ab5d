"""Contestants in processes of their own that take turns, so that all meet the same moods of the machine.

A contestant is a worker process: it prepares, says so, and then does one round of work whenever it is told to. While
one works the others wait. Ratios of medians over the rounds are what a benchmark may claim; it knows no model.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ANSWER = "benchmark-answer "


class Contestant:
    """A worker: this script once more with `--worker=name`.

    Args:
        name: what `serve` gets in the worker.
        arguments: further arguments of the script.
        env: variables of its environment besides ours.
    """

    def __init__(self, name, arguments=(), env=None):
        command = [sys.executable, sys.argv[0], f"--worker={name}", *arguments]
        self.name, self.rounds, self.error = name, [], None
        self.log = Path(os.environ.get("BENCHMARK_LOGS", os.devnull))
        stderr = open(self.log / f"{name.replace(':', '-')}.log", "w") if self.log.is_dir() else subprocess.PIPE
        self.process = subprocess.Popen(command, env={**os.environ, **(env or {})}, text=True, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=stderr)  # fmt: skip

    def ask(self, word):
        """What the worker answers to a word; None, and an `error`, once it has failed."""
        if self.error:
            return None
        try:
            self.process.stdin.write(word + "\n")
            self.process.stdin.flush()
        except OSError:
            pass
        for line in self.process.stdout:
            if line.startswith(ANSWER):
                return json.loads(line.removeprefix(ANSWER))
        lines = (self.process.stderr.read() if self.process.stderr else "").strip().splitlines()
        self.error = lines[-1][:300] if lines else f"exit code {self.process.wait()}"
        return None

    def close(self):
        """Ends the process."""
        self.process.kill()
        self.process.communicate()


def serve(prepare):
    """The worker's side: `prepare()` returns a function that does one round and returns a dictionary of numbers."""
    sys.stdin.readline()
    work = prepare()
    answer = {"ready": True}
    while True:
        print(ANSWER + json.dumps(answer), flush=True)
        if not sys.stdin.readline():
            return
        answer = work()


def compete(contestants, rounds, note=print):
    """Lets contestants prepare, then work `rounds` times in turn; returns name -> list of answers, and the peaks.

    A contestant that fails is left out with a note. Before each round the matrix product's peak is measured.
    """
    try:
        for one in contestants:
            one.ask("prepare")
            note(f"{one.name}: {one.error or 'ready'}")
        alive, peaks = [one for one in contestants if not one.error], []
        for i in range(rounds):
            peaks.append(matrix_product_peak())
            for one in alive if i % 2 == 0 else alive[::-1]:
                answer = one.ask("work")
                note(f"round {i + 1}/{rounds}  {one.name}: {one.error or _short(answer)}")
                if answer:
                    one.rounds.append(answer)
        return {one.name: one.rounds for one in alive if one.rounds}, peaks
    finally:
        for one in contestants:
            one.close()


def _short(answer):
    return "  ".join(f"{key} {value:,.4g}" for key, value in answer.items())


def median(rounds, key):
    """The median of one number over the rounds of a contestant."""
    return statistics.median(answer[key] for answer in rounds)


def matrix_product_peak(size=2048, repeats=3):
    """FLOP/s of numpy's float32 matrix product, the best of a few."""
    a = np.random.default_rng(0).normal(size=(size, size)).astype("float32")
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def table(header, rows):
    """Rows of texts as a table in Markdown."""
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    lines = [" | ".join(str(cell).ljust(width) for cell, width in zip(row, widths)) for row in [header, *rows]]
    return "\n".join(["| " + line + " |" for line in (lines[0], " | ".join("-" * w for w in widths), *lines[1:])])


def bars(path, groups, unit, title):
    """A picture of bars: `groups` is title -> {name: value}."""
    from matplotlib.figure import Figure

    from zoo.checkpoint import write_png  # here, for the workers of peers shall not import zoo

    height = 0.6 + sum(0.6 + 0.28 * len(values) for values in groups.values())
    figure = Figure(figsize=(8, height), dpi=120, layout="constrained")
    figure.suptitle(title)
    sizes = [len(values) + 1 for values in groups.values()]
    panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=sizes)[:, 0]
    for axes, (name, values) in zip(panels, groups.items()):
        ordered = sorted(values.items(), key=lambda pair: pair[1])
        colours = ["tab:orange" if key.startswith("zoo") else "tab:gray" for key, _ in ordered]
        found = axes.barh([key for key, _ in ordered], [value for _, value in ordered], color=colours)
        axes.bar_label(found, fmt="{:,.0f}", padding=3, fontsize=8)
        axes.set(title=name, xlabel=unit)
        axes.margins(x=0.12)
    write_png(path, figure)


def write_json(path, value):
    """Writes figures beside the picture."""
    from zoo.checkpoint import write_text

    write_text(Path(path), json.dumps(value, indent=1))
