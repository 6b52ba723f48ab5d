"""Positions as sines and cosines, added to the embeddings (Marian, Pegasus)."""

import math

from keras import ops


def sinusoids(positions, width):
    """Sines then cosines (b, t, width) of (b, t) positions: Vaswani et al. 2017 in the layout of Marian and Pegasus."""
    half = (width + 1) // 2
    frequency = ops.exp(ops.arange(half, dtype="float32") * (-2 * math.log(10000.0) / width))
    angle = ops.cast(positions, "float32")[..., None] * frequency
    return ops.concatenate([ops.sin(angle), ops.cos(angle)[..., : width - half]], axis=-1)
