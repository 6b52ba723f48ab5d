"""Backbones: token embeddings and stacks; tokens in, hidden states out.

`Backbone` is the whole implementation. A family's class differs by the switches that `families/` declares for it, and
knows neither file nor task.
"""

import keras
import numpy as np
from keras import ops

from zoo import families, pretrained
from zoo.batch import check_batch
from zoo.config import Config
from zoo.nn import masks
from zoo.nn.layers import Embedding, initializer
from zoo.transformer import Stack


def _snake(name):
    return "".join("_" + c.lower() if c.isupper() and not name[i - 1].isupper() else c.lower()
                   for i, c in enumerate(name)).lstrip("_")  # fmt: skip


@keras.saving.register_keras_serializable("zoo")
class Backbone(keras.Model):
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

    family = None  # name of the entry in zoo.families

    def __init__(self, config=None, *, dtype=None, name=None, trainable=True, **fields):
        super().__init__(name=name or _snake(type(self).__name__), dtype=dtype, trainable=trainable)
        if config is None:
            defaults = families.by_name(self.family).switches(fields) if self.family else {}
            config = Config.from_dict({**defaults, **fields})
        elif fields:
            config = config.replace(**fields)
        self.config = config
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
        if self.encoder is None:
            return self._run(self.decoder, inputs, training=training)
        memory = self.encode(inputs, training=training)
        if self.decoder is None:
            return memory
        return self._run(self.decoder, inputs, "decoder_", training=training, memory=memory,
                         memory_mask=self.memory_mask(inputs))  # fmt: skip

    def encode(self, inputs, training=False):
        """Hidden states of the encoder (b, s, hidden_dim)."""
        return self._run(self.encoder, inputs, training=training)

    def decode(self, token_ids, cache, index, positions=None, padding_mask=None, memory_mask=None):
        """One pass of the decoder over (b, t) tokens with a cache; see `Stack.call`.

        Returns:
            Hidden states (b, t, hidden_dim) and the new cache.
        """
        return self.decoder(
            self._embed(token_ids), positions=positions, padding_mask=padding_mask, memory_mask=memory_mask,
            cache=cache, index=index,
        )  # fmt: skip

    def new_cache(self, batch, slots, memory=None):
        """An empty decoding cache for `slots` tokens a row."""
        return self.decoder.new_cache(batch, slots, memory)

    def memory_mask(self, inputs):
        """Which encoder tokens each decoder token sees: those of its own document, and no padding."""
        segments, padding = inputs.get("segment_ids"), inputs.get("padding_mask")
        if segments is not None and inputs.get("decoder_segment_ids") is not None:
            return masks.segments_mask(inputs["decoder_segment_ids"], segments)
        if segments is not None:  # one document a row
            padding = segments != 0
        return None if padding is None else masks.keys_mask(padding)

    def _embed(self, token_ids):
        x, scale = self.token(token_ids), self.config.embedding_scale
        return x * ops.cast(scale, x.dtype) if scale != 1.0 else x

    def _run(self, stack, inputs, side="", **kwargs):
        names = ("padding_mask", "segment_ids", "positions") + (() if side else ("token_type_ids",))
        given = {name: inputs.get(side + name) for name in names}
        return stack(self._embed(inputs[side + "token_ids"]), **given, **kwargs)

    def compute_output_spec(self, inputs, training=False):
        side = "decoder_" if self.config.architecture == "encoder_decoder" else ""
        return keras.KerasTensor((*inputs[side + "token_ids"].shape, self.config.hidden_dim), self.compute_dtype)

    def get_config(self):
        return {"name": self.name, "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
                "trainable": self.trainable, **self.config.to_dict()}  # fmt: skip

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        own = {key: config.pop(key) for key in ("name", "dtype", "trainable") if key in config}
        if isinstance(own.get("dtype"), dict):
            own["dtype"] = keras.saving.deserialize_keras_object(own["dtype"])
        return cls(Config.from_dict(config), **own)

    @classmethod
    def from_preset(cls, preset, *, dtype=None, load_weights=True, **fields):
        """Loads a backbone from a Hugging Face checkpoint.

        Args:
            preset: a name of `zoo.presets()`, a local directory, or "hf://owner/repo[@revision]".
            dtype: a Keras dtype policy.
            load_weights: False for the shape alone, with new weights.
            fields: `Config` fields to change, such as `dropout=0.0`.

        Raises:
            ValueError: an unknown preset, another family than this class's, or weights that do not fit.
        """
        path = pretrained.resolve(preset)
        family, config, _ = pretrained.read(path)
        if cls.family not in (None, family.name):
            raise ValueError(f"{preset!r} is a {family.name} model: use {family.backbone} or Backbone.from_preset.")
        backbone = backbone_class(family)(config, dtype=dtype, **fields)
        if load_weights:
            pretrained.load_weights(path, family, backbone.config, targets(backbone))
        return backbone

    def save_to_preset(self, directory, tokenizer=None, dtype=None):
        """Writes `config.json` and `model.safetensors`, as `transformers` and `from_preset` read them."""
        family = families.by_name(family_of(self))
        pretrained.save(directory, family, self.config, "Backbone", arrays(self), tokenizer=tokenizer, dtype=dtype)

    @property
    def num_parameters(self):
        """Number of weights."""
        return sum(int(np.prod(v.shape)) for v in weights(self).values())


def weights(*models):
    """The weights of models by their names without the model's own: seeds and optimizers left out."""
    found = {}
    for model in models:
        for v in model.variables:
            if not v.path.endswith("seed_generator_state"):
                found[v.path.split("/", 1)[1]] = v
    return found


def targets(*models):
    """Where `pretrained.load_weights` puts what it reads: name -> (shape, assign)."""
    return {name: (tuple(v.shape), v.assign) for name, v in weights(*models).items()}


def arrays(*models):
    """The weights as numpy arrays by name."""
    return {name: ops.convert_to_numpy(v.value) for name, v in weights(*models).items()}


def family_of(backbone):
    """The family's name, or an error for a backbone that has none."""
    if backbone.family is None:
        raise ValueError("This Backbone has no family: build it as a GPTBackbone, BERTBackbone, … to save a preset.")
    return backbone.family


def backbone_class(family):
    """The public class of a family."""
    return next(cls for cls in Backbone.__subclasses__() if cls.family == family.name)


def _public(cls):
    return keras.saving.register_keras_serializable("zoo")(cls)


@_public
class GPTBackbone(Backbone):
    """GPT-2: a pre-norm decoder with learned positions (Radford et al. 2019). See `Backbone`."""

    family = "gpt2"


@_public
class LlamaBackbone(Backbone):
    """Llama: RMSNorm, rotary positions, gated feed-forward, grouped heads (Touvron et al. 2023). See `Backbone`."""

    family = "llama"


@_public
class BERTBackbone(Backbone):
    """BERT: a post-norm encoder with sentence types (Devlin et al. 2019). See `Backbone`."""

    family = "bert"


@_public
class RoBERTaBackbone(Backbone):
    """RoBERTa: BERT's encoder, trained longer on more text (Liu et al. 2019). See `Backbone`."""

    family = "roberta"


@_public
class T5Backbone(Backbone):
    """T5: an encoder-decoder with relative position buckets (Raffel et al. 2020). See `Backbone`."""

    family = "t5"


@_public
class BARTBackbone(Backbone):
    """BART: a post-norm encoder-decoder with learned positions (Lewis et al. 2020). See `Backbone`."""

    family = "bart"
