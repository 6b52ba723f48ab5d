"""T5 (Raffel et al. 2020), v1.1 and Flan (Chung et al. 2022): an encoder-decoder with relative position buckets."""

from zoo.families.family import Family
from zoo.families.heads import HeadSpec, end_of
from zoo.families.rows import embeddings, linears, norm, untied_head
from zoo.weights import same

_PROJECTIONS = {
    "relu": ("relu", False), "gelu": ("gelu", False), "silu": ("silu", False),
    "gated-relu": ("relu", True), "gated-gelu": ("gelu_tanh", True), "gated-silu": ("silu", True),
}  # fmt: skip


def derived(fields):
    """One rate of dropout; tied embeddings give logits that need scaling down."""
    rate = fields["dropout"]
    scale = fields["hidden_dim"] ** -0.5 if fields["tie_embeddings"] and "hidden_dim" in fields else 1.0
    return {"attention_dropout": rate, "activation_dropout": rate, "final_dropout": rate, "logit_scale": scale}


def read(hf):
    """The feed-forward's two switches in one word, and whether the head is the embeddings."""
    projection = hf.get("feed_forward_proj", "relu")
    if projection not in _PROJECTIONS:
        raise ValueError(f"feed_forward_proj={projection!r} is not supported for t5, only {', '.join(_PROJECTIONS)}.")
    activation, gated = _PROJECTIONS[projection]
    # Newer files of v1.1 say "tied" for all T5 and mark it by scale_decoder_outputs; its head is loaded from the
    # embeddings where it has no weights of its own.
    tied = hf.get("tie_word_embeddings", True) and hf.get("scale_decoder_outputs", True)
    return {"activation": activation, "gated": gated, "tie_embeddings": bool(tied)}


def write(config):
    """The inverse of `read`."""
    names = {value: name for name, value in _PROJECTIONS.items()}
    projection = names.get((config.activation, config.gated))
    if projection is None:
        raise ValueError(f"A t5 config.json cannot say activation={config.activation!r} with gated={config.gated}.")
    tied = config.tie_embeddings
    return {"feed_forward_proj": projection, "tie_word_embeddings": tied, "scale_decoder_outputs": tied,
            "is_encoder_decoder": True}  # fmt: skip


def table(config):
    """All rows of a T5."""
    copies = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    rows = embeddings(config, "shared.weight", *copies) | untied_head(config, ("lm_head.weight", "shared.weight"))
    for stack, last in (("encoder", 1), ("decoder", 2)):
        ours, theirs = f"{stack}/block_{{}}", f"{stack}.block.{{}}.layer"
        projections = {"query": "q", "key": "k", "value": "v", "out": "o"}
        rows |= linears(f"{ours}/attn", f"{theirs}.0.SelfAttention", projections, bias=False)
        rows |= norm(f"{ours}/attn_norm", f"{theirs}.0.layer_norm", bias=False)
        if stack == "decoder":
            rows |= linears(f"{ours}/cross", f"{theirs}.1.EncDecAttention", projections, bias=False)
            rows |= norm(f"{ours}/cross_norm", f"{theirs}.1.layer_norm", bias=False)
        inner = {"gate": "wi_0", "up": "wi_1"} if config.gated else {"up": "wi"}
        rows |= linears(f"{ours}/mlp", f"{theirs}.{last}.DenseReluDense", {**inner, "down": "wo"}, bias=False)
        rows |= norm(f"{ours}/mlp_norm", f"{theirs}.{last}.layer_norm", bias=False)
        bias = f"{theirs}.0.SelfAttention.relative_attention_bias.weight"
        if config.relative == "buckets_per_layer":
            rows[f"{ours}/relative_bias/embeddings"] = (bias, same)
        else:
            rows[f"{stack}/relative_bias/embeddings"] = (bias.format(0), same)
        rows |= norm(f"{stack}/final_norm", f"{stack}.final_layer_norm", bias=False)
    return rows


