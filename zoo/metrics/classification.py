"""Measures of classes: accuracy, precision, recall, F1, Matthews correlation, calibration, the confusion matrix.

Labels are names or whole numbers, alike in predictions and references. What would divide by nothing is 0, as in
scikit-learn. It knows no task.
"""

import numpy as np

from zoo.metrics.base import mean, metric


def coded(predictions, references):
    """(the labels that occur, sorted; integers (n, 2): which of them is the prediction, and the reference)."""
    both = [np.asarray(column) for column in (predictions, references)]
    for column, which in zip(both, ("predictions", "references")):
        if column.ndim != 1 or column.dtype.kind not in "USiub":
            raise ValueError(
                f"{which} must be a label an example, names or whole numbers; got {column.dtype} of shape "
                f"{column.shape}."
            )
    if len({column.dtype.kind in "US" for column in both}) == 2:
        raise ValueError("Labels are names on one side and numbers on the other: give both alike.")
    names, codes = np.unique(np.concatenate(both), return_inverse=True)
    return names.tolist(), codes.reshape(2, -1).T


def confusion_matrix(predictions, references, labels=None):
    """How often each label is taken for each.

    Args:
        predictions, references: a label an example.
        labels: all labels in order; by default those that occur, sorted.

    Returns: (labels, integers (c, c): a row a reference, a column a prediction).

    >>> from zoo import metrics
    >>> metrics.confusion_matrix(["a", "b", "b"], ["a", "a", "b"])[1].tolist()
    [[1, 1], [0, 1]]
    """
    names, codes = coded(predictions, references)
    labels = names if labels is None else list(labels)
    if strange := [name for name in names if name not in labels]:
        raise ValueError(f"The label {strange[0]!r} is none of {', '.join(map(repr, labels))}.")
    return labels, _matrix(np.array([labels.index(name) for name in names])[codes], len(labels))


def _matrix(codes, size):
    return np.bincount(codes[:, 1] * size + codes[:, 0], minlength=size * size).reshape(size, size)


@metric
def accuracy(predictions, references):
    """The share of the examples whose label is right."""
    codes = coded(predictions, references)[1]
    return (codes[:, 0] == codes[:, 1]).astype(float), mean


def prf(hits, predicted, actual):
    """Arrays of precision, recall and F1 of counts."""
    return [np.divide(part, whole, out=np.zeros(np.shape(part)), where=np.greater(whole, 0))
            for part, whole in ((hits, predicted), (hits, actual), (2 * hits, predicted + actual))]  # fmt: skip


def averaged(hits, predicted, actual, average):
    """Precision, recall and F1 of counts a label: of their sums ("micro"), or the mean over the labels ("macro") that
    are predicted or right at least once."""
    if average == "micro":
        hits, predicted, actual = hits.sum(), predicted.sum(), actual.sum()
    else:
        held = predicted + actual > 0
        hits, predicted, actual = hits[held], predicted[held], actual[held]
    return [float(np.mean(score)) if np.size(score) else 0.0 for score in prf(hits, predicted, actual)]


def _of_matrix(matrix, chosen, average):
    return averaged(matrix.diagonal()[chosen], matrix.sum(axis=0)[chosen], matrix.sum(axis=1)[chosen], average)


def _one_of_three(which, predictions, references, average, labels):
    if average not in ("macro", "micro"):
        raise ValueError(f"average must be 'macro' or 'micro', got {average!r}; for one label give labels=[it].")
    names, codes = coded(predictions, references)
    chosen = np.array([labels is None or name in labels for name in names])
    return codes, lambda codes: _of_matrix(_matrix(codes, len(names)), chosen, average)[which]


@metric
def precision(predictions, references, average="macro", labels=None):
    """The share of right ones among the predictions of a label; `average` and `labels` as in `f1`."""
    return _one_of_three(0, predictions, references, average, labels)


@metric
def recall(predictions, references, average="macro", labels=None):
    """The share of the examples of a label that are found; `average` and `labels` as in `f1`."""
    return _one_of_three(1, predictions, references, average, labels)


@metric
def f1(predictions, references, average="macro", labels=None):
    """The harmonic mean of precision and recall (van Rijsbergen 1979).

    Args:
        predictions, references: a label an example.
        average: "macro", the mean over the labels that occur, or "micro", from sums over labels.
        labels: the labels that count; all by default. `[label]` gives the F1 of that one, and "micro" over all labels
            but "no relation" is the score of relation extraction.

    >>> from zoo import metrics
    >>> metrics.f1(["a", "b", "b", "b"], ["a", "a", "b", "b"], labels=["b"])
    0.8
    """
    return _one_of_three(2, predictions, references, average, labels)


