"""Qwen2 and Qwen2.5 (Yang et al. 2024): Llama with biased queries, keys and values."""

from zoo.families.family import Family
from zoo.families.llama import DEFAULTS, KEYS, architectures, heads, table
from zoo.families.rotary import read_rotary, write_rotary
from zoo.families.windows import layer_types, read_windows


def read(hf):
    """Windows, where they are in use, begin at some layer."""
    window = hf.get("sliding_window") if hf.get("use_sliding_window") else None
    depth, first = hf.get("num_hidden_layers", 1), hf.get("max_window_layers", 28)
    return {**read_rotary(hf), **read_windows(hf, window, [i >= first for i in range(depth)])}


def write(config):
    """The inverse of `read`."""
    kinds = layer_types(config)
    first = kinds.index("sliding_attention") if config.window else config.num_layers
    return {**write_rotary(config), "use_sliding_window": bool(config.window), "sliding_window": config.window,
            "max_window_layers": first, "layer_types": kinds}  # fmt: skip


FAMILY = Family(
    name="qwen2",
    backbone="Qwen2Backbone",
    model_types=("qwen2",),
    architectures=architectures("Qwen2", spans=True),
    keys=KEYS,
    defaults={**DEFAULTS, "qkv_bias": True, "max_sequence_length": 32768},
    absent={"num_key_value_heads": 32, "sliding_window": 4096},
    extra_read=read,
    extra_write=write,
    table=table,
    heads=heads,
    prefix="model",
    presets={
        "qwen2_5_0_5b": ("Qwen/Qwen2.5-0.5B", "494M", "apache-2.0"),
        "qwen2_5_1_5b": ("Qwen/Qwen2.5-1.5B", "1.5B", "apache-2.0"),
        "qwen2_5_7b": ("Qwen/Qwen2.5-7B", "7.6B", "apache-2.0"),
    },
)
