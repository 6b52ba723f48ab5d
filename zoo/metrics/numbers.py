"""Measures of numbers: correlations and errors, for regression and similarity."""

import numpy as np

from zoo.metrics.base import metric


def _pairs(predictions, references):
    pairs = [np.asarray(column, float) for column in (predictions, references)]
    if pairs[0].ndim != 1 or pairs[1].ndim != 1:
        raise ValueError(f"Predictions and references must be a number an example, got {[p.shape for p in pairs]}.")
    return np.stack(pairs, axis=1)


def _pearson(rows):
    centred = rows - rows.mean(axis=0)
    norm = np.sqrt((centred**2).sum(axis=0).prod())
    return float(centred.prod(axis=1).sum() / norm) if norm else float("nan")


def _ranks(column):
    """Ranks; equal values share the mean of theirs."""
    _, place, counts = np.unique(column, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def _spearman(rows):
    return _pearson(np.stack([_ranks(rows[:, 0]), _ranks(rows[:, 1])], axis=1))


@metric
def pearson(predictions, references):
    """The linear correlation (Pearson 1895); NaN where either side is constant."""
    return _pairs(predictions, references), _pearson


@metric
def spearman(predictions, references):
    """The correlation of ranks (Spearman 1904); NaN where either side is constant.

    >>> from zoo import metrics
    >>> metrics.spearman([1, 2, 3, 4], [1, 8, 27, 64])
    1.0
    """
    return _pairs(predictions, references), _spearman


@metric
def similarity(predictions, references):
    """`pearson` and `spearman` as a dictionary."""
    return _pairs(predictions, references), lambda rows: {"pearson": _pearson(rows), "spearman": _spearman(rows)}


@metric
def regression(predictions, references):
    """`pearson`, `spearman`, the mean squared error `mse` and the mean absolute error `mae` as a dictionary."""

    def value(rows):
        error = rows[:, 0] - rows[:, 1]
        errors = {"mse": float((error**2).mean()), "mae": float(np.abs(error).mean())}
        return {"pearson": _pearson(rows), "spearman": _spearman(rows), **errors}

    return _pairs(predictions, references), value
