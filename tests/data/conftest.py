"""Two tokenizers: `numbers`, whose ids are what the text says, and a real one trained on a slice of pydocs."""

import hashlib
import itertools

import numpy as np
import pytest

from zoo import data


class Numbers:
    """Text "17 4 8" is the ids 17, 4, 8: so that a test can say what a batch must hold."""

    bos_id = eos_id = cls_id = sep_id = mask_id = pad_id = unk_id = None
    sentinel_ids = special_ids = ()
    word_start_table = None
    names, sentence_ids = {}, ()

    def __init__(self, vocabulary_size=1000, **ids):
        self.vocabulary_size = vocabulary_size
        vars(self).update(ids)
        self.fingerprint = hashlib.sha256(repr(sorted(vars(self).items())).encode()).hexdigest()

    def whole_word_starts(self, ids):
        starts = self.word_start_table[ids]
        starts[..., 0] = True
        return starts

    def token_to_id(self, token):
        return self.names.get(token)

    def decode(self, rows, skip_special_tokens=True):
        if len(rows) and np.ndim(rows[0]):
            return [self.decode(row) for row in rows]
        return " ".join(f"{i}{'.' * (i in self.sentence_ids)}" for i in rows)

    def encode(self, texts, add_special_tokens=False):
        assert not add_special_tokens
        return [[int(word) for word in text.split()] for text in texts]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def numbers():
    return Numbers


@pytest.fixture
def specials():
    """pad 0, bos 1, eos 2, mask 3, sentinels 4 to 43, ordinary ids 44 to 999, tokens with a name from 1000.

    Of the ordinary ids every fourth starts a word, every tenth (49, 59, …) ends a sentence.
    """
    names = ("[R]", "[S]", "[X]", "<fim_prefix>", "<fim_suffix>", "<fim_middle>")
    return Numbers(
        1006, pad_id=0, bos_id=1, eos_id=2, mask_id=3, sentinel_ids=list(range(4, 44)),
        special_ids=[*range(44), *range(1000, 1006)], word_start_table=np.arange(1006) % 4 == 0,
        names={name: 1000 + i for i, name in enumerate(names)}, sentence_ids=range(49, 1000, 10),
    )  # fmt: skip


@pytest.fixture(scope="session")
def prose():
    return list(itertools.islice(data.pydocs(), 0, None, 12))


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def write_numbers(documents):
    return data.texts([" ".join(map(str, document)) for document in documents])


@pytest.fixture
def as_texts():
    return write_numbers
