"""The weight holders: dense, embedding, norm, dropout; nothing here knows where in a model it stands.

Every matrix is a two-dimensional Keras `Dense` or `Embedding`, so LoRA, quantisation, sharding and weight decay all
see one shape under one name.
"""

import random

import keras
from keras import ops

from zoo import backend
from zoo.nn.variants.dense import Adaptable, Dense

_ACTIVATIONS = {
    "gelu": lambda x: ops.gelu(x, approximate=False),
    "gelu_tanh": lambda x: ops.gelu(x, approximate=True),
    "relu": ops.relu,
    "silu": ops.silu,
}


def activation(config):
    """The nonlinearity of feed-forwards and head transforms."""
    return _ACTIVATIONS[config.activation]


def initializer(config, fan_in, branches=0):
    """The initial distribution of a matrix.

    "normal" is BERT's (stddev 0.02); "scaled" is GPT-2's, where the outputs of the model's residual `branches` shrink
    by the square root of their number (Radford et al. 2019, section 2.3); "fan_in" is T5's (variance 1 / fan_in, Mesh
    TensorFlow).
    """
    if backend.is_uninitialised():
        return backend.Blank()
    stddev = config.initializer_range
    if config.initializer == "scaled" and branches:
        stddev /= branches**0.5
    if config.initializer == "fan_in":
        stddev = fan_in**-0.5
    return keras.initializers.RandomNormal(stddev=stddev, seed=random.randint(1, 2**31 - 1))


def dense(config, name, inputs, units, bias, policy, fan_in=None, branches=0):
    """A built Keras `Dense` from `inputs` to `units` features with the Config's initial distribution."""
    init = initializer(config, fan_in or inputs, branches)
    layer = Dense(units, use_bias=bias, kernel_initializer=init, name=name, dtype=policy)
    layer.build((None, inputs))
    return layer


class Embedding(Adaptable, keras.layers.ReversibleEmbedding):
    """Rows of a table by index, or with `reverse=True` vectors to one logit a row.

    TensorFlow's gradient of a gather is a list of rows that Keras optimizers do not sum, so a token that occurs twice
    would be trained wrong: there the gather goes through a dense product.
    """

    def __init__(self, rows, width, init, **kwargs):
        super().__init__(rows, width, embeddings_initializer=init, **kwargs)

    def call(self, inputs, reverse=False):
        return super().call(inputs, reverse=True) if reverse else self._adapted(self._rows, inputs)

    def quantized_call(self, inputs, reverse=False):
        looked_up = super().quantized_call
        return looked_up(inputs, reverse=True) if reverse else self._adapted(looked_up, inputs)

    def _rows(self, ids):
        if keras.backend.backend() != "tensorflow":
            return super().call(ids)
        return ops.cast(ops.take(self.embeddings * 1.0, ids, axis=0), self.compute_dtype)


class Norm(keras.layers.Layer):
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang & Sennrich 2019) over the last axis, computed in float32."""

    def __init__(self, config, **kwargs):
        super().__init__(**kwargs)
        self.kind, self.epsilon, self.offset = config.norm, config.norm_epsilon, config.norm_offset
        self.has_bias = config.norm == "layer" and config.norm_bias
        self.start = "zeros" if config.norm_offset == 1.0 else "ones"

    def build(self, shape):
        self.scale = self.add_weight(name="scale", shape=shape[-1:], initializer=self.start, autocast=False)
        self.bias = None
        if self.has_bias:
            self.bias = self.add_weight(name="bias", shape=shape[-1:], initializer="zeros", autocast=False)

    def call(self, x):
        return self.normalised(x, self.scale + self.offset if self.offset else self.scale, self.bias)

    def normalised(self, x, scale=None, bias=None):
        if self.kind == "rms":
            return ops.rms_normalization(x, scale, axis=-1, epsilon=self.epsilon)
        return ops.layer_normalization(x, scale, bias, axis=-1, epsilon=self.epsilon)


def seed_generator():
    """Seeds whose state is all there is to save; made in `build`, where the state gets a path of its own."""
    return keras.random.SeedGenerator(random.randint(1, 2**31 - 1), name="seeds")


def dropout(x, rate, seeds):
    """Dropout (Srivastava et al. 2014), without the cost of a layer call; `seeds` is None outside training."""
    return x if seeds is None or not rate else backend.dropout(x, rate, seeds)
