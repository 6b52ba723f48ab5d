"""Where a token stands: sinusoids, rotations and T5's distance buckets, as functions of integer positions.

Nothing here owns a length: tables of learned positions belong to the stack, and all shapes come from the arguments.
"""

import math

import keras
import numpy as np
from keras import ops

from zoo.nn.layers import initializer


def restart_positions(segment_ids):
    """Positions (b, t) that restart with each document: segments [1 1 2 2 2 0] give [0 1 0 1 2 0]."""
    t = segment_ids.shape[1]
    index = ops.arange(t, dtype="int32")[None]
    previous = ops.concatenate([segment_ids[:, :1], segment_ids[:, :-1]], axis=1)
    starts = ops.where(segment_ids != previous, index, 0)
    latest = ops.associative_scan(ops.maximum, starts, axis=1)
    return index - ops.reshape(latest, (-1, t))  # TensorFlow's scan forgets the shape


def sinusoids(positions, width):
    """Sines then cosines (b, t, width) of (b, t) positions: Vaswani et al. 2017 in the layout of Marian and Pegasus."""
    half = (width + 1) // 2
    frequency = ops.exp(ops.arange(half, dtype="float32") * (-2 * math.log(10000.0) / width))
    angle = ops.cast(positions, "float32")[..., None] * frequency
    return ops.concatenate([ops.sin(angle), ops.cos(angle)[..., : width - half]], axis=-1)


def rotary_angles(positions, width, theta, scaling=None):
    """Cosines and sines (b, t, 1, width / 2) of rotary embeddings (Su et al. 2021) at (b, t) positions.

    `scaling` stretches them to longer texts: ("linear", factor) of position interpolation (Chen et al. 2023), or
    ("llama3", factor, low, high, length), which leaves high frequencies alone (Llama 3.1).
    """
    frequency = ops.exp(ops.arange(0, width, 2, dtype="float32") * (-math.log(theta) / width))
    if scaling and scaling[0] == "linear":
        frequency = frequency / scaling[1]
    elif scaling and scaling[0] == "llama3":
        _, factor, low, high, length = scaling
        turns = length * frequency / (2 * math.pi)
        smooth = ops.clip((turns - low) / (high - low), 0.0, 1.0)
        frequency = frequency * ((1 - smooth) / factor + smooth)
    angle = ops.cast(positions, "float32")[..., None, None] * frequency
    return ops.cos(angle), ops.sin(angle)


def rotate(x, cos, sin):
    """Rotates the first 2 * cos.shape[-1] features of each head of x (b, t, n, h); halves layout."""
    half = cos.shape[-1]
    cos, sin = ops.cast(cos, x.dtype), ops.cast(sin, x.dtype)
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    turned = [a * cos - b * sin, b * cos + a * sin]
    return ops.concatenate(turned + ([rest] if rest.shape[-1] else []), axis=-1)


def bucket_limits(buckets, distance):
    """The smallest distances of buckets 1, 2, …: T5's buckets grow logarithmically up to `distance`.

    Computed once, in float32 as the original does, so that every backend cuts at the same integers.
    """
    exact, far = buckets // 2, np.arange(1, distance + 1, dtype="float32")
    ratio = np.log(far / np.float32(exact)) / np.float32(math.log(distance / exact))
    index = exact + (ratio * (buckets - exact)).astype("int64")
    index = np.where(far < exact, far.astype("int64"), np.minimum(index, buckets - 1))
    return [int(far[np.argmax(index >= i)]) for i in range(1, buckets) if (index >= i).any()]


class RelativeBias(keras.layers.Layer):
    """A learned bias per head and bucket of distance (T5: Raffel et al. 2020, section 2.1), shared by all rows.

    It depends on the distance alone: one value a distance is looked up (t + s, not t × s) and laid out as a Toeplitz
    matrix by reshaping, so the gradient is a sum and no scatter.
    """

    def __init__(self, config, causal, **kwargs):
        super().__init__(**kwargs)
        self.config, self.heads, self.causal = config, config.num_heads, causal
        one_sided = config.relative_buckets if causal else config.relative_buckets // 2
        self.limits = bucket_limits(one_sided, config.relative_distance)

    def build(self, shape):
        init, size = initializer(self.config, fan_in=shape[-1]), (self.config.relative_buckets, self.heads)
        self.embeddings = self.add_weight(name="embeddings", shape=size, initializer=init, autocast=False)

    def call(self, *, t, s, index=0):
        """(1, n, t, s) for queries at slots index, index + 1, … and keys at slots 0 … s - 1; t and s are integers."""
        size = t + s - 1
        step = ops.arange(size, dtype="int32")
        distance = ops.where(step < s, step, step - size) - index  # key minus query, cyclic
        n = ops.maximum(-distance, 0) if self.causal else ops.abs(distance)
        bucket = ops.sum(ops.cast(n[:, None] >= ops.convert_to_tensor(self.limits, dtype="int32"), "int32"), axis=-1)
        if not self.causal:
            bucket = bucket + ops.cast(distance > 0, "int32") * (self.config.relative_buckets // 2)
        values = ops.matmul(ops.one_hot(bucket, self.config.relative_buckets), self.embeddings)  # (size, n)
        rows = ops.transpose(values)
        if t > 1:  # a period of size - 1 over a cycle of size moves each row on by one
            rows = ops.tile(rows, (1, t))[:, : t * (size - 1)]
        return ops.reshape(rows, (1, self.heads, t, -1))[..., :s]
