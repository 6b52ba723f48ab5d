"""Rotary embeddings stretched to longer texts than a model was trained on.

Two kinds depend on how long a text is. In a whole pass that is each document's own length, so documents packed in a row
rotate as they do alone. With a cache it is the number of its slots: keys that are written stay as they were rotated, so
the choice is made once, for the longest text that the cache can hold. (`transformers` takes the longest text of a
batch so far, and lets keys of both kinds meet.)
"""

import math

from keras import ops

from zoo.nn.documents import document_lengths


def scaled(frequency, theta, scaling, positions, slots):
    """Frequencies (r,) of rotary pairs, or (b, t, 1, r) where they differ by document, and a factor for the rotated.

    Args:
        frequency: radians a position of each pair, (r,), theta ** (-i / r).
        theta: their base.
        scaling: (kind, numbers …); see the functions of each kind.
        positions: (b, t) integers.
        slots: number of tokens that a cache can come to hold, or (b, 1, 1, 1) those of each row; None without one.
    """
    kind, *values = scaling
    length = slots
    if length is None and kind in ("dynamic", "longrope"):
        length = ops.cast(document_lengths(positions), "float32")[..., None, None]
    return _KINDS[kind](frequency, theta, length, *values)


def linear(frequency, theta, length, factor):
    """Position interpolation (Chen et al. 2023)."""
    return frequency / factor, 1.0


def dynamic(frequency, theta, length, factor, trained):
    """NTK-aware interpolation that sets in beyond the `trained` length: the base grows with the text."""
    pairs = frequency.shape[-1]
    growth = ops.maximum(factor * length / trained - (factor - 1), 1.0)
    slower = ops.arange(pairs, dtype="float32") / max(pairs - 1, 1)  # the first pair keeps its frequency
    return frequency * ops.exp(-ops.log(ops.cast(growth, "float32")) * slower), 1.0


def llama3(frequency, theta, length, factor, low, high, trained):
    """Interpolation of low frequencies alone: below `low` turns in the trained length, not above `high` (Llama 3.1)."""
    turns = trained * frequency / (2 * math.pi)
    smooth = ops.clip((turns - low) / (high - low), 0.0, 1.0)
    return frequency * ((1 - smooth) / factor + smooth), 1.0


def yarn(frequency, theta, length, factor, trained, fast, slow, attention_factor, whole):
    """YaRN (Peng et al. 2023, section 3): interpolation ramps up from pairs of `fast` turns to pairs of `slow` turns.

    `attention_factor` sharpens the scores; `whole` rounds the ends of the ramp outwards to whole pairs.
    """
    pairs = frequency.shape[-1]
    low, high = (pairs * math.log(trained / (turns * 2 * math.pi)) / math.log(theta) for turns in (fast, slow))
    if whole:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * pairs - 1)
    ramp = ops.clip((ops.arange(pairs, dtype="float32") - low) / (max(high - low, 0.001)), 0.0, 1.0)
    return frequency * (ramp / factor + 1 - ramp), attention_factor


def longrope(frequency, theta, length, trained, attention_factor, *factors):
    """LongRoPE (Ding et al. 2024): searched factors a pair, for texts within the `trained` length, then for longer."""
    short, long = (ops.convert_to_tensor(half, dtype="float32") for half in _halves(factors))
    return frequency / ops.where(ops.cast(length, "float32") > trained, long, short), attention_factor


def _halves(values):
    return values[: len(values) // 2], values[len(values) // 2 :]


_KINDS = {f.__name__: f for f in (linear, dynamic, llama3, yarn, longrope)}
