"""What the characters of a text are: letters, digits, space, or nothing that text holds; and where it can be cut.

The kind of a character comes from its Unicode category. In scripts without spaces between words (Chinese, Japanese,
Thai and others) each character stands for a word. It knows no tokens and no documents beyond their text.
"""

import functools
import sys
import unicodedata

import numpy as np

OTHER, SPACE, LETTER, ALONE, DIGIT, JUNK = range(6)  # ALONE: a letter of a script without spaces
_KINDS = {"L": LETTER, "M": LETTER, "N": DIGIT, "Z": SPACE, "C": JUNK}
_UNSPACED = ((0x0E00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3021, 0x30FF),
             (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xA9E0, 0xA9FF), (0xF900, 0xFAFF),
             (0x1B000, 0x1B16F), (0x20000, 0x3FFFF))  # fmt: skip


def codepoints(text):
    """The characters of a text, (len(text),) uint32, halves of surrogate pairs included."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "uint32")


def kinds(codes):
    """The kind of each character: uint8, one of the constants above."""
    return _table()[codes]


def count_kinds(text):
    """How many characters of each kind a text has, (6,) int64, counted in slices so that memory stays small."""
    counts = np.zeros(6, "int64")
    for start in range(0, len(text), 1 << 20):
        counts += np.bincount(kinds(codepoints(text[start : start + (1 << 20)])), minlength=6)
    return counts


def batches(texts, size, longest):
    """Texts in batches of about `size` characters, those longer than `longest` in pieces, cut where white space begins.

    Yields: numbers (pieces,) int64 of the texts, in rising order, and a list of the pieces.
    """
    numbers, pieces, total = [], [], 0
    for number, text in enumerate(texts):
        start = 0
        while start < len(text):
            stop = start + longest
            if stop < len(text):
                space = max(text.rfind(" ", start, stop), text.rfind("\n", start, stop), start)
                kept = len(text[start:space].rstrip())
                stop = start + (kept or longest)
            numbers.append(number)
            pieces.append(text[start:stop])
            total, start = total + len(pieces[-1]), stop
            if total >= size:
                yield np.array(numbers), pieces
                numbers, pieces, total = [], [], 0
    if pieces:
        yield np.array(numbers), pieces


@functools.cache
def _table():
    table = np.array([_KINDS.get(unicodedata.category(chr(i))[0], OTHER) for i in range(sys.maxunicode + 1)], "uint8")
    for first, last in _UNSPACED:
        part = table[first : last + 1]
        part[part == LETTER] = ALONE
    table[[ord(character) for character in "\t\n\v\f\r\x1c\x1d\x1e\x1f\x85\u200b\ufeff"]] = SPACE
    table[[0x200C, 0x200D, 0xAD]] = OTHER  # joiners and the soft hyphen are part of words
    table[0xFFFD] = JUNK  # what a decoder writes where it could not read
    return table
