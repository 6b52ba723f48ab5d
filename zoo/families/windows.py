"""Windowed layers in a config.json: one width, and which layers have it."""


def read_windows(hf, window, pattern=(True,)):
    """Fields of `Config`: `layer_types` where it is given, else `pattern` repeated over the layers."""
    kinds = hf.get("layer_types")
    if unknown := set(kinds or ()) - {"sliding_attention", "full_attention"}:
        raise ValueError(f"layer_types with {sorted(unknown)} are not supported.")
    local = tuple(kind == "sliding_attention" for kind in kinds) if kinds else tuple(pattern)
    if not window or not any(local):
        return {"window": None}
    return {"window": window, "window_pattern": period(local)}


def period(pattern):
    """The shortest beginning of a tuple or list that repeats to give all of it."""
    size = next(p for p in range(1, len(pattern) + 1) if all(x == pattern[i % p] for i, x in enumerate(pattern)))
    return tuple(pattern[:size])


def layer_types(config):
    """The kind of each layer, as `transformers` names them."""
    return ["sliding_attention" if config.windowed(i) else "full_attention" for i in range(config.num_layers)]
