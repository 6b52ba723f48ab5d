"""Who sees whom: boolean masks broadcastable to (b, 1, t, s), True where a key is seen.

Causality of a whole sequence is a flag of the attention, not a mask, and a plain padding mask stays one row a sequence.
"""

from keras import ops


def keys_mask(padding_mask):
    """(b, 1, 1, s) from a 0/1 padding mask (b, s): real keys are seen by every query."""
    return ops.cast(padding_mask, "bool")[:, None, None, :]


def segments_mask(queries, keys):
    """(b, 1, t, s) from segment ids (b, t) and (b, s): the same non-zero segment."""
    same = queries[:, :, None] == keys[:, None, :]
    return (same & (keys != 0)[:, None, :])[:, None]


def cache_mask(index, t, slots):
    """(1, 1, t, slots): queries at slots index, index + 1, … see the slots up to their own."""
    return (index + ops.arange(t)[:, None] >= ops.arange(slots)[None])[None, None]


def window_mask(index, t, s, window):
    """(1, 1, t, s): keys at a distance below `window` from queries at slots index, index + 1, …"""
    distance = index + ops.arange(t)[:, None] - ops.arange(s)[None]
    return (ops.abs(distance) < window)[None, None]


def both(a, b):
    """The conjunction of two masks, either of which may be None."""
    if a is None or b is None:
        return b if a is None else a
    return a & b
