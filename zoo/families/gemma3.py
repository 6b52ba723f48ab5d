"""Gemma 3's text models (Kamath et al. 2025): Gemma 2 with normalised queries and keys, one layer in six global."""

from zoo.families.family import Family
from zoo.families.gemma import GEMMA_ABSENT, GEMMA_DEFAULTS, ONE_WAY, TANH, scaled
from zoo.families.gemma2 import KEYS, read_scale, write_scale
from zoo.families.gemma2 import table as gemma2_table
from zoo.families.llama import heads
from zoo.families.rotary import read_rotary, write_rotary
from zoo.families.rows import norm
from zoo.families.windows import layer_types, read_windows


def read_two_rotaries(hf, theta, local_theta, local_key):
    """Windowed layers rotate at a rate of their own; before `rope_parameters` it had a key of its own."""
    both = hf.get("rope_parameters") or {}
    inner = read_rotary({**hf, "rope_parameters": both.get("full_attention")}, theta)
    local = both.get("sliding_attention") or {"rope_theta": hf.get(local_key)}
    if local.get("rope_type", "default") != "default":
        raise ValueError(f"rope_parameters of sliding_attention {local!r} are not supported, only the default type.")
    return {**inner, "rotary_local_theta": float(local.get("rope_theta") or local_theta)}


def write_two_rotaries(config, local_key):
    """The inverse, in both spellings."""
    full, theta = write_rotary(config), config.rotary_local_theta
    local = {"rope_type": "default", "rope_theta": theta}
    parts = {"full_attention": full["rope_parameters"], "sliding_attention": local}
    return {**full, local_key: theta, "rope_parameters": parts}


def _read(hf):
    every = hf.get("sliding_window_pattern") or 6
    windows = read_windows(hf, hf["sliding_window"], [True] * (every - 1) + [False])
    return {**read_scale(hf), **read_two_rotaries(hf, 1e6, 1e4, "rope_local_base_freq"), **windows}


def _write(config):
    return {**write_scale(config), **write_two_rotaries(config, "rope_local_base_freq"),
            "sliding_window": config.window, "layer_types": layer_types(config)}  # fmt: skip


def _table(config):
    ours, theirs = "decoder/block_{}/attn", "model.layers.{}.self_attn"
    return {
        **gemma2_table(config),
        **norm(f"{ours}/query_norm", f"{theirs}.q_norm", bias=False),
        **norm(f"{ours}/key_norm", f"{theirs}.k_norm", bias=False),
    }


FAMILY = Family(
    name="gemma3",
    backbone="Gemma3Backbone",
    model_types=("gemma3_text",),
    architectures={"CausalLM": "Gemma3ForCausalLM", "TextClassifier": "Gemma3TextForSequenceClassification",
                   "Backbone": "Gemma3TextModel"},
    keys=KEYS,
    defaults={**GEMMA_DEFAULTS, "norm_order": "sandwich", "qk_norm": "head", "window": 4096,
              "window_pattern": (True,) * 5 + (False,), "rotary_theta": 1e6, "rotary_local_theta": 1e4,
              "max_sequence_length": 131072},
    derived=scaled,
    fixed={**ONE_WAY, "hidden_activation": TANH},
    absent={**GEMMA_ABSENT, "num_key_value_heads": 4, "query_pre_attn_scalar": 256, "sliding_window": 4096},
    extra_read=_read,
    extra_write=_write,
    table=_table,
    heads=heads,
    prefix="model",
    presets={
        "gemma3_270m": ("google/gemma-3-270m", "268M", "gemma"),
        "gemma3_1b": ("google/gemma-3-1b-pt", "1.0B", "gemma"),
    },
)  # fmt: skip