def heads(config):
    """A classifier on the decoder's state at the end of the text, spans on the decoder, tags on the encoder alone."""
    start = config.pad_token_id if config.decoder_start_token_id is None else config.decoder_start_token_id
    rate = {"classifier_dropout": "dropout"}
    encoder = {"encoder_only": True, "ignore": (r"^(transformer\.)?decoder\.",)}
    return {
        "TextClassifier": HeadSpec(pool="last", end=end_of(config), start=start, dense="classification_head.dense",
                                   out="classification_head.out_proj", dropout_first=True, keys=rate,
                                   prefix="transformer"),
        "TokenClassifier": HeadSpec(keys=rate, prefix="transformer", **encoder),
        "QuestionAnswerer": HeadSpec(out="qa_outputs", start=start),
        "TextEmbedder": HeadSpec(pool="mean", out=None, **encoder),
    }  # fmt: skip


KEYS = {
    "vocab_size": "vocabulary_size",
    "num_layers": "num_layers",
    "num_decoder_layers": "num_decoder_layers",
    "num_heads": "num_heads",
    "d_model": "hidden_dim",
    "d_kv": "head_dim",
    "d_ff": "intermediate_dim",
    "n_positions": "max_sequence_length",
    "relative_attention_num_buckets": "relative_buckets",
    "relative_attention_max_distance": "relative_distance",
    "layer_norm_epsilon": "norm_epsilon",
    "dropout_rate": ("dropout", "attention_dropout", "activation_dropout", "final_dropout"),
}
DEFAULTS = {
    "architecture": "encoder_decoder", "norm": "rms", "norm_epsilon": 1e-6, "relative": "buckets", "qkv_bias": False,
    "out_bias": False, "mlp_bias": False, "attention_scale": 1.0, "activation": "relu", "dropout": 0.1,
    "initializer": "fan_in", "tie_embeddings": True,
}  # fmt: skip


def classes(name):
    """The classes that `transformers` has for T5 and its relatives."""
    return {
        "Seq2SeqLM": f"{name}ForConditionalGeneration",
        "TextClassifier": f"{name}ForSequenceClassification",
        "TokenClassifier": f"{name}ForTokenClassification",
        "QuestionAnswerer": f"{name}ForQuestionAnswering",
        "TextEmbedder": f"{name}EncoderModel",
        "Backbone": f"{name}Model",
    }


FIXED = {"is_encoder_decoder": (True, False), "is_decoder": (False,)}
IGNORE = (r"\.EncDecAttention\.relative_attention_bias\.weight$",)

FAMILY = Family(
    name="t5",
    backbone="T5Backbone",
    model_types=("t5",),
    architectures=classes("T5"),
    synonyms={"T5WithLMHeadModel": "Seq2SeqLM"},
    keys=KEYS,
    defaults=DEFAULTS,
    derived=derived,
    fixed=FIXED,
    absent={"pad_token_id": 0, "eos_token_id": 1},
    extra_read=read,
    extra_write=write,
    table=table,
    heads=heads,
    prefix="transformer",
    ignore=IGNORE,
    presets={
        "t5_small": ("google-t5/t5-small", "61M", "apache-2.0"),
        "t5_base": ("google-t5/t5-base", "223M", "apache-2.0"),
        "t5_large": ("google-t5/t5-large", "738M", "apache-2.0"),
        "t5_v1_1_small": ("google/t5-v1_1-small", "77M", "apache-2.0"),
        "t5_v1_1_base": ("google/t5-v1_1-base", "248M", "apache-2.0"),
        "flan_t5_small": ("google/flan-t5-small", "77M", "apache-2.0"),
        "flan_t5_base": ("google/flan-t5-base", "248M", "apache-2.0"),
        "byt5_small": ("google/byt5-small", "300M", "apache-2.0"),
        "flan_t5_large": ("google/flan-t5-large", "783M", "apache-2.0"),
    },
)
