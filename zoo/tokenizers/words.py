"""Which tokens begin a word, as their own marks tell: `##` of WordPiece, `Ġ` of byte-level BPE, `▁` of SentencePiece.

It looks at a tokenizer's vocabulary once and answers with tables by id; it knows no text.
"""

import numpy as np
from tokenizers import models


def word_tables(backend, size, special_ids):
    """Two boolean tables by token id: begins a word; ends one whatever follows (line breaks, special tokens).

    Special tokens begin words too, and single characters do if they are white space. The first table is None if the
    vocabulary marks the ends of words instead.
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
    return table(lambda token: token.startswith(spaces)), table(lambda token: token.endswith(line_break))
