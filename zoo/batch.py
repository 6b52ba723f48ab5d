"""The batch: the one dictionary between data and model, and what is wrong with one that breaks the contract.

Numpy only. Checks read what lies in host memory; tensors inside a compiled step are let through.
"""

import numpy as np

KEYS = ("token_ids", "padding_mask", "segment_ids", "positions", "token_type_ids", "mask_positions",
        "decoder_token_ids", "decoder_padding_mask", "decoder_segment_ids", "decoder_positions")  # fmt: skip


def check_batch(inputs, config):
    """Raises a ValueError that names the key, the value and the remedy if `inputs` can't be fed to a model.

    Args:
        inputs: dictionary of (b, t) integer arrays, see `KEYS`.
        config: the model's `Config`.

    >>> import numpy as np
    >>> from zoo.config import Config
    >>> config = Config(vocabulary_size=10, num_layers=1, num_heads=1, hidden_dim=2, intermediate_dim=2)
    >>> check_batch({"token_ids": np.array([[11]])}, config)
    Traceback (most recent call last):
    ValueError: token_ids holds 11, but the vocabulary has ids 0 to 9: is this the tokenizer the model was made for?
    """
    if not isinstance(inputs, dict):
        raise ValueError(
            f"A model takes a dictionary such as {{'token_ids': ids}} with ids of shape (batch, time), "
            f"got {type(inputs).__name__}."
        )
    if unknown := [key for key in inputs if key not in KEYS]:
        raise ValueError(f"Unknown input {unknown[0]!r}; a model takes {', '.join(KEYS)}.")
    needed = ("token_ids", "decoder_token_ids") if config.architecture == "encoder_decoder" else ("token_ids",)
    for key in needed:
        if key not in inputs:
            raise ValueError(f"The input {key!r} is missing; this model needs {' and '.join(needed)}.")
    packed = inputs.get("segment_ids")
    if len(needed) > 1 and isinstance(packed, np.ndarray) and packed.max(initial=0) > 1:
        if "decoder_segment_ids" not in inputs:
            raise ValueError("segment_ids packs several documents a row: decoder_segment_ids must say which is which.")
    for side in ("", "decoder_"):
        if side + "token_ids" in inputs:
            _check_side(inputs, side, config)


def _check_side(inputs, side, config):
    ids = inputs[side + "token_ids"]
    if len(ids.shape) != 2:
        raise ValueError(f"{side}token_ids must have shape (batch, time), got {tuple(ids.shape)}.")
    length = ids.shape[1]
    limit = config.position_limit
    if None not in (limit, length) and length > limit:
        raise ValueError(
            f"{side}token_ids has {length} positions, but the model has {limit}: "
            "truncate the text, or build the backbone with a larger max_sequence_length."
        )
    for key in ("padding_mask", "segment_ids", "positions") + (() if side else ("token_type_ids",)):
        value = inputs.get(side + key)
        if value is not None and None not in (*ids.shape, *value.shape) and tuple(value.shape) != tuple(ids.shape):
            raise ValueError(f"{side}{key} has shape {tuple(value.shape)}, {side}token_ids {tuple(ids.shape)}.")
    _check_range(side + "token_ids", ids, config.vocabulary_size, "the vocabulary has ids",
                 "is this the tokenizer the model was made for?")  # fmt: skip
    _check_range(side + "positions", inputs.get(side + "positions"), limit, "the model has positions",
                 "use a larger max_sequence_length.")  # fmt: skip
    if not side:
        _check_range("token_type_ids", inputs.get("token_type_ids"), config.num_token_types or None,
                     "the model has types", "leave them out, or set num_token_types.")  # fmt: skip
        _check_range("mask_positions", inputs.get("mask_positions"), length, "the input has positions", "check them.")


def _check_range(key, values, size, what, remedy):
    if not isinstance(values, np.ndarray) or size is None or not values.size:
        return
    if not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"{key} must hold integers, got {values.dtype}.")
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= size:
        raise ValueError(f"{key} holds {low if low < 0 else high}, but {what} 0 to {size - 1}: {remedy}")
