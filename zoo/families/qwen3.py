"""Qwen3 (Yang et al. 2025): Llama with normalised queries and keys."""

from zoo.families.family import Family
from zoo.families.llama import DEFAULTS, KEYS, architectures, heads
from zoo.families.llama import table as llama_table
from zoo.families.qwen2 import read, write
from zoo.families.rows import norm


def table(config):
    """Llama's rows and the norms of queries and keys."""
    ours, theirs = "decoder/block_{}/attn", "model.layers.{}.self_attn"
    return {
        **llama_table(config),
        **norm(f"{ours}/query_norm", f"{theirs}.q_norm", bias=False),
        **norm(f"{ours}/key_norm", f"{theirs}.k_norm", bias=False),
    }


FAMILY = Family(
    name="qwen3",
    backbone="Qwen3Backbone",
    model_types=("qwen3",),
    architectures=architectures("Qwen3", spans=True),
    keys={**KEYS, "attention_bias": ("qkv_bias", "out_bias")},
    defaults={**DEFAULTS, "qk_norm": "head", "max_sequence_length": 32768},
    absent={"num_key_value_heads": 32, "head_dim": 128, "sliding_window": 4096},
    extra_read=read,
    extra_write=write,
    table=table,
    heads=heads,
    prefix="model",
    presets={
        "qwen3_0_6b": ("Qwen/Qwen3-0.6B", "596M", "apache-2.0"),
        "qwen3_1_7b": ("Qwen/Qwen3-1.7B", "1.7B", "apache-2.0"),
        "qwen3_8b": ("Qwen/Qwen3-8B", "8.2B", "apache-2.0"),
    },
)
