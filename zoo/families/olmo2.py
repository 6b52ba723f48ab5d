"""OLMo 2 (OLMo Team 2025): Llama with norms at the end of each branch, and over all queries and all keys."""

from zoo.families.family import Family
from zoo.families.llama import DEFAULTS, KEYS, architectures, heads
from zoo.families.llama import table as llama_table
from zoo.families.rotary import read_rotary, write_rotary
from zoo.families.rows import norm


def _table(config):
    ours, theirs = "decoder/block_{}", "model.layers.{}"
    return {
        **llama_table(config),
        **norm(f"{ours}/attn/query_norm", f"{theirs}.self_attn.q_norm", bias=False),
        **norm(f"{ours}/attn/key_norm", f"{theirs}.self_attn.k_norm", bias=False),
        **norm(f"{ours}/attn_norm", f"{theirs}.post_attention_layernorm", bias=False),
        **norm(f"{ours}/mlp_norm", f"{theirs}.post_feedforward_layernorm", bias=False),
    }


FAMILY = Family(
    name="olmo2",
    backbone="OLMo2Backbone",
    model_types=("olmo2",),
    architectures={task: name for task, name in architectures("Olmo2").items() if task != "TokenClassifier"},
    keys={**KEYS, "attention_bias": ("qkv_bias", "out_bias")},
    defaults={**DEFAULTS, "norm_epsilon": 1e-5, "norm_order": "branch", "qk_norm": "all_heads"},
    absent={"pad_token_id": 1, "eos_token_id": 50279},
    extra_read=read_rotary,
    extra_write=write_rotary,
    table=_table,
    heads=heads,
    prefix="model",
    presets={
        "olmo2_1b": ("allenai/OLMo-2-0425-1B", "1.5B", "apache-2.0"),
        "olmo2_7b": ("allenai/OLMo-2-1124-7B", "7.3B", "apache-2.0"),
        "olmo2_13b": ("allenai/OLMo-2-1124-13B", "13.7B", "apache-2.0"),
    },
)
