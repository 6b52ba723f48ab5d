"""What is done to a document before it is tokenized, and which documents are left out. It knows one text at a time."""

import dataclasses
import unicodedata

from zoo.data.characters import ALONE, JUNK, LETTER, SPACE, count_kinds

FORMS = (None, "NFC", "NFKC")


@dataclasses.dataclass(frozen=True)
class Cleaning:
    """Normalises documents and leaves out those that are nearly empty or not text.

    Args:
        normalization: Unicode normal form: "NFC" (one way to write é), "NFKC" (also ﬁ as fi, Ａ as A; changes how text
            looks), or None.
        min_characters: a document with fewer characters, white space aside, is left out as nearly empty.
        min_letters: a document in which less than this share of the characters, white space aside, are letters of any
            script is left out as not text: tables of numbers, rulers.
        max_junk: so is one with a greater share of control characters, unassigned or private ones, and U+FFFD, the
            trace of a wrong decoding; half of a surrogate pair is always too many.

    Raises: ValueError for an unknown form and for shares outside [0, 1].

    >>> Cleaning()("Cafe\\u0301 au lait, s'il vous plai\\u0302t")
    ("Café au lait, s'il vous plaît", None)
    >>> Cleaning()("3.14159 26535 89793 23846")
    ('3.14159 26535 89793 23846', 'not_text')
    """

    normalization: str | None = "NFC"
    min_characters: int = 20
    min_letters: float = 0.3
    max_junk: float = 0.02

    def __post_init__(self):
        if self.normalization not in FORMS:
            raise ValueError(f"normalization={self.normalization!r} is none of {', '.join(map(repr, FORMS))}.")
        if self.min_characters < 0:
            raise ValueError(f"min_characters={self.min_characters} must not be negative.")
        for name in ("min_letters", "max_junk"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie in [0, 1].")

    def __call__(self, text):
        """The text as it will be stored, and why it is left out: "nearly_empty", "not_text" or None."""
        if self.normalization and not unicodedata.is_normalized(self.normalization, text):
            text = unicodedata.normalize(self.normalization, text)
        counts = count_kinds(text)
        characters = len(text) - counts[SPACE]
        if characters < max(1, self.min_characters):
            return text, "nearly_empty"
        letters, junk = counts[LETTER] + counts[ALONE], counts[JUNK]
        if letters < self.min_letters * characters or junk > self.max_junk * characters:
            return text, "not_text"
        return text, "not_text" if junk and any("\ud800" <= character <= "\udfff" for character in text) else None
