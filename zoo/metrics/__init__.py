"""Measures of predictions, each `metric(predictions, references)` to a number or a dictionary, with intervals.

`measure(task, predictions, references)` is the way in: all measures of a task with bootstrap intervals. numpy, no
keras; ROUGE, BLEU and chrF come from packages of the extra `eval`.
"""

from zoo.metrics.base import Interval, bootstrap, metric
from zoo.metrics.classification import (
    accuracy,
    calibration_error,
    classification,
    confusion_matrix,
    f1,
    mcc,
    multi_label,
    precision,
    recall,
)
from zoo.metrics.likelihood import bits_per_byte, language_modelling, perplexity
from zoo.metrics.numbers import pearson, regression, similarity, spearman
from zoo.metrics.plots import plot_confusion, plot_reliability, plot_scores
from zoo.metrics.tags import entities, entity_scores, tagging
from zoo.metrics.texts import bleu, chrf, rouge, squad, translation

TASKS = {
    "classification": classification,
    "multi_label": multi_label,
    "regression": regression,
    "similarity": similarity,
    "tagging": tagging,
    "question_answering": squad,
    "multiple_choice": accuracy,
    "summarisation": rouge,
    "translation": translation,
    "language_modelling": language_modelling,
}


def measure(task, predictions, references, samples=1000, seed=0, level=0.95, **options):
    """All measures of a task with their bootstrap intervals, ready for JSON.

    Args:
        task: one of `TASKS`.
        predictions, references: as the task's metric takes them.
        samples, seed, level: of `bootstrap`.
        options: for the task's metric.

    Returns: a dictionary: name of a measure -> {"value", "low", "high"}, NaN as None; and `examples`, their number.

    >>> from zoo import metrics
    >>> metrics.measure("multiple_choice", [0, 1, 1], [0, 1, 1])
    {'accuracy': {'value': 1.0, 'low': 1.0, 'high': 1.0}, 'examples': 3}
    """
    if task not in TASKS:
        raise ValueError(f"There are no measures of {task!r}; there are some of {', '.join(TASKS)}.")
    function = TASKS[task]
    found = bootstrap(function, predictions, references, samples=samples, seed=seed, level=level, **options)
    found = {function.__name__: found} if isinstance(found, Interval) else found
    named = {name: {key: None if number != number else number for key, number in interval._asdict().items()}
             for name, interval in found.items()}  # fmt: skip
    return {**named, "examples": len(predictions)}


__all__ = [
    "TASKS",
    "Interval",
    "accuracy",
    "bits_per_byte",
    "bleu",
    "bootstrap",
    "calibration_error",
    "chrf",
    "classification",
    "confusion_matrix",
    "entities",
    "entity_scores",
    "f1",
    "language_modelling",
    "mcc",
    "measure",
    "metric",
    "multi_label",
    "pearson",
    "perplexity",
    "plot_confusion",
    "plot_reliability",
    "plot_scores",
    "precision",
    "recall",
    "regression",
    "rouge",
    "similarity",
    "spearman",
    "squad",
    "tagging",
    "translation",
]
