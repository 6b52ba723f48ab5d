"""Granite 3 (Granite Team 2024): Llama with multipliers on embeddings, scores, branches and logits."""

from zoo.families.family import Family
from zoo.families.llama import DEFAULTS, KEYS, table
from zoo.families.rotary import read_rotary, write_rotary


def _read(hf):
    return {**read_rotary(hf), "logit_scale": 1 / hf["logits_scaling"]}


def _write(config):
    scale = config.resolved_head_dim**-0.5 if config.attention_scale is None else config.attention_scale
    return {**write_rotary(config), "attention_multiplier": scale,
            "logits_scaling": float(f"{1 / config.logit_scale:.12g}")}  # fmt: skip


FAMILY = Family(
    name="granite",
    backbone="GraniteBackbone",
    model_types=("granite",),
    architectures={"CausalLM": "GraniteForCausalLM", "Backbone": "GraniteModel"},
    keys={**KEYS, "attention_bias": ("qkv_bias", "out_bias"), "mlp_bias": "mlp_bias",
          "embedding_multiplier": "embedding_scale", "residual_multiplier": "residual_scale",
          "attention_multiplier": "attention_scale"},
    defaults=DEFAULTS,
    absent={"bos_token_id": 1, "eos_token_id": 2, "attention_multiplier": 1.0, "logits_scaling": 1.0},
    extra_read=_read,
    extra_write=_write,
    table=table,
    prefix="model",
    presets={
        "granite_3_2b": ("ibm-granite/granite-3.1-2b-base", "2.5B", "apache-2.0"),
        "granite_3_8b": ("ibm-granite/granite-3.1-8b-base", "8.2B", "apache-2.0"),
    },
)  # fmt: skip
