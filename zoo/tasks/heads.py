"""The heads of downstream tasks: pooling, at most two layers, and no more than a `HeadSpec` says.

Every head of every family is one `TaskHead`; which one is data of `zoo.families`. It knows no task, no labels, no file.
"""

import keras
from keras import ops

from zoo.nn.layers import Norm, activation, dense, dropout, seed_generator

_ACTIVATIONS = {"tanh": ops.tanh, "relu": ops.relu, "gelu": lambda x: ops.gelu(x, approximate=False),
                "linear": lambda x: x}  # fmt: skip


def pool(x, how, seen=None, ends=None):
    """One vector a text from one a token.

    Args:
        x: (b, t, d).
        how: "first", "last", "mean" or "max"; None returns x.
        seen: (b, t), 0 marks padding.
        ends: (b, t), 1 where a token ends the text; the last of these is the "last" token.

    Returns:
        (b, d) in the dtype of x.
    """
    if how is None:
        return x
    t = ops.shape(x)[1]
    seen = ops.ones_like(x[..., 0], dtype="int32") if seen is None else ops.cast(seen, "int32")
    if how in ("first", "last"):
        order = ops.arange(1, t + 1, dtype="int32")[None]
        if ends is not None:
            order = order + t * ops.cast(ends, "int32")  # an end outranks every other token
        rank = seen if how == "first" else seen * order
        at = ops.argmax(rank, axis=1)[:, None, None]
        return ops.take_along_axis(x, at, axis=1)[:, 0]
    mask = ops.cast(seen, "float32")[..., None]
    if how == "max":
        return ops.max(ops.where(mask > 0, x, ops.full_like(x, float("-inf"))), axis=1)
    total = ops.sum(ops.cast(x, "float32") * mask, axis=1)
    return ops.cast(total / ops.maximum(ops.sum(mask, axis=1), 1e-9), x.dtype)


class TaskHead(keras.layers.Layer):
    """Outputs (b, units), or (b, t, units) without pooling, in float32, from hidden states (b, t, hidden_dim).

    Args:
        config: the backbone's `Config`.
        spec: a `HeadSpec`.
        units: number of outputs.
    """

    def __init__(self, config, spec, units, **kwargs):
        super().__init__(**kwargs)
        self.config, self.spec, self.units = config, spec, units

    def build(self, shape):
        config, spec, policy, width = self.config, self.spec, self.dtype_policy, shape[-1]
        self.seeds = seed_generator()
        self.dense = self.norm = self.out = None
        if spec.dense:
            self.dense = dense(config, "dense", width, spec.units or width, spec.dense_bias, policy)
        if spec.norm:
            self.norm = Norm(config, name="norm", dtype=policy)
            self.norm.build((None, width))
        if spec.out:
            self.out = dense(config, "out", width, self.units, spec.out_bias, policy)

    def call(self, x, seen=None, ends=None, training=False):
        spec, seeds = self.spec, self.seeds if training else None
        x = pool(x, spec.pool, seen, ends)
        if self.dense is not None:
            x = self.dense(dropout(x, spec.dropout if spec.dropout_first else 0, seeds))
            x = (_ACTIVATIONS[spec.activation] if spec.activation else activation(self.config))(x)
        if self.norm is not None:
            x = self.norm(x)
        if self.out is not None:
            x = self.out(dropout(x, spec.dropout, seeds))
        return ops.cast(x, "float32")
