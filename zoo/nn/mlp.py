"""The feed-forward half of a block, plain or gated."""

import keras

from zoo.nn.layers import activation, dropout, initializer


class MLP(keras.layers.Layer):
    """(b, t, d) to (b, t, d): activation(x up) down, or with a gate (activation(x gate) * x up) down (Shazeer 2020).

    Args:
        config: `Config`.
        branches: number of residual branches of the model, for the initial scale of `down`.
    """

    def __init__(self, config, branches=0, **kwargs):
        super().__init__(**kwargs)
        self.config, self.branches = config, branches
        self.activation, self.rate = activation(config.activation), config.activation_dropout
        self.inner, self.gated = config.intermediate_dim, config.gated

    def build(self, shape):
        d, f = shape[-1], self.inner
        self.gate = self._dense("gate", d, f) if self.gated else None
        self.up = self._dense("up", d, f)
        self.down = self._dense("down", f, d, self.branches)

    def _dense(self, name, inputs, units, branches=0):
        init = initializer(self.config, inputs, branches)
        bias, policy = self.config.mlp_bias, self.dtype_policy
        layer = keras.layers.Dense(units, use_bias=bias, kernel_initializer=init, name=name, dtype=policy)
        layer.build((None, inputs))
        return layer

    def call(self, x, seeds=None):
        if self.gate is None:
            h = self.activation(self.up(x))
        else:
            h = self.activation(self.gate(x)) * self.up(x)
        return self.down(dropout(h, self.rate, seeds))
