"""Backbones: token embeddings and stacks; tokens in, hidden states out.

`Backbone` is the whole implementation. A family's class differs by the switches that `families/` declares for it, and
knows neither file nor task.
"""

import dataclasses
import re

import keras
import numpy as np
from keras import ops

from zoo import families, quantization, sharding
from zoo.batch import check_batch
from zoo.config import Config
from zoo.loading import LoadableBackbone, weights
from zoo.nn import masks
from zoo.nn.layers import Embedding, initializer
from zoo.transformer import Stack


@keras.saving.register_keras_serializable("zoo")
class Backbone(LoadableBackbone, quantization.Quantizable, keras.Model):
    """A transformer without a head: an encoder, a decoder, or both.

    Called on a dictionary of integer tensors (b, t): `token_ids`; optionally `segment_ids` (0 = padding, 1, 2, … the
    packed documents) or `padding_mask` (0/1), `positions`, `token_type_ids`; and for encoder-decoders the same with the
    prefix `decoder_`. Returns hidden states (b, t, hidden_dim) of the last stack.

    Args:
        config: a `Config`; or leave it out and give its fields, on top of the family's own switches.
        dtype: a Keras dtype policy, such as "float32", "mixed_bfloat16" or "bfloat16".
        name: name of the model, the first part of its variables' paths.

    Raises:
        ValueError: fields that `Config` refuses, or a batch that `zoo.batch` refuses.

    Example:

    ```python
    import numpy as np
    from zoo import GPTBackbone

    backbone = GPTBackbone(vocabulary_size=100, num_layers=2, num_heads=4, hidden_dim=32,
                           intermediate_dim=64, max_sequence_length=16)
    backbone({"token_ids": np.array([[3, 14, 15]])}).shape  # (1, 3, 32)
    ```
    """

    def __init__(self, config=None, *, dtype=None, name=None, trainable=True, **fields):
        snake = re.sub("(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(self).__name__).lower()
        super().__init__(name=name or snake, dtype=dtype, trainable=trainable)  # the same name in every process
        if config is None:
            defaults = families.by_name(self.family).switches(fields) if self.family else {}
            config = Config.from_dict({**defaults, **fields})
        elif fields:
            config = dataclasses.replace(config, **fields)
        self.config = sharding.planned(config)
        policy, width = self.dtype_policy, config.resolved_embedding_dim
        init = initializer(config, fan_in=1)
        self.token = Embedding(config.vocabulary_size, width, init, name="token", dtype=policy)
        self.encoder = self.decoder = None
        cross = config.architecture == "encoder_decoder"
        if config.architecture != "decoder":
            self.encoder = Stack(config, config.num_layers, causal=False, name="encoder", dtype=policy)
        if depth := config.resolved_decoder_layers:
            self.decoder = Stack(config, depth, causal=True, cross=cross, name="decoder", dtype=policy)
        self.build()

    def build(self, input_shape=None):
        """Creates all variables: an unbuilt model would be saved and reloaded with other weights."""
        self.token.build()
        for stack in (self.encoder, self.decoder):
            if stack is not None:
                stack.build((None, None, self.config.resolved_embedding_dim))
        self.built = True

    def __call__(self, inputs, **kwargs):
        check_batch(inputs, self.config)
        return super().__call__(inputs, **kwargs)

    def call(self, inputs, training=False):
        prompt = self.token.adapter
        if self.encoder is None:
            x = self._run(self.decoder, self._prompted(inputs), training=training)
            return x if prompt is None else prompt.without(x)
        memory, mask = self.encode(inputs, training=training), self.memory_mask(inputs)
        if self.decoder is None:
            return memory if prompt is None else prompt.without(memory)
        return self._run(self.decoder, inputs, "decoder_", training=training, memory=memory, memory_mask=mask)

    def encode(self, inputs, training=False):
        """Hidden states of the encoder (b, s, hidden_dim), those of a prompt's virtual tokens among them."""
        return self._run(self.encoder, self._prompted(inputs), training=training)

    def decode(self, token_ids, cache, index, positions=None, padding_mask=None, memory_mask=None, longest=None):
        """Hidden states (b, t, hidden_dim) of (b, t) tokens, and the new cache; see `Stack.call`."""
        return self.decoder(self._embed(token_ids), positions=positions, padding_mask=padding_mask,
                            memory_mask=memory_mask, cache=cache, index=index, longest=longest)  # fmt: skip

    def new_cache(self, batch, slots, memory=None, ahead=1):
        """An empty decoding cache for `slots` tokens a row, of which a step writes up to `ahead`."""
        return self.decoder.new_cache(batch, slots, memory, ahead)

    def memory_mask(self, inputs):
        """Which encoder tokens each decoder token sees: those of its own document, and no padding."""
        inputs = self._prompted(inputs)
        segments, padding = inputs.get("segment_ids"), inputs.get("padding_mask")
        if segments is not None and inputs.get("decoder_segment_ids") is not None:
            return masks.segments_mask(inputs["decoder_segment_ids"], segments)
        if segments is not None:  # one document a row
            padding = segments != 0
        return None if padding is None else masks.keys_mask(padding)

    def _prompted(self, inputs):
        """A batch behind the virtual tokens of a prompt (`zoo.adapters.prompt`), if one is in use."""
        return inputs if self.token.adapter is None else self.token.adapter.before(inputs)

    def _embed(self, token_ids):
        x, scale = self.token(token_ids), self.config.embedding_scale
        return x * ops.cast(scale, x.dtype) if scale != 1.0 else x

    def _run(self, stack, inputs, side="", **kwargs):
        names = ("padding_mask", "segment_ids", "positions") + (() if side else ("token_type_ids",))
        given = {name: inputs.get(side + name) for name in names}
        return stack(self._embed(inputs[side + "token_ids"]), **given, **kwargs)

    def get_config(self):
        return {"name": self.name, "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
                "trainable": self.trainable, "quantization": self.quantization, **self.config.to_dict()}  # fmt: skip

    @classmethod
    def from_config(cls, config):
        quantized = (config := dict(config)).pop("quantization", ())
        own = {key: config.pop(key) for key in ("name", "dtype", "trainable") if key in config}
        if isinstance(own.get("dtype"), dict):
            own["dtype"] = keras.saving.deserialize_keras_object(own["dtype"])
        return cls(Config.from_dict(config), **own).requantize(quantized)

    @property
    def position_limit(self):
        """The most tokens of a text, or None where nothing ends: those of the `Config`, less a prompt's in use."""
        limit, prompt = self.config.position_limit, self.token.adapter
        return limit if limit is None or prompt is None else limit - prompt.length

    @property
    def num_parameters(self):
        """Number of weights."""
        return sum(int(np.prod(v.shape)) for v in weights(self).values())
