"""Disentangled attention (DeBERTa: He et al. 2021; v3: He et al. 2023): content and distance score each other.

A score is q·k + q·k(distance) + q(distance)·k. All rows of a batch share the distances' vectors, one a distance, and
the products are moved into place by reshaping: nothing of size t × t is gathered. It knows distances between slots,
neither masks nor `Attention`.
"""

import keras
import numpy as np
from keras import ops

from zoo.nn.layers import Norm, initializer


def distance_rows(t, buckets, limit):
    """Rows of the table for the distances (query minus key) t - 1, t - 2, …, -t: an array (2 t,) of integers.

    Below buckets / 2 each distance has a row, then rows cover spans that grow logarithmically up to `limit`. Computed
    in float32 as the original does.
    """
    distance, middle = np.arange(t - 1, -t - 1, -1), buckets // 2
    far = np.maximum(np.abs(distance), middle)
    ratio = np.log((far / middle).astype("float32")) / np.log(np.float32((limit - 1) / middle))
    log = np.sign(distance) * (np.ceil(ratio * np.float32(middle - 1)) + middle)
    row = np.where(np.abs(distance) <= middle, distance, log) + buckets
    return np.clip(row, 0, 2 * buckets - 1).astype("int32")


class DistanceEmbedding(keras.layers.Layer):
    """A normalised vector for each distance: `distances` (2 t, d) in the order of `distance_rows`."""

    def __init__(self, config, buckets, limit, **kwargs):
        super().__init__(**kwargs)
        self.config, self.buckets, self.limit = config, buckets, limit
        self.norm = Norm(config, name="norm", dtype=self.dtype_policy)

    def build(self, shape):
        size, init = (2 * self.buckets, shape[-1]), initializer(self.config, fan_in=shape[-1])
        self.embeddings = self.add_weight(name="embeddings", shape=size, initializer=init)
        self.norm.build(size)

    def call(self, *, t, s, index=0):
        longest = t if isinstance(t, int) else self.config.max_sequence_length  # TensorFlow may not know t yet
        rows = ops.convert_to_tensor(distance_rows(longest, self.buckets, self.limit))[longest - t : longest + t]
        return {"distances": ops.take(self.norm(self.embeddings), rows, axis=0)}


def disentangled_bias(q, k, distance_q, distance_k):
    """The two products with distances, for each score (b, n, t, t).

    Args:
        q: queries (b, t, n, h).
        k: keys (b, t, k, h), where k divides n.
        distance_q, distance_k: queries (2 t, n, h) and keys (2 t, k, h) of the distances t - 1, t - 2, …, -t.
    """
    _, t, n, h = ops.shape(q)
    heads = k.shape[2]
    q, distance_q = (ops.reshape(x, (-1, *ops.shape(x)[1:-2], heads, n // heads, h)) for x in (q, distance_q))
    content_to_distance = ops.einsum("btkgh,rkh->bkgtr", q, distance_k)
    distance_to_content = ops.einsum("bskh,rkgh->bkgsr", k, ops.flip(distance_q, axis=0))
    score = _slide(content_to_distance, t - 1) + ops.swapaxes(_slide(distance_to_content, t), -1, -2)
    return ops.reshape(score, (-1, n, t, t))


def _slide(x, start):
    """From each row i of x (b, k, g, t, 2 t) the t values that begin at `start` - i."""
    _, heads, groups, t, size = ops.shape(x)
    flat = ops.reshape(x, (-1, heads, groups, t * size))[..., start : start + t * (size - 1)]
    return ops.reshape(flat, (-1, heads, groups, t, size - 1))[..., :t]
