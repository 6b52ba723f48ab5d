"""Falcon (Almazrouei et al. 2023), 7B, 40B and RW: parallel branches and shared keys, or GPT-3 with ALiBi.

`transformers` rounds Falcon's ALiBi to bfloat16, which for numbers of heads beyond 8 moves scores a little; we do not.
"""

from zoo.families.family import Family
from zoo.families.llama import architectures, heads
from zoo.families.rotary import read_rotary, write_rotary
from zoo.families.rows import QKV, embeddings, fused, linear, linears, norm, untied_head
from zoo.weights import interleaved


def _read(hf):
    grouped, alibi = bool(hf.get("new_decoder_architecture")), bool(hf.get("alibi"))
    fields = {"relative": "alibi_scaled" if alibi else None, "parallel": None}
    fields |= {"rotary_theta": None} if alibi else read_rotary(hf)
    if grouped or hf.get("parallel_attn", True):
        two = grouped and hf.get("num_ln_in_parallel_attn") in (None, 2)
        fields["parallel"] = "two_norms" if two else "one_norm"
    if grouped or not hf.get("multi_query", True):
        count = hf.get("num_kv_heads")
        fields["num_key_value_heads"] = hf.get("num_attention_heads") if count is None else count
    else:
        fields["num_key_value_heads"] = 1
    if hf.get("ffn_hidden_size") is None and "hidden_size" in hf:
        fields["intermediate_dim"] = 4 * hf["hidden_size"]
    return fields


def _write(config):
    count, groups, parallel = config.num_heads, config.resolved_key_value_heads, config.parallel
    grouped = parallel == "two_norms" or 1 < groups < count
    rotary = write_rotary(config) if config.rotary_theta else {}
    return {
        **rotary,
        "alibi": config.relative == "alibi_scaled",
        "new_decoder_architecture": grouped,
        "num_kv_heads": groups if grouped else count,
        "multi_query": grouped or groups < count,
        "parallel_attn": parallel is not None,
        "num_ln_in_parallel_attn": (2 if parallel == "two_norms" else 1) if grouped else None,
    }


def _table(config):
    ours, theirs, bias = "decoder/block_{}", "transformer.h.{}", config.qkv_bias
    qkv = [interleaved(config.num_heads, i, config.resolved_key_value_heads) for i in range(3)]
    two, alone = config.parallel == "two_norms", config.parallel is None
    mlp_norm = {"two_norms": "ln_mlp", None: "post_attention_layernorm"}.get(config.parallel)
    return {
        **embeddings(config, "transformer.word_embeddings.weight"),
        **fused(f"{ours}/attn", QKV, f"{theirs}.self_attention.query_key_value", qkv, bias),
        **linear(f"{ours}/attn/out", f"{theirs}.self_attention.dense", bias),
        **linears(f"{ours}/mlp", f"{theirs}.mlp", {"up": "dense_h_to_4h", "down": "dense_4h_to_h"}, bias),
        **norm(f"{ours}/attn_norm", f"{theirs}.ln_attn" if two else f"{theirs}.input_layernorm"),
        **(norm(f"{ours}/mlp_norm", f"{theirs}.{mlp_norm}") if two or alone else {}),
        **norm("decoder/final_norm", "transformer.ln_f"),
        **untied_head(config),
    }


FAMILY = Family(
    name="falcon",
    backbone="FalconBackbone",
    model_types=("falcon",),
    architectures=architectures("Falcon", spans=True),
    keys={
        "vocab_size": "vocabulary_size",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "hidden_size": "hidden_dim",
        "ffn_hidden_size": "intermediate_dim",
        "max_position_embeddings": "max_sequence_length",
        "activation": "activation",
        "layer_norm_epsilon": "norm_epsilon",
        "bias": ("qkv_bias", "out_bias", "mlp_bias"),
        "hidden_dropout": "dropout",
        "attention_dropout": "attention_dropout",
        "initializer_range": "initializer_range",
        "tie_word_embeddings": "tie_embeddings",
    },
    defaults={"architecture": "decoder", "parallel": "one_norm", "num_key_value_heads": 1, "rotary_theta": 10000.0,
              "norm_epsilon": 1e-5, "qkv_bias": False, "out_bias": False, "mlp_bias": False, "activation": "gelu",
              "max_sequence_length": 2048},
    absent={"bos_token_id": 11, "eos_token_id": 11},
    extra_read=_read,
    extra_write=_write,
    table=_table,
    heads=lambda config: heads(config, "classifier"),
    prefix="transformer",
    presets={
        "falcon_rw_1b": ("tiiuae/falcon-rw-1b", "1.3B", "apache-2.0"),
        "falcon_7b": ("tiiuae/falcon-7b", "7.2B", "apache-2.0"),
        "falcon_40b": ("tiiuae/falcon-40b", "41.8B", "apache-2.0"),
    },
)  # fmt: skip
