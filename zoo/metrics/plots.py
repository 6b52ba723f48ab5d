"""Pictures of measures: the confusion matrix, and how well confidence tells accuracy. Written whole, or not at all."""

import numpy as np

from zoo.checkpoint import write_png
from zoo.metrics.classification import confidences, confusion_matrix


def plot_confusion(path, predictions, references, labels=None, title=""):
    """Writes a confusion matrix as PNG: a row a true label, coloured by the share of it that each label is taken for.

    Args:
        path: the file.
        predictions, references: a label an example.
        labels: all labels in order; by default those that occur, sorted.
        title: above the matrix.
    """
    labels, matrix = confusion_matrix(predictions, references, labels)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    size = min(12, 3 + 0.5 * len(labels))
    figure, axes = _axes((size + 1, size))
    image = axes.imshow(share, vmin=0, vmax=1, cmap="Blues")
    figure.colorbar(image, label="share of the true label", shrink=0.8)
    places = range(len(labels))
    axes.set(xticks=places, yticks=places, xlabel="predicted", ylabel="true", title=title)
    small = {"fontsize": 9 if len(labels) <= 20 else 6}
    axes.set_xticklabels(map(str, labels), rotation=45, ha="right", rotation_mode="anchor", **small)
    axes.set_yticklabels(map(str, labels), **small)
    if len(labels) <= 20:
        for row in places:
            for column in places:
                colour = "white" if share[row, column] > 0.5 else "black"
                axes.text(column, row, matrix[row, column], ha="center", va="center", color=colour, fontsize=8)
    write_png(path, figure)


def plot_reliability(path, probabilities, references, bins=15, title=""):
    """Writes a reliability diagram as PNG (Guo et al. 2017, figure 1): a bin's accuracy over its confidence.

    Args:
        path: the file.
        probabilities, references, bins: see `calibration_error`.
        title: above the diagram.
    """
    rows = confidences(probabilities, references)
    place = np.clip(np.ceil(rows[:, 0] * bins).astype(int) - 1, 0, bins - 1)
    count, sure, right = (np.bincount(place, weights, minlength=bins) for weights in (None, *rows.T))
    held = count > 0
    figure, axes = _axes((5.5, 5))
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1, label="calibrated")
    axes.bar((np.flatnonzero(held) + 0.5) / bins, right[held] / count[held], 1 / bins, edgecolor="white",
             alpha=0.7, label="accuracy")  # fmt: skip
    axes.plot(sure[held] / count[held], right[held] / count[held], "o", markersize=4, color="black")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy", title=title)
    axes.legend(loc="upper left")
    write_png(path, figure)


def plot_scores(path, values, label, title=""):
    """Writes a histogram of a number an example as PNG, with its mean.

    Args:
        path: the file.
        values: numbers.
        label: what they are.
        title: above the histogram.
    """
    figure, axes = _axes((7, 4))
    axes.hist(values, bins=30, edgecolor="white")
    axes.axvline(np.mean(values), color="black", linestyle="--", label=f"mean {np.mean(values):.3g}")
    axes.set(xlabel=label, ylabel="examples", title=title)
    axes.legend()
    write_png(path, figure)


def _axes(size):
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=120, layout="constrained")
    return figure, figure.add_subplot()
