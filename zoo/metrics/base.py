"""What a metric is, and how certain it is: an array with a row an example, and a value of any selection of the rows.

Since the value follows from the rows, examples are read once and resampled as arrays. It knows no task.
"""

import functools
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A value, and the bounds between which resampling finds it."""

    value: float
    low: float
    high: float


def metric(parts):
    """Decorator: a metric out of a function that reads predictions and references.

    Args:
        parts: function of (predictions, references, **options) that returns an array with a row an example, and a
            function of such an array, or of a selection of its rows, to a float or a dictionary of floats.

    Returns: a function of the same arguments that returns the value; its `parts` is what was given, checked.
    """

    def checked(predictions, references=None, **options):
        if references is not None and len(predictions) != len(references):
            raise ValueError(f"{len(predictions)} predictions do not go with {len(references)} references.")
        if not len(predictions):
            raise ValueError("There is nothing to measure: no predictions.")
        return parts(predictions, references, **options)

    @functools.wraps(parts)
    def measured(predictions, references=None, **options):
        rows, value = checked(predictions, references, **options)
        return value(rows)

    measured.parts = checked
    return measured


def mean(rows):
    """The mean of rows that are numbers."""
    return float(rows.mean())


def means(*names):
    """A function that names the means of the columns of rows."""
    return lambda rows: dict(zip(names, map(float, rows.mean(axis=0))))


def bootstrap(metric, *columns, samples=1000, seed=0, level=0.95, **options):
    """A metric with the percentile interval of the bootstrap (Efron & Tibshirani 1993, chapter 13).

    Examples are drawn with replacement, as many as there are; the interval holds the middle `level` of the values.

    Args:
        metric: of `zoo.metrics`, or any function of columns.
        columns: predictions and references, or what else the function takes, lists or arrays of one length.
        samples: how often to draw.
        seed: of the draws.
        level: share of the values within the interval.
        options: for the metric.

    Returns: an `Interval`, or a dictionary of them where the metric gives a dictionary.

    Raises: ValueError for columns of different length or none.

    >>> from zoo import metrics
    >>> accuracy = metrics.bootstrap(metrics.accuracy, ["a", "b"] * 50, ["a", "b"] * 45 + ["b", "a"] * 5)
    >>> accuracy.value, 0.8 < accuracy.low < 0.9 < accuracy.high < 1
    (0.9, True)
    """
    columns = [column for column in columns if column is not None]
    counts = sorted({len(column) for column in columns})
    if len(counts) != 1 or not counts[0]:
        raise ValueError(f"Columns must have one length above 0, got {[len(column) for column in columns]}.")
    if hasattr(metric, "parts"):
        rows, value = metric.parts(*columns, **options)
    else:
        rows = np.arange(counts[0])

        def value(index):
            return metric(*([column[i] for i in index] for column in columns), **options)

    rng = np.random.default_rng(seed)
    whole = value(rows)
    drawn = [value(rows[rng.integers(counts[0], size=counts[0])]) for _ in range(samples)]
    if isinstance(whole, dict):
        return {name: _interval(whole[name], [one[name] for one in drawn], level) for name in whole}
    return _interval(whole, drawn, level)


def _interval(value, drawn, level):
    """Draws in which the value is not defined, such as the correlation of a constant, do not count."""
    defined = np.array(drawn, float)
    defined = defined[~np.isnan(defined)]
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2]) if len(defined) else (np.nan, np.nan)
    return Interval(float(value), float(low), float(high))
