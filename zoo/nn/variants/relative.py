"""Relative positions: what a score of attention gains or loses by the distance between query and key.

Distances are counted in slots, so padding on the left and documents packed in a row change nothing; what is out of
sight is masked elsewhere.
"""

import math

import keras
import numpy as np
from keras import ops

from zoo.nn.layers import initializer
from zoo.nn.variants.disentangled import DistanceEmbedding


def relative_positions(config, causal, policy, per_layer=False):
    """The layer of a stack, or with `per_layer` of one of its blocks, that makes arguments of attention from distances.

    It is called with t queries at slots `index`, index + 1, … and s keys at slots 0 … s - 1, t and s Python integers.
    None where there are no relative positions.
    """
    if config.relative == ("buckets_per_layer" if per_layer else "buckets"):
        return RelativeBias(config, causal, name="relative_bias")
    if config.relative == "disentangled" and not per_layer:
        sizes = config.relative_buckets, config.relative_distance
        return DistanceEmbedding(config, *sizes, name="distance", dtype=policy)
    if config.relative in ("alibi", "alibi_scaled") and not per_layer:
        return Alibi(config, name="alibi")
    return None


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
        """`bias` (1, n, t, s)."""
        size = t + s
        step = ops.arange(size, dtype="int32")
        distance = ops.where(step < s, step, step - size) - index  # key minus query, cyclic
        n = ops.maximum(-distance, 0) if self.causal else ops.abs(distance)
        bucket = ops.sum(ops.cast(n[:, None] >= ops.convert_to_tensor(self.limits, dtype="int32"), "int32"), axis=-1)
        if not self.causal:
            bucket = bucket + ops.cast(distance > 0, "int32") * (self.config.relative_buckets // 2)
        values = ops.matmul(ops.one_hot(bucket, self.config.relative_buckets), self.embeddings)  # (size, n)
        # A period of size - 1 over a cycle of size moves each row on by one.
        rows = ops.tile(ops.transpose(values), (1, t))[:, : t * (size - 1)]
        return {"bias": ops.reshape(rows, (1, self.heads, t, -1))[..., :s]}


def alibi_slopes(heads):
    """2 ** (-8 i / n) for n heads; other numbers than powers of two take every other slope of the next power."""
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2.0 ** (-8 * i / power) for i in range(1, power + 1)]
    return slopes + [2.0 ** (-4 * i / power) for i in range(1, 2 * (heads - power), 2)]


class Alibi(keras.layers.Layer):
    """A penalty that grows with the distance, at a rate of each head's own (ALiBi: Press et al. 2022); no weights."""

    def __init__(self, config, **kwargs):
        super().__init__(**kwargs)
        scale = config.resolved_head_dim**-0.5 if config.relative == "alibi_scaled" else 1.0
        self.slopes = [slope * scale for slope in alibi_slopes(config.num_heads)]

    def build(self, shape):
        pass

    def call(self, *, t, s, index=0):
        """`bias` (1, n, t, s)."""
        distance = ops.abs(index + ops.arange(t)[:, None] - ops.arange(s)[None])
        slopes = ops.convert_to_tensor(self.slopes, dtype="float32")
        return {"bias": -slopes[None, :, None, None] * ops.cast(distance, "float32")}