@metric
def mcc(predictions, references):
    """The correlation of predictions and references (Matthews 1975; Gorodkin 2004 for several classes)."""
    names, codes = coded(predictions, references)
    return codes, lambda codes: _mcc(_matrix(codes, len(names)))


def _mcc(matrix):
    """With c right ones of s, t_k references and p_k predictions of k: (cs - Σ tp) / √(s² - Σ p²) √(s² - Σ t²)."""
    actual, predicted = (matrix.sum(axis=axis).astype(float) for axis in (1, 0))
    whole = actual.sum()
    norm = (whole**2 - (predicted**2).sum()) * (whole**2 - (actual**2).sum())
    return float((matrix.trace() * whole - (actual * predicted).sum()) / np.sqrt(norm)) if norm else 0.0


@metric
def classification(predictions, references):
    """Accuracy, precision, recall and F1 (means over the labels) and `mcc`, as a dictionary."""
    names, codes = coded(predictions, references)

    def value(codes):
        matrix = _matrix(codes, len(names))
        scores = _of_matrix(matrix, slice(None), "macro")
        found = {"accuracy": float(matrix.trace() / matrix.sum()), **dict(zip(("precision", "recall", "f1"), scores))}
        return {**found, "mcc": _mcc(matrix)}

    return codes, value


@metric
def multi_label(predictions, references):
    """Measures of any number of labels an example.

    Args:
        predictions, references: arrays (n, c) of 0 and 1, or a list of labels an example.

    Returns: a dictionary: `accuracy`, the share of the examples whose labels are all right and no others; micro and
        macro precision, recall and F1.
    """
    if not (hasattr(predictions, "dtype") or hasattr(references, "dtype")):
        names = sorted({label for side in (predictions, references) for row in side for label in row})
        predictions, references = ([[name in row for name in names] for row in side]
                                   for side in (predictions, references))  # fmt: skip
    said, true = (np.asarray(side) for side in (predictions, references))
    if said.shape != true.shape or said.ndim != 2 or not np.isin([said, true], (0, 1)).all():
        raise ValueError(f"Several labels an example are arrays (n, c) of 0 and 1, got {said.shape} and {true.shape}.")
    rows = np.stack([said * true, said, true], axis=1).astype(float)  # (n, 3, c)

    def value(rows):
        found = {"accuracy": float((rows[:, 1] == rows[:, 2]).all(axis=1).mean())}
        for average in ("micro", "macro"):
            scores = averaged(*rows.sum(axis=0), average)
            found |= dict(zip((f"{average}_precision", f"{average}_recall", f"{average}_f1"), scores))
        return found

    return rows, value


@metric
def calibration_error(probabilities, references, bins=15):
    """Expected calibration error: how far confidence is from accuracy (Guo et al. 2017, equation 3).

    Predictions are put into bins of equal width by the probability of the likeliest label; the error is the mean
    distance of a bin's accuracy from its mean probability, weighted with the number of examples.

    Args:
        probabilities: an array (n, c), or a dictionary label -> probability an example, as `classify` returns.
        references: the numbers of the right labels, or their names beside dictionaries.
        bins: number of bins.

    >>> import numpy as np
    >>> from zoo import metrics
    >>> round(metrics.calibration_error(np.array([[0.9, 0.1]] * 4), [0, 0, 0, 1]), 3)
    0.15
    """
    rows = confidences(probabilities, references)

    def value(rows):
        place = np.clip(np.ceil(rows[:, 0] * bins).astype(int) - 1, 0, bins - 1)  # (0, 1/M], (1/M, 2/M], …
        gaps = np.bincount(place, rows[:, 1] - rows[:, 0], minlength=bins)
        return float(np.abs(gaps).sum() / len(rows))

    return rows, value


def confidences(probabilities, references):
    """Array (n, 2): the probability of the likeliest label, and whether it is right."""
    if all(isinstance(row, dict) for row in probabilities):
        best = [max(row, key=row.get) for row in probabilities]
        sure = [row[label] for row, label in zip(probabilities, best)]
    else:
        array = np.asarray(probabilities)
        if array.ndim != 2:
            raise ValueError(f"probabilities must have shape (examples, labels), got {array.shape}.")
        best, sure = array.argmax(axis=1), array.max(axis=1)
    codes = coded(best, references)[1]
    return np.stack([np.asarray(sure, float), codes[:, 0] == codes[:, 1]], axis=1)
