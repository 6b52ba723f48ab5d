"""ModernBERT (Warner et al. 2024): a pre-norm, rotary, gated encoder, global on every third layer."""

import dataclasses

from zoo.families.family import Family
from zoo.families.gemma3 import read_two_rotaries, write_two_rotaries
from zoo.families.heads import HeadSpec
from zoo.families.rows import QKV, embeddings, fused, linear, norm, untied_head
from zoo.families.windows import layer_types, read_windows
from zoo.weights import outputs, same

_THETAS = {"global_rope_theta": 160000.0, "local_rope_theta": 10000.0}


def _read(hf):
    rotary = read_two_rotaries({**hf, "rope_theta": hf.get("global_rope_theta")}, *_THETAS.values(), "local_rope_theta")
    every = hf.get("global_attn_every_n_layers") or 3
    windows = read_windows(hf, hf["local_attention"] // 2 + 1, [False] + [True] * (every - 1))
    return {**rotary, **windows}


def _write(config):
    rotary = write_two_rotaries(config, "local_rope_theta")
    both = {"global_rope_theta": rotary.pop("rope_theta"), "layer_types": layer_types(config)}
    act = "gelu" if config.activation == "gelu" else "gelu_pytorch_tanh"
    tokens = {"cls_token_id": config.bos_token_id, "sep_token_id": config.eos_token_id}
    window = 2 * (config.window - 1) if config.window else None
    return {**rotary, **both, **tokens, "local_attention": window, "classifier_activation": act}


def _table(config):
    ours, theirs, d, f = "encoder/block_{}", "model.layers.{}", config.hidden_dim, config.intermediate_dim
    bias = config.norm_bias
    return {
        **embeddings(config, "model.embeddings.tok_embeddings.weight", head="decoder.weight"),
        **norm("encoder/embedding_norm", "model.embeddings.norm", bias),
        **fused(f"{ours}/attn", QKV, f"{theirs}.attn.Wqkv", [outputs([d] * 3, i) for i in range(3)], config.qkv_bias),
        **linear(f"{ours}/attn/out", f"{theirs}.attn.Wo", config.out_bias),
        **fused(f"{ours}/mlp", ("gate", "up"), f"{theirs}.mlp.Wi", [outputs([f] * 2, i) for i in range(2)],
                config.mlp_bias),
        **linear(f"{ours}/mlp/down", f"{theirs}.mlp.Wo", config.mlp_bias),
        **norm(f"{ours}/attn_norm", f"{theirs}.attn_norm", bias),
        **norm(f"{ours}/mlp_norm", f"{theirs}.mlp_norm", bias),
        **norm("encoder/final_norm", "model.final_norm", bias),
        **linear("head/transform", "head.dense", config.head_transform_bias),
        **norm("head/norm", "head.norm", bias),
        **({"head/bias": ("decoder.bias", same)} if config.head_bias else {}),
        **untied_head(config, "decoder.weight"),
    }  # fmt: skip


def _heads(config):
    """All on the dense layer and norm of the masked-LM head, which pretraining made."""
    spec = HeadSpec(dense="head.dense", dense_bias=config.head_transform_bias, activation=None, norm="head.norm",
                    keys={"classifier_dropout": "dropout"})  # fmt: skip
    pooled = dataclasses.replace(spec, pool="first", keys={**spec.keys, "classifier_pooling": "pool"})
    return {"TextClassifier": pooled, "MultipleChoice": pooled, "TokenClassifier": spec, "QuestionAnswerer": spec}


FAMILY = Family(
    name="modernbert",
    backbone="ModernBERTBackbone",
    model_types=("modernbert",),
    architectures={
        "MaskedLM": "ModernBertForMaskedLM",
        "TextClassifier": "ModernBertForSequenceClassification",
        "TokenClassifier": "ModernBertForTokenClassification",
        "QuestionAnswerer": "ModernBertForQuestionAnswering",
        "MultipleChoice": "ModernBertForMultipleChoice",
        "Backbone": "ModernBertModel",
    },
    keys={
        "vocab_size": "vocabulary_size",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "hidden_size": "hidden_dim",
        "intermediate_size": "intermediate_dim",
        "max_position_embeddings": "max_sequence_length",
        "hidden_activation": "activation",
        "classifier_activation": "activation",
        "norm_eps": "norm_epsilon",
        "norm_bias": "norm_bias",
        "attention_bias": ("qkv_bias", "out_bias"),
        "mlp_bias": "mlp_bias",
        "classifier_bias": "head_transform_bias",
        "decoder_bias": "head_bias",
        "embedding_dropout": "dropout",
        "attention_dropout": "attention_dropout",
        "mlp_dropout": "activation_dropout",
        "initializer_range": "initializer_range",
        "tie_word_embeddings": "tie_embeddings",
    },
    defaults={"architecture": "encoder", "norm_bias": False, "embedding_norm": True, "first_attn_norm": False,
              "qkv_bias": False, "out_bias": False, "mlp_bias": False, "gated": True, "activation": "gelu",
              "rotary_theta": 160000.0, "rotary_local_theta": 10000.0, "window": 65,
              "window_pattern": (False, True, True), "max_sequence_length": 8192, "head_transform": True,
              "head_transform_bias": False, "head_bias": True},
    absent={"pad_token_id": 50283, "bos_token_id": 50281, "eos_token_id": 50282, "local_attention": 128},
    extra_read=_read,
    extra_write=_write,
    table=_table,
    heads=_heads,
    prefix="model",
    presets={
        "modernbert_base": ("answerdotai/ModernBERT-base", "150M", "apache-2.0"),
        "modernbert_large": ("answerdotai/ModernBERT-large", "396M", "apache-2.0"),
    },
)  # fmt: skip
