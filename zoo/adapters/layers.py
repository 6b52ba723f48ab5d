"""What an adapter computes beside one dense layer. It knows its layer's sizes, and no model."""

import keras
from keras import ops

from zoo import backend


class LoRA(keras.layers.Layer):
    """y + (x A) B · scale (Hu et al. 2022), with scale = alpha / rank.

    A (inputs, rank) is drawn as PEFT draws it, B (rank, outputs) is 0, so that nothing changes at first. Both are
    float32, whatever the model's dtype is.
    """

    def __init__(self, inputs, outputs, rank, scale, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.inputs, self.outputs, self.rank, self.scale, self.seed = inputs, outputs, rank, scale, seed

    def build(self, shape=None):
        # Kaiming's uniform distribution with a = √5: its bounds are ± 1 / √inputs.
        bound = self.inputs**-0.5
        draw = keras.initializers.RandomUniform(-bound, bound, seed=self.seed)
        self.a = self.add_weight(name="a", shape=(self.inputs, self.rank), initializer=draw, dtype="float32")
        self.b = self.add_weight(name="b", shape=(self.rank, self.outputs), initializer="zeros", dtype="float32")

    def after(self, x, y):
        """What comes out in place of y, the layer's output for x."""
        low = backend.product(x, ops.cast(self.a, x.dtype))
        return y + backend.product(low * ops.cast(self.scale, x.dtype), ops.cast(self.b, x.dtype))

    def merged(self, kernel):
        """The kernel with which the layer alone computes the same."""
        return ops.cast(kernel, "float32") + ops.matmul(self.a, self.b) * self.scale
