"""Where the documents that share a row begin and end.

By sorting, for Keras's scans keep XLA from compiling on TensorFlow. It knows integers, and nothing of attention.
"""

from keras import ops


def restart_positions(segment_ids):
    """Positions (b, t) that restart with each document: segments [1 1 2 2 2 0] give [0 1 0 1 2 0]."""
    index, start, _ = _bounds(segment_ids[:, 1:] != segment_ids[:, :-1])
    return index - start


def document_lengths(positions):
    """(b, t): the length of each token's document, within which positions (b, t) count upwards one by one."""
    index, _, end = _bounds(positions[:, 1:] != positions[:, :-1] + 1)
    return positions + end - index


def _bounds(begins):
    """(1, t) indices, and (b, t) the first index of each token's document and of what follows it.

    Args:
        begins: (b, t - 1) booleans, whether a document begins with the second token, the third and so on.
    """
    begins = ops.pad(ops.cast(begins, "int32"), [[0, 0], [1, 0]], constant_values=1)
    t = ops.shape(begins)[1]
    index, number = ops.arange(t, dtype="int32")[None], ops.cumsum(begins, axis=1)
    firsts = ops.sort(ops.where(begins > 0, index, t), axis=1)  # of all documents, and behind them t
    firsts = ops.pad(firsts, [[0, 0], [0, 1]], constant_values=t)
    return index, *(ops.take_along_axis(firsts, places, axis=1) for places in (number - 1, number))
