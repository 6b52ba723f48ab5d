"""Sentences and passages in rows of tokens: where they end, which is the longest text of a row, where to cut it.

A sentence ends with a token whose text ends in a full stop, a question or an exclamation mark (of Latin, Chinese,
Arabic or Devanagari script), or in a line break. Tokens tell no more: the dot of an abbreviation passes for an end.
"""

import re

import numpy as np

from zoo.data.rows import Documents

_END = re.compile(r"""([.!?…。！？．।؟۔][)\]"'’”»）」』]*|\n)\s*$""")


def sentence_ends(tokenizer):
    """(vocabulary_size,) bool: whether a sentence ends with a token."""
    texts = tokenizer.decode([[i] for i in range(tokenizer.vocabulary_size)])
    return np.array([bool(_END.search(text)) for text in texts])


def longest(segment_ids):
    """The longest document of each row: its first column and its length, both (b,); length 0 in a row without one."""
    documents = Documents(segment_ids)
    start, length = (np.zeros(segment_ids.shape, "int64") for _ in range(2))
    start[documents.row, documents.number] = documents.start
    length[documents.row, documents.number] = documents.length
    first = np.argmax(length, axis=1)[:, None]
    return tuple(np.take_along_axis(values, first, axis=1)[:, 0] for values in (start, length))


def cut(ends, start, length, scores):
    """A place inside [start + 1, start + length) of each row, drawn from those where a sentence begins, else from all.

    Args:
        ends: (b, t) bool, whether a sentence ends with the token of a column.
        start, length: (b,), the text to be cut.
        scores: (b, t) uniform numbers.

    Returns:
        (b,), the column that the second part begins with; `start` where the text is too short.
    """
    column = np.arange(ends.shape[1])
    inside = (column > start[:, None]) & (column < (start + length)[:, None])
    begins = np.zeros_like(ends)
    begins[:, 1:] = ends[:, :-1]
    return draw((inside & begins, inside), scores, start)


def draw(choices, scores, otherwise):
    """A random column of each row, of those in the first of `choices` (b, t) that has any; else `otherwise` (b,)."""
    for choice in reversed(choices):
        found = np.argmax(np.where(choice, scores, -1.0), axis=1)
        otherwise = np.where(choice.any(axis=1), found, otherwise)
    return otherwise
