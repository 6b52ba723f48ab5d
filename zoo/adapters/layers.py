"""What adapters compute, each beside one layer. They know their layer's sizes, and no model.

All are float32, whatever the model's dtype is, and change nothing at first, but for a prompt.
"""

import keras
import numpy as np
from keras import ops

from zoo import backend

ACTIVATIONS = {"gelu": lambda x: ops.gelu(x, approximate=False), "relu": ops.relu, "silu": ops.silu}


class Adapter(keras.layers.Layer):
    """Base of adapters; `around(product, x)` is the output of a layer that alone computes `product(x)`."""

    def add(self, name, shape, initializer="zeros"):
        """A weight."""
        return self.add_weight(name=name, shape=shape, initializer=initializer, dtype="float32")

    def merged(self, layer):
        """The kernel, and the bias or None where it stays, with which a dense layer alone computes the same."""
        kind = type(self).__name__
        raise ValueError(f"A {kind} is no change of weights and cannot be merged: keep it beside the model.")


def uniform(inputs, seed):
    """Kaiming's uniform distribution with a = √5, as PEFT has it: its bounds are ± 1 / √inputs."""
    return keras.initializers.RandomUniform(-(inputs**-0.5), inputs**-0.5, seed=seed)


class LoRA(Adapter):
    """y + (x A) B · scale (Hu et al. 2022), with scale = alpha / rank.

    A (inputs, rank) is drawn as PEFT draws it, B (rank, outputs) is 0.
    """

    def __init__(self, inputs, outputs, rank, scale, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.inputs, self.outputs, self.rank, self.scale, self.seed = inputs, outputs, rank, scale, seed

    def build(self, shape=None):
        self.a = self.add("a", (self.inputs, self.rank), uniform(self.inputs, self.seed))
        self.b = self.add("b", (self.rank, self.outputs))

    def around(self, product, x):
        low = backend.product(x, ops.cast(self.a, x.dtype))
        return product(x) + backend.product(low * ops.cast(self.scale, x.dtype), ops.cast(self.b, x.dtype))

    def merged(self, layer):
        return ops.cast(layer.kernel, "float32") + ops.matmul(self.a, self.b) * self.scale, None


class IA3(Adapter):
    """The outputs of a layer, or its inputs, times a vector (Liu et al. 2022)."""

    def __init__(self, inputs, outputs, on_inputs, **kwargs):
        super().__init__(**kwargs)
        self.size, self.on_inputs = inputs if on_inputs else outputs, on_inputs

    def build(self, shape=None):
        self.scale = self.add("scale", (self.size,), "ones")

    def around(self, product, x):
        scale = ops.cast(self.scale, x.dtype)
        return product(x * scale) if self.on_inputs else product(x) * scale

    def merged(self, layer):
        kernel = ops.cast(layer.kernel, "float32")
        if self.on_inputs:
            return kernel * self.scale[:, None], None
        return kernel * self.scale, None if layer.bias is None else ops.cast(layer.bias, "float32") * self.scale


class Bottleneck(Adapter):
    """y + f(y D + d) U + u (Houlsby et al. 2019), with D (outputs, size) and U (size, outputs), which is 0 at first."""

    def __init__(self, outputs, size, activation, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.outputs, self.size, self.activation, self.seed = outputs, size, activation, seed

    def build(self, shape=None):
        self.down = self.add("down", (self.outputs, self.size), uniform(self.outputs, self.seed))
        self.down_bias = self.add("down_bias", (self.size,))
        self.up = self.add("up", (self.size, self.outputs))
        self.up_bias = self.add("up_bias", (self.outputs,))

    def around(self, product, x):
        y = product(x)
        down, down_bias, up, up_bias = (ops.cast(v, y.dtype) for v in self.variables)
        low = ACTIVATIONS[self.activation](backend.product(y, down, down_bias))
        return y + backend.product(low, up, up_bias)


class Prompt(Adapter):
    """Vectors that each text begins with (Lester et al. 2021), beside a table of tokens.

    They are the tokens behind the table's last one, so that masks, positions and caches see tokens like any other.

    Args:
        rows, width: of the table.
        length: number of virtual tokens.
        limit: the most tokens, with these, that the model takes; None: any number.
        pooled: whether the first of them comes out in place of a text's first token, for heads that read that one.
    """

    def __init__(self, rows, width, length, limit=None, pooled=False, **kwargs):
        super().__init__(**kwargs)
        self.rows, self.width, self.length, self.limit, self.pooled = rows, width, length, limit, pooled

    def build(self, shape=None):
        self.vectors = self.add("vectors", (self.length, self.width))

    @property
    def ids(self):
        """Ids of the virtual tokens, (length,) int32."""
        return np.arange(self.rows, self.rows + self.length, dtype="int32")

    def around(self, product, x):
        place = ops.clip(x - self.rows, 0, self.length - 1)
        own = ops.take(self.vectors * 1.0, place, axis=0)  # TensorFlow's gradient of a bare gather is no sum
        y = product(ops.minimum(x, self.rows - 1))
        return ops.where((x >= self.rows)[..., None], ops.cast(own, y.dtype), y)

    def before(self, inputs):
        """A batch dictionary whose rows begin with the virtual tokens."""
        ids, n = ops.cast(inputs["token_ids"], "int32"), self.length
        if refused := [key for key in ("segment_ids", "positions") if inputs.get(key) is not None]:
            raise ValueError(f"A prompt stands before one text a row and counts from there: give padding_mask in place "
                             f"of {refused[0]}.")  # fmt: skip
        if None not in (self.limit, ids.shape[1]) and ids.shape[1] + n > self.limit:
            raise ValueError(f"token_ids has {ids.shape[1]} positions and the prompt {n}, but the model has "
                             f"{self.limit}: truncate the text.")  # fmt: skip
        lead = ops.zeros_like(ids[:, :1]) + self.ids  # (b, n)
        found = {**inputs, "token_ids": ops.concatenate([lead, ids], axis=1)}
        for key, first in (("padding_mask", ops.ones_like(lead)), ("token_type_ids", ops.zeros_like(lead))):
            if inputs.get(key) is not None:
                found[key] = ops.concatenate([ops.cast(first, inputs[key].dtype), inputs[key]], axis=1)
        return found

    def without(self, x):
        """Hidden states (b, t, d) of the texts, out of those with virtual tokens (b, length + t, d)."""
        texts = x[:, self.length :]
        return ops.concatenate([x[:, :1], texts[:, 1:]], axis=1) if self.pooled else texts
