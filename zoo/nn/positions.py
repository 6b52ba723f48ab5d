"""Rotations as functions of where a token stands.

Nothing here owns a length: tables of learned positions belong to the stack, and all shapes come from the arguments.
"""

import math

from keras import ops

from zoo.nn.variants.scaling import scaled


def rotary_angles(positions, width, theta, scaling=None, slots=None):
    """Cosines and sines (b, t, 1, width / 2) of rotary embeddings (Su et al. 2021) at (b, t) positions.

    `scaling` stretches them to longer texts, that of a cache of `slots` tokens or of the positions: `variants.scaling`.
    """
    frequency, factor = ops.exp(ops.arange(0, width, 2, dtype="float32") * (-math.log(theta) / width)), 1.0
    if scaling:
        frequency, factor = scaled(frequency, theta, scaling, positions, slots)
    angle = ops.cast(positions, "float32")[..., None, None] * frequency
    return ops.cos(angle) * factor, ops.sin(angle) * factor


def rotate(x, cos, sin):
    """Rotates the first 2 * cos.shape[-1] features of each head of x (b, t, n, h); halves layout."""
    half = cos.shape[-1]
    cos, sin = ops.cast(cos, x.dtype), ops.cast(sin, x.dtype)
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    turned = [a * cos - b * sin, b * cos + a * sin]
    return ops.concatenate(turned + ([rest] if rest.shape[-1] else []), axis=-1)
