"""Rotary position embeddings in a config.json: the keys before and after `rope_parameters`, both read and written."""

_LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


def read_rotary(hf, theta=10000.0):
    """Fields of `Config` from either spelling; a kind of scaling that we do not compute is an error."""
    values = hf.get("rope_parameters") or hf.get("rope_scaling") or {}
    kind = values.get("rope_type", values.get("type", "default"))
    fields = {"rotary_theta": float(values.get("rope_theta") or hf.get("rope_theta") or theta), "rotary_scaling": None}
    fraction = values.get("partial_rotary_factor", hf.get("partial_rotary_factor"))
    if fraction is not None:
        fields["rotary_fraction"] = float(fraction)
    keys = {"default": (), "linear": ("factor",), "llama3": _LLAMA3}.get(kind)
    if keys is None:
        raise ValueError(f"rope_scaling of type {kind!r} is not supported, only linear and llama3.")
    if missing := [key for key in keys if key not in values]:
        raise ValueError(f"rope_scaling of type {kind!r} lacks {', '.join(missing)}.")
    return {**fields, "rotary_scaling": (kind, *(values[key] for key in keys))} if keys else fields


def write_rotary(config):
    """The inverse, in both spellings."""
    kind, *values = config.rotary_scaling or ("default",)
    scaling = {"rope_type": kind, **dict(zip({"linear": ("factor",), "llama3": _LLAMA3}.get(kind, ()), values))}
    fraction = {} if config.rotary_fraction == 1.0 else {"partial_rotary_factor": config.rotary_fraction}
    return {
        "rope_theta": config.rotary_theta,
        **fraction,
        "rope_scaling": scaling if config.rotary_scaling else None,
        "rope_parameters": {**scaling, "rope_theta": config.rotary_theta, **fraction},
    }
