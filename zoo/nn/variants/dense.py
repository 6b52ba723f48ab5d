"""The dense layer: the product that backends are fast at, and room for an adapter. What adapters compute is theirs."""

import keras
from keras import ops

from zoo import backend


class Dense(keras.layers.Dense):
    """Keras's, with the product of `backend.product`; Keras's LoRA and quantisation see the layer they know.

    With an adapter in use, its `after(x, y)` comes out; `zoo.adapters` puts adapters here by name, and the name in use.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.used = None
        object.__setattr__(self, "adapters", {})  # each is tracked under a name of its own

    def call(self, inputs, training=None):
        return self._adapted(self._product, inputs)

    def quantized_call(self, inputs, training=None):
        return self._adapted(super().quantized_call, inputs)

    def _product(self, inputs):
        y = backend.product(inputs, self.kernel)
        return y if self.bias is None else ops.add(y, self.bias)

    def _adapted(self, product, x):
        y = product(x)
        return y if self.used is None else self.adapters[self.used].after(x, y)

    def save_own_variables(self, store):
        """Keras's, for files that know no adapters: a layer that has one refuses."""
        if self.adapters:
            raise ValueError(
                f"{self.path} has an adapter, which this file cannot hold: save it with zoo.adapters.save, or merge "
                "it into the model first."
            )
        super().save_own_variables(store)
