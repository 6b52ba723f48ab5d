"""Windowed layers in a config.json: one width, and which layers have it."""


def read_windows(hf, window, pattern=(True,)):
    """Fields of `Config`: `layer_types` where it is given, else `pattern` repeated over the layers."""
    kinds = hf.get("layer_types")
    if unknown := set(kinds or ()) - {"sliding_attention", "full_attention"}:
        raise ValueError(f"layer_types with {sorted(unknown)} are not supported.")
    local = tuple(kind == "sliding_attention" for kind in kinds) if kinds else tuple(pattern)
    if not window or not any(local):
        return {"window": None}
    period = next(p for p in range(1, len(local) + 1) if all(local[i] == local[i % p] for i in range(len(local))))
    return {"window": window, "window_pattern": local[:period]}


def layer_types(config):
    """The kind of each layer, as `transformers` names them."""
    return ["sliding_attention" if config.windowed(i) else "full_attention" for i in range(config.num_layers)]
