"""The fields of KerasHub's classes: what they are called here, and what becomes of those that are no plain pair.

Functions take the fields of a class and give fields of `Config`. It knows values, not classes and not weights.
"""

from zoo.families.rotary import read_rotary
from zoo.families.windows import period

SIZES = {name: name for name in ("vocabulary_size", "num_layers", "hidden_dim", "intermediate_dim")}
PLAIN = {**SIZES, "num_heads": "num_heads", "dropout": "dropout"}
LEARNED = {**PLAIN, "max_sequence_length": "max_sequence_length"}
TYPED = {**LEARNED, "num_segments": "num_token_types"}
GROUPED = {
    **SIZES, "num_query_heads": "num_heads", "num_key_value_heads": "num_key_value_heads",
    "layer_norm_epsilon": "norm_epsilon", "dropout": ("dropout", "attention_dropout"),
}  # fmt: skip
GEMMA = {
    **GROUPED, "head_dim": "head_dim", "attention_logit_soft_cap": "attention_softcap",
    "final_logit_soft_cap": "logit_softcap",
}  # fmt: skip
WINDOWED = ("use_sliding_window_attention", "sliding_window_size")
ROTATED = {**GROUPED, "rope_max_wavelength": "rotary_theta"}


def albert(c):
    """Embeddings that are projected, whatever their width."""
    if c["embedding_dim"] == c["hidden_dim"]:
        raise ValueError(f"embedding_dim={c['embedding_dim']} must differ from hidden_dim: equals are not projected.")
    return {}


def linear(c, key="rope_scaling_factor"):
    """Positions divided by a number."""
    return {"rotary_scaling": ("linear", c[key]) if c.get(key, 1.0) != 1.0 else None}


LLAMA3 = ("rope_frequency_adjustment_factor", "rope_low_freq_factor", "rope_high_freq_factor",
           "rope_pretraining_sequence_length")  # fmt: skip


def llama(c):
    """Llama 3.1's scaling of rotations, given whole or not at all."""
    numbers = [c.get(key) for key in LLAMA3]
    if numbers == [None] * 4:
        return {}
    if None in numbers:
        raise ValueError(f"{', '.join(LLAMA3)} need each other, got {numbers}.")
    return {"rotary_scaling": ("llama3", *numbers)}


def _window(c, size):
    return {"window": c.get("sliding_window_size", size) if c.get("use_sliding_window_attention") else None}


def qwen(c):
    """Qwen 2: windows on all layers, or on none."""
    return {**_window(c, 32768), **linear(c)}


def phi3(c):
    """Phi-3's scaling, which KerasHub calls su."""
    if c.get("rope_scaling_type") is None:
        return {}
    scaling = {f"{name}_factor": c[f"rope_scaling_{name}_factor"] for name in ("short", "long")}
    return read_rotary({
        "rope_theta": c.get("rope_max_wavelength", 10000), "rope_scaling": scaling,
        "original_max_position_embeddings": c.get("pretraining_sequence_length", 4096),
        "max_position_embeddings": c.get("max_sequence_length", 4096),
    })  # fmt: skip


def gemma(c):
    """Gemma 1 and 2, whose widths count the gate too."""
    if c.get("use_post_ffw_norm", False) != c.get("use_post_attention_norm", False):
        raise ValueError("use_post_ffw_norm and use_post_attention_norm must agree: ours has both norms or none.")
    if c["intermediate_dim"] % 2:
        raise ValueError(f"intermediate_dim={c['intermediate_dim']} must be even: it counts the gate too.")
    return {**_window(c, 4096), "intermediate_dim": c["intermediate_dim"] // 2}


def gemma3(c):
    """Gemma 3: global layers alone are scaled."""
    return {**_window(c, 1024), **linear(c, "global_rope_scaling_factor")}


_ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "gelu_approximate": "gelu_tanh", "silu": "silu", "swish": "silu"}


def t5(c):
    """An activation, as Keras writes a function or its name."""
    given = c.get("activation", "relu")
    name = given.get("config") if isinstance(given, dict) else given  # a function under its registered name
    name = name.split(">")[-1] if isinstance(name, str) else None
    if name not in _ACTIVATIONS:
        raise ValueError(f"activation={given!r} is not supported, only {', '.join(_ACTIVATIONS)}.")
    return {"activation": _ACTIVATIONS[name]}


def smollm3(c):
    """The layers that rotate."""
    depth, enabled = c["num_layers"], [bool(on) for on in c["rope_layer_enabled_list"]]
    if odd := set(c["layer_types"]) - {"full_attention", "attention"}:
        raise ValueError(f"layer_types with {sorted(odd)} are not supported, only full_attention.")
    return {"rotary_pattern": period((enabled + [True] * depth)[:depth])}
