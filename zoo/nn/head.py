"""Hidden states to vocabulary logits, through the token embeddings where they are tied."""

import keras
from keras import ops

from zoo.nn.layers import Norm, activation, dense, initializer


class Head(keras.layers.Layer):
    """Logits (…, vocabulary_size) in float32 from hidden states (…, hidden_dim); a tied one decodes with `token`."""

    def __init__(self, config, token, **kwargs):
        super().__init__(**kwargs)
        self.config, self.token = config, token

    def build(self, shape):
        config, width, policy = self.config, self.token.output_dim, self.dtype_policy
        self.transform = self.norm = self.kernel = self.bias = None
        if config.head_transform:
            self.transform = dense(config, "transform", shape[-1], width, config.head_transform_bias, policy)
            self.norm = Norm(config, name="norm", dtype=policy)
            self.norm.build((None, width))
        elif config.tie_embeddings and shape[-1] != width:
            raise ValueError(f"Embeddings of width {width} decode no states of width {shape[-1]}: use head_transform.")
        if not config.tie_embeddings:
            inputs = width if config.head_transform else shape[-1]
            init = initializer(config, fan_in=1)
            self.kernel = self.add_weight(name="kernel", shape=(inputs, self.token.input_dim), initializer=init)
        if config.head_bias:
            self.bias = self.add_weight(name="bias", shape=(self.token.input_dim,), initializer="zeros", autocast=False)

    def hidden(self, x):
        """What is decoded: the masked-LM transform of x where there is one, scaled."""
        if self.transform is not None:
            x = self.norm(activation(self.config)(self.transform(x)))
        scale = self.config.logit_scale
        return x * ops.cast(scale, x.dtype) if scale != 1.0 else x

    def decoder(self):
        """Kernel (…, vocabulary_size), bias or None, and soft cap or None: how `hidden` states become logits."""
        kernel = ops.transpose(self.token.embeddings) if self.kernel is None else ops.convert_to_tensor(self.kernel)
        return kernel, self.bias, self.config.logit_softcap

    def call(self, x):
        x = self.hidden(x)
        logits = self.token(x, reverse=True) if self.kernel is None else ops.matmul(x, self.kernel)
        logits = ops.cast(logits, "float32")
        if self.bias is not None:
            logits = logits + self.bias
        cap = self.config.logit_softcap
        return ops.tanh(logits / cap) * cap if cap else logits
