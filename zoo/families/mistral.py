"""Mistral 7B (Jiang et al. 2023): Llama with grouped heads and a window on every layer."""

from zoo.families.family import Family
from zoo.families.llama import DEFAULTS, KEYS, architectures, heads, table
from zoo.families.rotary import read_rotary, write_rotary

FAMILY = Family(
    name="mistral",
    backbone="MistralBackbone",
    model_types=("mistral",),
    architectures=architectures("Mistral", spans=True),
    keys={**KEYS, "sliding_window": "window"},
    defaults={**DEFAULTS, "max_sequence_length": 131072},
    absent={"bos_token_id": 1, "eos_token_id": 2, "sliding_window": 4096, "num_key_value_heads": 8},
    extra_read=read_rotary,
    extra_write=write_rotary,
    table=table,
    heads=lambda config: heads(config, prefix=None),  # unlike its relatives'
    prefix="model",
    presets={
        "mistral_7b": ("mistralai/Mistral-7B-v0.1", "7.2B", "apache-2.0"),
        "mistral_7b_instruct": ("mistralai/Mistral-7B-Instruct-v0.3", "7.2B", "apache-2.0"),
    },
)
