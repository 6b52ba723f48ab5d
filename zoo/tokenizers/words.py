"""Which tokens begin a word, as their own marks tell: `##` of WordPiece, `Ġ` of byte-level BPE, `▁` of SentencePiece.

Scripts that put no space between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) have no such marks: there each
token counts as a word, and where a character takes several tokens of bytes, each character. It looks at a tokenizer's
vocabulary once and answers with tables by id; it knows no text.
"""

import re

import numpy as np
from tokenizers import models

from zoo.tokenizers.byte import byte_tokens

# Thai and Lao, Burmese, Khmer, then kana, ideographs and the punctuation and full-width forms among them.
_UNSPACED = (
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)
_BYTES = {char: i for i, char in enumerate(byte_tokens())}
_LEADS = range(0xE3, 0xEA)  # the first bytes of kana and ideographs


def word_tables(backend, size, special_ids):
    """Two boolean tables by token id: begins a word; ends one whatever follows (line breaks, special tokens).

    Special tokens begin words too, and single characters do if they are white space. The first table is None if the
    vocabulary marks the ends of words instead. A token of an unspaced script begins and ends a word.
    """
    model, vocabulary = backend.model, backend.get_vocab()
    special = np.zeros(size, bool)
    special[list(special_ids)] = True

    def table(condition):
        found = special.copy()
        found[[i for token, i in vocabulary.items() if condition(token)]] = True
        return found

    if getattr(model, "end_of_word_suffix", None):
        return None, special
    if isinstance(model, models.WordPiece):
        return table(lambda token: not token.startswith(model.continuing_subword_prefix)), special
    byte_level = "ByteLevel" in f"{backend.pre_tokenizer}{backend.decoder}"
    spaces, line_break = (("Ġ", "Ċ", "ĉ", "č"), "Ċ") if byte_level else (("▁", " ", "\n", "\t", "\r"), "\n")
    text = _decoded if byte_level else str

    def begins(token):
        lead = byte_level and _BYTES.get(token[:1]) in _LEADS
        return lead or token.startswith(spaces) or bool(re.match(_UNSPACED, text(token)))

    def ends(token):
        return token.endswith(line_break) or bool(re.search(f"{_UNSPACED}$", text(token)))

    return table(begins), table(ends)


def _decoded(token):
    """What is whole in the text of a byte-level token."""
    return bytes(_BYTES.get(char, 0) for char in token).decode("utf-8", errors="ignore")
