"""Gemma 2 (Rivière et al. 2024): Gemma with norms on both sides, soft caps and windows on every other layer."""

from zoo.families.family import Family
from zoo.families.gemma import GEMMA_ABSENT, GEMMA_DEFAULTS, GEMMA_KEYS, ONE_WAY, TANH, scaled
from zoo.families.llama import architectures, heads
from zoo.families.llama import table as llama_table
from zoo.families.rotary import read_rotary, write_rotary
from zoo.families.rows import norm
from zoo.families.windows import layer_types, read_windows

KEYS = {**GEMMA_KEYS, "attn_logit_softcapping": "attention_softcap", "final_logit_softcapping": "logit_softcap"}


def read_scale(hf):
    """Scores are scaled by a number of its own, not by the width of a head."""
    return {"attention_scale": hf["query_pre_attn_scalar"] ** -0.5}


def write_scale(config):
    """The inverse of `read_scale`, exact for the integers in use."""
    scalar = config.resolved_head_dim if config.attention_scale is None else config.attention_scale**-2
    return {"query_pre_attn_scalar": round(scalar), "hidden_activation": "gelu_pytorch_tanh"}


def _read(hf):
    return {**read_scale(hf), **read_rotary(hf), **read_windows(hf, hf["sliding_window"], (True, False))}


def _write(config):
    return {**write_scale(config), **write_rotary(config), "sliding_window": config.window,
            "layer_types": layer_types(config)}  # fmt: skip


def table(config):
    """Llama's rows, with a norm before and after each branch."""
    ours, theirs = "decoder/block_{}", "model.layers.{}"
    return {
        **llama_table(config),
        **norm(f"{ours}/attn_post_norm", f"{theirs}.post_attention_layernorm", bias=False),
        **norm(f"{ours}/mlp_norm", f"{theirs}.pre_feedforward_layernorm", bias=False),
        **norm(f"{ours}/mlp_post_norm", f"{theirs}.post_feedforward_layernorm", bias=False),
    }


FAMILY = Family(
    name="gemma2",
    backbone="Gemma2Backbone",
    model_types=("gemma2",),
    architectures=architectures("Gemma2"),
    keys=KEYS,
    defaults={**GEMMA_DEFAULTS, "norm_order": "sandwich", "window": 4096, "window_pattern": (True, False),
              "attention_softcap": 50.0, "logit_softcap": 30.0},
    derived=scaled,
    fixed={**ONE_WAY, "hidden_activation": TANH},
    absent={**GEMMA_ABSENT, "num_key_value_heads": 4, "query_pre_attn_scalar": 256, "sliding_window": 4096},
    extra_read=_read,
    extra_write=_write,
    table=table,
    heads=heads,
    prefix="model",
    presets={"gemma2_2b": ("google/gemma-2-2b", "2.6B", "gemma"), "gemma2_9b": ("google/gemma-2-9b", "9.2B", "gemma")},
)  # fmt: skip
