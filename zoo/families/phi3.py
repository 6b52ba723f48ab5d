"""Phi-3 (Abdin et al. 2024): Llama whose projections are stored fused."""

from zoo.families.family import Family
from zoo.families.llama import DEFAULTS, KEYS, architectures, heads
from zoo.families.llama import table as llama_table
from zoo.families.phi import DROPOUTS
from zoo.families.rotary import read_rotary, write_rotary
from zoo.families.rows import QKV, fused
from zoo.weights import outputs


def _table(config):
    ours, theirs = "decoder/block_{}", "model.layers.{}"
    heads = config.num_heads, config.resolved_key_value_heads, config.resolved_key_value_heads
    widths = [n * config.resolved_head_dim for n in heads]
    qkv, inner = [outputs(widths, i) for i in range(3)], [outputs([config.intermediate_dim] * 2, i) for i in range(2)]
    return {
        **llama_table(config),
        **fused(f"{ours}/attn", QKV, f"{theirs}.self_attn.qkv_proj", qkv, bias=False),
        **fused(f"{ours}/mlp", ("gate", "up"), f"{theirs}.mlp.gate_up_proj", inner, bias=False),
    }


FAMILY = Family(
    name="phi3",
    backbone="Phi3Backbone",
    model_types=("phi3",),
    architectures=architectures("Phi3"),
    keys={**{k: v for k, v in KEYS.items() if k != "head_dim"}, **DROPOUTS, "sliding_window": "window"},
    defaults={**DEFAULTS, "norm_epsilon": 1e-5, "max_sequence_length": 4096},
    absent={"bos_token_id": 1, "eos_token_id": 32000, "pad_token_id": 32000},
    extra_read=read_rotary,
    extra_write=write_rotary,
    table=_table,
    heads=heads,
    prefix="model",
    presets={"phi3_mini_4k": ("microsoft/Phi-3-mini-4k-instruct", "3.8B", "mit")},
)
