"""The dense layer: the product that backends are fast at; and room for adapters, whose arithmetic is theirs."""

import keras

from zoo import backend


class Adaptable:
    """A layer with room for adapters: `zoo.adapters` puts them here by name, and the name of the one in use.

    With one in use its `around(product, x)` comes out, where `product` is what the layer alone computes.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.used = None
        object.__setattr__(self, "adapters", {})  # each is tracked under a name of its own

    @property
    def adapter(self):
        """The adapter in use, or None."""
        return self.adapters.get(self.used)

    def _adapted(self, product, x):
        return product(x) if self.used is None else self.adapters[self.used].around(product, x)

    def save_own_variables(self, store):
        """Keras's, for files that know no adapters: a layer that has one refuses."""
        if self.adapters:
            raise ValueError(
                f"{self.path} has an adapter, which this file cannot hold: save it with zoo.adapters.save, or merge "
                "it into the model first."
            )
        super().save_own_variables(store)


class Dense(Adaptable, keras.layers.Dense):
    """Keras's, with the product of `backend.product`; Keras's LoRA and quantisation see the layer they know."""

    def call(self, inputs, training=None):
        return self._adapted(lambda x: backend.product(x, self.kernel, self.bias), inputs)

    def quantized_call(self, inputs, training=None):
        return self._adapted(super().quantized_call, inputs)
