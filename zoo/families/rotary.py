"""Rotary position embeddings in a config.json: the keys before and after `rope_parameters`, both read and written.

What a scaling leaves to be derived is derived here, as `transformers` does, so that `Config` holds plain numbers.
"""

import math

_NEEDED = {
    "default": (), "linear": ("factor",), "dynamic": ("factor",), "yarn": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"), "longrope": ("short_factor", "long_factor"),
}  # fmt: skip
_TRAINED = "original_max_position_embeddings"


def read_rotary(hf, theta=10000.0):
    """Fields of `Config` from either spelling; a kind of scaling that we do not compute is an error."""
    values = hf.get("rope_parameters") or hf.get("rope_scaling") or {}
    kind = values.get("rope_type", values.get("type", "default"))
    kind = "longrope" if "short_factor" in values else kind  # the first files of Phi-3 call it su, or yarn
    fields = {"rotary_theta": float(values.get("rope_theta") or hf.get("rope_theta") or theta), "rotary_scaling": None}
    fraction = values.get("partial_rotary_factor", hf.get("partial_rotary_factor"))
    if fraction is not None:
        fields["rotary_fraction"] = float(fraction)
    if kind not in _NEEDED:
        raise ValueError(f"rope_scaling of type {kind!r} is not supported, only {', '.join(_NEEDED)}.")
    longest = hf.get("max_position_embeddings")
    trained = hf.get(_TRAINED) or values.get(_TRAINED) or longest
    missing = [key for key in _NEEDED[kind] if key not in values]
    if missing or (trained is None and kind not in ("default", "linear")):
        raise ValueError(f"rope_scaling of type {kind!r} lacks {', '.join(missing or [_TRAINED])}.")
    numbers = () if kind == "default" else _numbers(kind, values, trained, longest)
    return {**fields, "rotary_scaling": (kind, *numbers)} if numbers else fields


def _numbers(kind, values, trained, longest):
    """What follows the kind in `Config.rotary_scaling`; `zoo.nn.variants.scaling` says what the numbers mean."""
    if kind == "linear":
        return (values["factor"],)
    if kind == "dynamic":
        return values["factor"], longest
    if kind == "llama3":
        return *(values[key] for key in _NEEDED[kind]), trained
    factor, (mscale, mscale_all) = values.get("factor"), (values.get(key) for key in ("mscale", "mscale_all_dim"))
    factor, sharpening = factor or (longest or trained) / trained, values.get("attention_factor")
    if sharpening is None:
        sharpening = _sharpening(kind, factor, trained)
        if kind == "yarn" and mscale and mscale_all:
            sharpening = _sharpening(kind, factor, trained, mscale) / _sharpening(kind, factor, trained, mscale_all)
    if kind == "longrope":
        return trained, sharpening, *values["short_factor"], *values["long_factor"]
    turns = values.get("beta_fast") or 32, values.get("beta_slow") or 1
    return factor, trained, *turns, sharpening, bool(values.get("truncate", True))


def _sharpening(kind, factor, trained, mscale=1):
    """The factor on rotated queries and keys that the papers recommend."""
    if factor <= 1:
        return 1.0
    if kind == "yarn":
        return 0.1 * mscale * math.log(factor) + 1
    return math.sqrt(1 + math.log(factor) / math.log(trained))


def write_rotary(config):
    """The inverse, in both spellings; what can be derived is left out."""
    kind, *values = config.rotary_scaling or ("default",)
    scaling = {"rope_type": kind, **dict(zip(_NEEDED[kind], values))}
    trained = {}
    if kind == "llama3":
        scaling[_TRAINED] = values[-1]
    if kind == "yarn":
        factor, scaling[_TRAINED], fast, slow, sharpening, whole = values
        given = {"beta_fast": fast, "beta_slow": slow, "truncate": whole, "attention_factor": sharpening}
        usual = {"beta_fast": 32, "beta_slow": 1, "truncate": True,
                 "attention_factor": _sharpening(kind, factor, scaling[_TRAINED])}  # fmt: skip
        scaling |= {key: value for key, value in given.items() if value != usual[key]}
    if kind == "longrope":
        length, sharpening, *factors = values
        half, trained = len(factors) // 2, {_TRAINED: length}
        scaling |= {"short_factor": factors[:half], "long_factor": factors[half:], **trained}
        if sharpening != _sharpening(kind, config.max_sequence_length / length, length):
            scaling["attention_factor"] = sharpening
    fraction = {} if config.rotary_fraction == 1.0 else {"partial_rotary_factor": config.rotary_fraction}
    return {
        "rope_theta": config.rotary_theta,
        **fraction,
        **trained,
        "rope_scaling": scaling if config.rotary_scaling else None,
        "rope_parameters": {**scaling, "rope_theta": config.rotary_theta, **fraction},
    }
