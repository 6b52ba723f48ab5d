"""The feed-forward half of a block, plain or gated."""

import keras

from zoo.nn.layers import activation, dense, dropout


class MLP(keras.layers.Layer):
    """(b, t, d) to (b, t, d): activation(x up) down, or with a gate (activation(x gate) * x up) down (Shazeer 2020).

    `branches` is the number of residual branches of the stack, for the initial scale of `down`.
    """

    def __init__(self, config, branches=0, **kwargs):
        super().__init__(**kwargs)
        self.config, self.branches = config, branches
        self.activation, self.rate = activation(config), config.activation_dropout
        self.inner, self.gated = config.intermediate_dim, config.gated

    def build(self, shape):
        config, d, f, bias, policy = self.config, shape[-1], self.inner, self.config.mlp_bias, self.dtype_policy
        self.gate = dense(config, "gate", d, f, bias, policy) if self.gated else None
        self.up = dense(config, "up", d, f, bias, policy)
        self.down = dense(config, "down", f, d, bias, policy, branches=self.branches)

    def call(self, x, seeds=None):
        if self.gate is None:
            h = self.activation(self.up(x))
        else:
            h = self.activation(self.gate(x)) * self.up(x)
        return self.down(dropout(h, self.rate, seeds))
