"""A convolution over time beside the first block (DeBERTa v2: He et al. 2021), which sees neighbouring tokens.

It is a dense layer on a token and its neighbours, so its kernel is two-dimensional as all others. Neighbours are those
of the same document: padding and packed documents count as nothing.
"""

import keras
from keras import ops

from zoo.nn.layers import Norm, activation, dense


def convolution(config, layer, policy):
    """The layer beside block number `layer`; None where there is none."""
    return Convolution(config, name="convolution", dtype=policy) if config.convolution and layer == 0 else None


class Convolution(keras.layers.Layer):
    """norm(y + activation(convolution of x)), (b, t, d), for a block's input x and output y."""

    def __init__(self, config, **kwargs):
        super().__init__(**kwargs)
        self.config, self.size = config, config.convolution

    def build(self, shape):
        d = shape[-1]
        self.dense = dense(self.config, "dense", self.size * d, d, True, self.dtype_policy)
        self.norm = Norm(self.config, name="norm", dtype=self.dtype_policy)
        self.norm.build(shape)

    def call(self, x, y, *, segments, drop):
        """`segments` (b, t) are the documents, 0 marks padding; `drop` is applied to what is convolved."""
        t, before = ops.shape(x)[1], (self.size - 1) // 2
        sides = [0, 0], [before, self.size - 1 - before]
        wide, around = ops.pad(x, [*sides, [0, 0]]), None if segments is None else ops.pad(segments, sides)
        neighbours = [wide[:, i : i + t] for i in range(self.size)]
        if segments is not None:
            same = [ops.cast(around[:, i : i + t] == segments, x.dtype)[..., None] for i in range(self.size)]
            neighbours = [one * seen for one, seen in zip(neighbours, same)]
        z = self.dense(ops.concatenate(neighbours, axis=-1))
        return self.norm(y + activation(self.config)(drop(z)))
