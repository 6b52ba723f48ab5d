"""BART (Lewis et al. 2020): a post-norm encoder-decoder with learned positions."""

from zoo.families.family import Family
from zoo.families.heads import HeadSpec, end_of
from zoo.families.rows import embeddings, linears, norm, untied_head
from zoo.weights import first_row, same

KEYS = {
    "vocab_size": "vocabulary_size",
    "encoder_layers": "num_layers",
    "decoder_layers": "num_decoder_layers",
    "encoder_attention_heads": "num_heads",
    "decoder_attention_heads": "num_heads",
    "d_model": "hidden_dim",
    "encoder_ffn_dim": "intermediate_dim",
    "decoder_ffn_dim": "intermediate_dim",
    "max_position_embeddings": "max_sequence_length",
    "activation_function": "activation",
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "init_std": "initializer_range",
    "tie_word_embeddings": "tie_embeddings",
}
DEFAULTS = {
    "architecture": "encoder_decoder", "norm_order": "post", "position": "learned", "position_offset": 2,
    "max_sequence_length": 1024, "embedding_norm": True, "final_norm": False, "activation": "gelu", "dropout": 0.1,
    "head_bias": True,
}  # fmt: skip
FIXED = {"is_encoder_decoder": (True,), "is_decoder": (False,)}
IGNORE = (r"coder\.version$",)


def derived(fields):
    """The published dropout on attention is that of the residual branches."""
    return {"attention_dropout": fields["dropout"]}


def read(hf):
    """Embeddings may be scaled by the square root of their width."""
    return {"embedding_scale": hf["d_model"] ** 0.5} if hf.get("scale_embedding") and "d_model" in hf else {}


def write(config):
    """The inverse of `read`."""
    return {"scale_embedding": config.embedding_scale != 1.0, "is_encoder_decoder": True}


def table(config):
    """All rows of a BART, and of its relatives without learned positions or with other norms."""
    copies = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")
    rows = embeddings(config, "model.shared.weight", *copies)
    rows |= {"head/bias": ("final_logits_bias", first_row), **untied_head(config)}
    for stack in ("encoder", "decoder"):
        ours, theirs = f"{stack}/block_{{}}", f"model.{stack}.layers.{{}}"
        projections = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}
        rows |= linears(f"{ours}/attn", f"{theirs}.self_attn", projections)
        rows |= norm(f"{ours}/attn_norm", f"{theirs}.self_attn_layer_norm")
        if stack == "decoder":
            rows |= linears(f"{ours}/cross", f"{theirs}.encoder_attn", projections)
            rows |= norm(f"{ours}/cross_norm", f"{theirs}.encoder_attn_layer_norm")
        rows |= linears(f"{ours}/mlp", theirs, {"up": "fc1", "down": "fc2"})
        rows |= norm(f"{ours}/mlp_norm", f"{theirs}.final_layer_norm")
        if config.position == "learned":
            rows[f"{stack}/position/embeddings"] = (f"model.{stack}.embed_positions.weight", same)
        if config.embedding_norm:
            rows |= norm(f"{stack}/embedding_norm", f"model.{stack}.layernorm_embedding")
        if config.final_norm:
            rows |= norm(f"{stack}/final_norm", f"model.{stack}.layer_norm")
    return rows


def heads(config, start=None):
    """Heads on the decoder, which reads the text again: a classifier where the text ends, spans on each token."""
    start = config.decoder_start_token_id if start is None else start
    classifier = HeadSpec(pool="last", end=end_of(config), start=start, dense="classification_head.dense",
                          out="classification_head.out_proj", dropout_first=True,
                          keys={"classifier_dropout": "dropout"})  # fmt: skip
    return {"TextClassifier": classifier, "QuestionAnswerer": HeadSpec(out="qa_outputs", start=start)}


FAMILY = Family(
    name="bart",
    backbone="BARTBackbone",
    model_types=("bart",),
    architectures={
        "Seq2SeqLM": "BartForConditionalGeneration",
        "TextClassifier": "BartForSequenceClassification",
        "QuestionAnswerer": "BartForQuestionAnswering",
        "Backbone": "BartModel",
    },
    keys=KEYS,
    defaults=DEFAULTS,
    derived=derived,
    fixed=FIXED,
    absent={"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2},
    extra_read=read,
    extra_write=write,
    table=table,
    heads=heads,
    prefix="model",
    ignore=IGNORE,
    optional=("head/bias",),
    presets={
        "bart_base": ("facebook/bart-base", "139M", "apache-2.0"),
        "bart_large": ("facebook/bart-large", "406M", "apache-2.0"),
        "bart_large_cnn": ("facebook/bart-large-cnn", "406M", "mit"),
    },
)
