"""SmolLM3 (Bakouch et al. 2025): Llama whose every fourth layer does not rotate (NoPE: Yang et al. 2025)."""

from zoo.families.family import Family
from zoo.families.llama import DEFAULTS, KEYS, architectures, heads, table
from zoo.families.rotary import read_rotary, write_rotary
from zoo.families.windows import layer_types, period, read_windows


def _read(hf):
    every, depth = hf.get("no_rope_layer_interval") or 4, hf.get("num_hidden_layers", 36)
    rotated = [bool(flag) for flag in hf.get("no_rope_layers") or [(i + 1) % every for i in range(depth)]]
    window = hf.get("sliding_window") if hf.get("use_sliding_window") else None
    windows = read_windows(hf, window, [not flag for flag in rotated[:depth]])
    return {**read_rotary(hf, 2e6), **windows, "rotary_pattern": period(rotated[:depth])}


def _write(config):
    rotated = [int(config.rotated(i)) for i in range(config.num_layers)]
    return {**write_rotary(config), "no_rope_layers": rotated, "use_sliding_window": bool(config.window),
            "sliding_window": config.window, "layer_types": layer_types(config)}  # fmt: skip


FAMILY = Family(
    name="smollm3",
    backbone="SmolLM3Backbone",
    model_types=("smollm3",),
    architectures=architectures("SmolLM3", spans=True),
    keys={**KEYS, "attention_bias": ("qkv_bias", "out_bias"), "mlp_bias": "mlp_bias"},
    defaults={**DEFAULTS, "rotary_theta": 2e6, "rotary_pattern": (True, True, True, False), "tie_embeddings": True,
              "max_sequence_length": 32768},
    absent={"pad_token_id": 128004, "bos_token_id": 128000, "eos_token_id": 128001, "num_key_value_heads": 4},
    extra_read=_read,
    extra_write=_write,
    table=table,
    heads=heads,
    prefix="model",
    presets={"smollm3_3b": ("HuggingFaceTB/SmolLM3-3B", "3.1B", "apache-2.0")},
)  # fmt: skip
