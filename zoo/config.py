"""The shape and the switches of one transformer, as data.

A `Config` says everything that tells one family of language models from another. It knows no file format (families/
read `config.json` into it) and no arithmetic (nn/ reads it), and it imports no backend. Fields under "Shape" are read
wherever sizes are needed; every other field is read in one module only, and names the family that needs it.
"""

import dataclasses
import difflib
import typing

_CHOICES = {
    "architecture": ("encoder", "decoder", "encoder_decoder"),
    "norm": ("layer", "rms"),
    "norm_order": ("pre", "post", "sandwich", "branch"),
    "parallel": (None, "two_norms", "one_norm"),
    "position": (None, "learned", "sinusoidal"),
    "embedding_projection": ("last", "first"),
    "relative": (None, "buckets", "buckets_per_layer", "disentangled", "alibi", "alibi_scaled"),
    "qk_norm": (None, "head", "each_head", "all_heads"),
    "activation": ("gelu", "gelu_tanh", "relu", "silu"),
    "initializer": ("normal", "scaled", "fan_in"),
}

_SCALINGS = {"linear": 1, "dynamic": 2, "llama3": 4, "yarn": 6}  # how many numbers follow; longrope has a pair's too
_SIZES = ("vocabulary_size", "num_layers", "num_heads", "hidden_dim", "intermediate_dim", "num_decoder_layers",
          "num_key_value_heads", "head_dim", "embedding_dim", "num_distinct_blocks", "max_sequence_length",
          "relative_buckets", "relative_distance", "window", "convolution")  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Hyperparameters of a `Backbone` and of the vocabulary head on it.

    Args:
        vocabulary_size, num_layers, num_heads, hidden_dim, intermediate_dim: the shape, positive integers.
        Everything else has the plainest default; the comments name the first family that needs each switch.

    Raises:
        ValueError: a value that cannot be; the message names the field, the value and what would do.

    >>> Config(vocabulary_size=100, num_layers=2, num_heads=4, hidden_dim=32, intermediate_dim=64).resolved_head_dim
    8
    """

    # Shape.
    vocabulary_size: int
    num_layers: int  # of the encoder where there are two stacks
    num_heads: int
    hidden_dim: int
    intermediate_dim: int
    architecture: str = "decoder"
    num_decoder_layers: int | None = None  # encoder-decoders; None: as many as num_layers
    num_key_value_heads: int | None = None  # None: num_heads; fewer: grouped-query attention (Llama 2 70B)
    head_dim: int | None = None  # None: hidden_dim // num_heads (T5 and Gemma choose it freely)
    embedding_dim: int | None = None  # ALBERT, ELECTRA: embeddings narrower than hidden_dim
    num_distinct_blocks: int | None = None  # ALBERT: how many blocks own weights
    max_sequence_length: int = 512  # rows of a learned position table; a limit on input length with it

    # Stack.
    norm: str = "layer"  # "rms": T5, Llama
    norm_epsilon: float = 1e-5
    norm_bias: bool = True  # False: ModernBERT
    norm_offset: float = 0.0  # 1.0: Gemma stores its scales minus one
    norm_order: str = "pre"  # "post": BERT; "sandwich": Gemma 2; "branch": OLMo 2
    parallel: str | None = None  # attention beside the feed-forward: "two_norms" GPT-NeoX, "one_norm" Phi
    embedding_norm: bool = False  # BERT
    final_norm: bool = True  # False: BERT
    first_attn_norm: bool = True  # False: ModernBERT
    residual_scale: float = 1.0  # Granite: what each branch is multiplied by
    convolution: int | None = None  # DeBERTa v2: width of a convolution over time beside the first block
    dropout: float = 0.0  # on embeddings and on each residual branch (BERT)
    final_dropout: float = 0.0  # T5, after the final norm
    remat: bool = False  # any family: recompute each block's activations in the backward pass
    scan_layers: bool = False  # any family, on JAX: one program for all blocks, run in a loop, that compiles sooner

    # Embeddings and positions.
    embedding_scale: float = 1.0  # BART with scale_embedding, Gemma: hidden_dim ** 0.5
    embedding_projection: str = "last"  # of narrow embeddings; "first": OPT 350M, before positions, undone at the end
    num_token_types: int = 0  # BERT: sentences A and B
    position: str | None = None  # "learned": BERT, GPT-2; "sinusoidal": Marian
    position_offset: int = 0  # RoBERTa, BART: index of the first position row
    rotary_theta: float | None = None  # Llama; None: no rotary embedding
    rotary_local_theta: float | None = None  # Gemma 3: windowed layers
    rotary_fraction: float = 1.0  # share of each head that rotates (GPT-NeoX)
    rotary_pattern: tuple = (True,)  # repeated over the layers: which rotate (SmolLM3)
    rotary_scaling: tuple | None = None  # Llama 3.1, Phi-3: a kind and numbers, as in `zoo.nn.variants.scaling`
    relative: str | None = None  # "buckets": T5; "…_per_layer": umT5; "disentangled": DeBERTa; "alibi": BLOOM, Falcon
    relative_buckets: int = 32
    relative_distance: int = 128

    # Attention.
    qkv_bias: bool = True  # False: T5, Llama
    out_bias: bool = True  # False: T5, Llama
    qk_norm: str | None = None  # "head": Qwen3; "each_head": StableLM 2; "all_heads": OLMo 2
    attention_scale: float | None = None  # None: head_dim ** -0.5; 1.0: T5
    attention_softcap: float | None = None  # Gemma 2
    attention_dropout: float = 0.0  # on the attention probabilities (BERT)
    window: int | None = None  # Mistral: keys at a distance below this are seen
    window_pattern: tuple = (True,)  # repeated over the layers: which are windowed (Gemma 2)

    # Feed-forward.
    activation: str = "gelu"
    gated: bool = False  # Llama, T5 v1.1
    mlp_bias: bool = True  # False: T5, Llama
    activation_dropout: float = 0.0  # T5, BART

    # Vocabulary head.
    tie_embeddings: bool = True  # False: T5 v1.1, Llama
    head_transform: bool = False  # BERT's masked-LM head: dense, activation, norm, before decoding
    head_transform_bias: bool = True  # False: ModernBERT
    head_bias: bool = False  # BERT, BART
    logit_scale: float = 1.0  # T5 v1.0: hidden_dim ** -0.5
    logit_softcap: float | None = None  # Gemma 2

    # Initial weights.
    initializer: str = "normal"  # "scaled": GPT-2's residual branches; "fan_in": T5
    initializer_range: float = 0.02

    # Special tokens, as config.json gives them.
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | tuple | None = None  # several: Llama 3
    decoder_start_token_id: int | None = None  # T5, BART

    def __post_init__(self):
        for name in ("rotary_scaling", "rotary_pattern", "window_pattern", "eos_token_id"):  # JSON knows lists only
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        optional = {f.name for f in dataclasses.fields(self) if f.default is None}
        for name in _SIZES:
            value = getattr(self, name)
            if (value is not None or name not in optional) and (type(value) is not int or value < 1):
                raise ValueError(f"{name} must be a positive integer, got {value!r}.")
        for f in dataclasses.fields(self):
            value, kinds = getattr(self, f.name), typing.get_args(f.type) or (f.type,)
            kinds = (*kinds, int) if float in kinds else kinds
            fits = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
            if not fits or (isinstance(value, float) and not abs(value) < 1e30):  # infinity and worse
                raise ValueError(f"{f.name} must be {' or '.join(k.__name__ for k in kinds)}, got {value!r}.")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {choices}, got {getattr(self, name)!r}.")
        for name in ("dropout", "final_dropout", "attention_dropout", "activation_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)!r}.")
        d, n, k = self.hidden_dim, self.num_heads, self.resolved_key_value_heads
        if self.head_dim is None and d % n:
            near = n * max(1, round(d / n))
            raise ValueError(f"hidden_dim={d} is not divisible by num_heads={n}: choose {near}, or give head_dim.")
        if n % k:
            raise ValueError(f"num_heads={n} is not divisible by num_key_value_heads={k}: heads are grouped evenly.")
        if self.num_decoder_layers and self.architecture != "encoder_decoder":
            raise ValueError(f"num_decoder_layers={self.num_decoder_layers} needs architecture='encoder_decoder'.")
        if self.architecture != "encoder" and (self.relative == "disentangled" or self.convolution):
            raise ValueError(f"relative='disentangled' and convolution need an encoder, not {self.architecture!r}.")
        if self.rotary_theta and self.rotary_width % 2:
            size = f"head_dim={self.resolved_head_dim} x rotary_fraction={self.rotary_fraction}"
            raise ValueError(f"{size} must be even to rotate: change hidden_dim, num_heads or head_dim.")
        if self.rotary_scaling:
            kind, *numbers = self.rotary_scaling
            sizes = {**_SCALINGS, "longrope": 2 + self.rotary_width}
            if len(numbers) != sizes.get(kind):
                raise ValueError(f"rotary_scaling={self.rotary_scaling!r} must be a kind and its numbers: {sizes}.")

    @property
    def resolved_head_dim(self):
        """Width of one attention head."""
        return self.head_dim or self.hidden_dim // self.num_heads

    @property
    def resolved_key_value_heads(self):
        """Number of key/value heads."""
        return self.num_key_value_heads or self.num_heads

    @property
    def resolved_embedding_dim(self):
        """Width of the token embeddings."""
        return self.embedding_dim or self.hidden_dim

    @property
    def resolved_decoder_layers(self):
        """Number of layers of the stack that generates; 0 for an encoder."""
        return 0 if self.architecture == "encoder" else self.num_decoder_layers or self.num_layers

    @property
    def rotary_width(self):
        """Number of features of each head that rotate."""
        return int(self.resolved_head_dim * self.rotary_fraction)

    @property
    def output_dim(self):
        """Width of the hidden states that a backbone returns."""
        return self.resolved_embedding_dim if self.embedding_projection == "first" else self.hidden_dim

    @property
    def position_limit(self):
        """The longest input, or None where positions are computed and nothing ends."""
        return self.max_sequence_length if self.position == "learned" else None

    def windowed(self, layer):
        """Whether this layer sees only `window` neighbours."""
        return bool(self.window and self.window_pattern[layer % len(self.window_pattern)])

    def rotated(self, layer):
        """Whether this layer rotates its queries and keys."""
        return bool(self.rotary_theta and self.rotary_pattern[layer % len(self.rotary_pattern)])

    def to_dict(self):
        """What differs from the defaults, in JSON types."""
        values = ((f.name, f.default, getattr(self, f.name)) for f in dataclasses.fields(self))
        return {k: list(v) if isinstance(v, tuple) else v for k, default, v in values if v != default}

    @classmethod
    def from_dict(cls, values):
        """The inverse of `to_dict`; an unknown field is an error that lists the near ones."""
        fields = {f.name: f.default for f in dataclasses.fields(cls)}
        if unknown := [name for name in values if name not in fields]:
            near = difflib.get_close_matches(unknown[0], fields, n=3) or [*fields][:8]
            raise ValueError(f"Config has no field {unknown[0]!r}; did you mean one of {near}?")
        if missing := [k for k, default in fields.items() if default is dataclasses.MISSING and k not in values]:
            raise ValueError(f"Config needs {', '.join(missing)}.")
        return cls(**values)
