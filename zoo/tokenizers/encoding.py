"""What is done with an encoding that Rust returns: cut it to a length, say where its tokens lie, stack many of them.

It knows one `tokenizers.Encoding` or a list of them, no tokenizer.
"""

from itertools import chain
from typing import NamedTuple

import numpy as np


class Encoding(NamedTuple):
    """One encoded text or pair, a list of each field by token; made by `Tokenizer.encode_with_offsets`.

    Fields: `ids`; `offsets`, (start, end) characters in the token's text without white space in front, (0, 0) for
    tokens of the template; `word_ids`, the number of the word in its text, None for the template; `type_ids`, BERT's
    sentence A/B; `sequence_ids`, 0 or 1 for the text the token is of, None for the template.
    """

    ids: list
    offsets: list
    word_ids: list
    type_ids: list
    sequence_ids: list


def inputs(text, pair):
    """A text or texts, alone or with their second ones, as the list Rust takes; a ValueError names what is no text."""
    one = isinstance(text, str)
    texts, pairs = [text] if one else text, [pair] if one and pair is not None else pair
    for name, values in (("text", texts), ("pair", [] if pairs is None else pairs)):
        if not isinstance(values, list | tuple | np.ndarray):
            raise ValueError(f"The {name} must be a string or a list of strings, got {type(values).__name__}.")
        for i, value in enumerate(values):
            if not isinstance(value, str):
                raise ValueError(f"The {name} must hold strings; number {i} is of type {type(value).__name__}.")
    if pairs is None:
        return list(texts)
    if len(pairs) != len(texts):
        raise ValueError(f"Got {len(texts)} texts and {len(pairs)} second texts: a pair has one of each.")
    return list(zip(texts, pairs))


def kept(encoding, max_length):
    """Positions that stay when an encoding is cut to `max_length` tokens; the longer text is cut, not the template."""
    if max_length is None or len(encoding) <= max_length:
        return range(len(encoding))
    owner = np.array([-1 if sequence is None else sequence for sequence in encoding.sequence_ids])
    sizes = [int((owner == 0).sum()), int((owner == 1).sum())]
    room = max_length - len(encoding) + sum(sizes)
    if room < 1:
        special = len(owner) - sum(sizes)
        raise ValueError(f"max_length={max_length} leaves no room for text beside {special} special tokens.")
    shorter = min(*sizes, room // 2)
    limits = (room - shorter, shorter) if sizes[0] > sizes[1] else (shorter, room - shorter)
    stays = owner == -1
    for sequence, limit in enumerate(limits):
        stays[np.flatnonzero(owner == sequence)[:limit]] = True
    return np.flatnonzero(stays).tolist()


def windows(encoding, max_length, overlap):
    """Positions of each window of a pair: its first text and template whole, and what there is room for of the second.

    A list of lists; windows share `overlap` tokens of the second text. One window holds all where that is possible.
    """
    count = len(encoding.sequence_ids)
    second = [i for i, owner in enumerate(encoding.sequence_ids) if owner == 1]
    if max_length is None or count <= max_length:
        return [list(range(count))]
    room = max_length - count + len(second)
    if room <= overlap:
        raise ValueError(
            f"max_length={max_length} leaves {max(room, 0)} tokens of the second text beside a first one and special "
            f"tokens of {count - len(second)}, and windows share {overlap}: shorten the first, or raise max_length."
        )
    found, others = [], set(range(count)) - set(second)
    for start in range(0, len(second) - overlap, room - overlap):
        found.append(sorted(others | set(second[start : start + room])))
    return found


def pick(values, positions):
    """The values at some positions."""
    return values if len(positions) == len(values) else [values[i] for i in positions]


def locate(encoding, texts, positions):
    """The `Encoding` of one text or pair at some positions."""
    fields = (pick(getattr(encoding, field), positions) for field in Encoding._fields)
    ids, offsets, word_ids, type_ids, sequence_ids = fields
    offsets = [
        (0, 0) if owner is None else (end - len(texts[owner][start:end].lstrip()), end)
        for (start, end), owner in zip(offsets, sequence_ids)
    ]
    return Encoding(ids, offsets, word_ids, type_ids, sequence_ids)


def stack(rows, width, padding, side):
    """Rows of ids as an int32 array (b, width), padded at one side, and its mask of what is not padding."""
    lengths = np.array([len(row) for row in rows], int)[:, None]
    column = np.arange(width)
    mask = column < lengths if side == "right" else column >= width - lengths
    out = np.full(mask.shape, padding, "int32")
    out[mask] = np.fromiter(chain.from_iterable(rows), "int32", int(lengths.sum()))
    return out, mask
