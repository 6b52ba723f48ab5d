"""What is dropped, what stays and how it is tokenized; long documents, flat memory, nothing half-written."""

import json
import os
import re
import signal
import subprocess
import sys
import tracemalloc
import unicodedata

import numpy as np
import pytest

from zoo import data
from zoo.data import Cleaning, preparation
from zoo.tokenizers import Tokenizer


class Counting:
    """A token for each piece of text, at no cost: its length. It remembers the longest piece."""

    vocabulary_size, fingerprint, longest = 1 << 17 | 1, "counting", 0

    def encode(self, texts, add_special_tokens=False):
        self.longest = max(self.longest, *map(len, texts))
        return [[len(text)] for text in texts]


@pytest.fixture(scope="module")
def bpe(prose):
    return Tokenizer.train(prose, kind="bpe", vocabulary_size=1000)


@pytest.fixture
def make(tmp_path):
    def make(texts, tokenizer, place="store", **options):
        return data.prepare(data.texts(texts), tokenizer, tmp_path / place, progress=False, **options)

    return make


def documents(store, tokenizer):
    return [tokenizer.decode(store.document(i)) for i in range(len(store))]


def test_documents_have_the_tokens_of_the_tokenizer(prose, bpe, make):
    store = make(prose, bpe)
    assert documents(store, bpe) == prose
    expected = bpe._backend.encode_batch(prose, add_special_tokens=False)
    assert all(store.document(i).tolist() == one.ids for i, one in enumerate(expected))
    held = store.manifest
    assert held["words"] == sum(len(text.encode().split()) for text in prose)
    assert held["characters"] == sum(map(len, prose)) and held["bytes"] == sum(len(text.encode()) for text in prose)


DIRTY = {
    "nearly_empty": ["", "   \n", "too short", "= = =", "一二三四五六七八九十"],
    "not_text": ["3.1415926535 8979323846 2643383279", "-" * 40, "\x01\x02\x03 some binary with letters in it",
                 "caf\ufffd \ufffd\ufffd \ufffdt\ufffd d\ufffd\ufffd bistrot du coin",
                 "half of a pair \ud83d in a good text"],
    None: ["A sentence of ordinary words.", "第一回　甄士隐梦幻识通灵　贾雨村风尘怀闺秀．",
           "مرحبا بكم في هذا الكتاب الجديد",
           "def f(x): return [y**2 for y in x if y > 0]", "Zażółć gęślą jaźń, ąćęłńóśźż 1234567890"],
}  # fmt: skip


def test_cleaning_says_why():
    for reason, texts in DIRTY.items():
        assert [Cleaning()(text)[1] for text in texts] == [reason] * len(texts)
    everything = Cleaning(None, min_characters=0, min_letters=0, max_junk=1)
    assert [everything(text) for text in DIRTY["not_text"][:4]] == [(text, None) for text in DIRTY["not_text"][:4]]
    assert everything(DIRTY["not_text"][4])[1] == "not_text"
    wide = "Ｆｕｌｌ ｗｉｄｔｈ and e\u0301 and ﬁ in one text"
    for form in ("NFC", "NFKC"):
        assert Cleaning(form)(wide)[0] == unicodedata.normalize(form, wide)
    assert Cleaning(None)(wide)[0] == wide
    for wrong in ({"normalization": "NFX"}, {"min_letters": 2}, {"max_junk": -1}, {"min_characters": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Cleaning(**wrong)


def test_every_document_is_counted_once(bpe, make, prose):
    texts = [text for reason in DIRTY.values() for text in reason] + prose[:50] + prose[:20]
    store = make(texts, bpe, cleaning=Cleaning(), deduplicate="exact")
    held = store.manifest
    assert held["dropped"] == {"nearly_empty": 5, "not_text": 5, "no_tokens": 0, "exact_duplicate": 20}
    assert held["documents_read"] == len(texts) and len(store) == held["documents"] == 5 + 50
    assert documents(store, bpe) == DIRTY[None] + prose[:50]
    said = data.summary(store)
    for line in ("85  documents read", " 5  nearly empty", "20  exact duplicate", "55  documents kept"):
        assert re.search(f"^ *{line}$", said, re.MULTILINE), said
    whole = sum(map(len, documents(store, bpe)))
    assert f"{len(store.tokens) / whole:.3f} a character" in said


def test_near_duplicates_never_straddle_the_split(bpe, make, prose, rng):
    originals = list(dict.fromkeys(text for text in prose if len(text.split()) > 30))[:150]
    texts = []
    for text in originals:
        texts.append(text)
        for number in range(2):
            words = text.split()
            words[rng.integers(len(words))] = f"replaced{number}"
            texts.append(" ".join(words))
    order = rng.permutation(len(texts))
    loose, strict = (make([texts[i] for i in order], bpe, name, deduplicate=name) for name in ("exact", "near"))
    assert loose.manifest["documents"] == len(texts)
    pairs = lambda text: set(zip(text.split(), text.split()[1:]))  # noqa: E731
    worst = []
    for store in (loose, strict):
        training, held_out = (
            [pairs(bpe.decode(store.tokens[a:b])) for a, b in zip(*part)] for part in store.split(0.2)
        )
        worst.append(max(len(a & b) / len(a | b) for a in training for b in held_out if a | b))
    assert worst[0] > 0.9 and worst[1] < 0.6
    assert strict.manifest["dropped"]["near_duplicate"] >= 0.99 * 2 * len(originals)
    first = {}
    for place in order:
        first.setdefault(place // 3, texts[place])
    kept = set(documents(strict, bpe))
    assert kept <= set(first.values())  # the first of each cluster stays


def test_a_long_document_is_tokenized_in_pieces_and_stored_as_one(bpe, make, prose, monkeypatch):
    monkeypatch.setattr(preparation, "PIECE", 300)
    long = "\n\n".join(prose[:60])
    store = make(["short " + prose[0], long, prose[1]], bpe)
    assert store.document(1).tolist() == bpe.encode(long, add_special_tokens=False)
    assert documents(store, bpe)[2] == prose[1]
    words = "字" * 1000  # nowhere to cut
    assert documents(make([words], bpe, "other"), bpe) == [words]


def test_fifty_million_characters(make):
    long = "四个字 " * 12_500_000
    tokenizer = Counting()
    tracemalloc.start()
    store = make([long, "another"], tokenizer, cleaning=Cleaning(normalization=None), deduplicate="exact")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(store) == 1 and store.document(0).astype(int).sum() == 50_000_000 == store.manifest["characters"]
    assert tokenizer.longest <= preparation.PIECE and peak < 60e6  # the text has 100 MB


@pytest.mark.parametrize("deduplicate", ["none", "near"])
def test_memory_does_not_grow_with_the_text(make, deduplicate):
    def corpus(count):
        random = np.random.default_rng(0)
        for _ in range(count):
            yield random.bytes(4000).hex(" ", 4)

    peaks = []
    for count in (300, 1200):
        tracemalloc.start()
        store = make(corpus(count), Counting(), str(count), cleaning=Cleaning(), deduplicate=deduplicate)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(store) == count
    assert peaks[1] - peaks[0] < 0.1 * store.manifest["bytes"] * 3 / 4, peaks


def test_a_store_made_in_another_way_is_stale(bpe, make, prose, cache):
    make(prose[:50], bpe, deduplicate="exact")
    assert len(make(prose[:50], bpe, deduplicate="exact")) == 50
    for options in ({}, {"deduplicate": "near"}, {"deduplicate": "exact", "cleaning": Cleaning()},
                    {"deduplicate": "exact", "validation_share": 0.1}):  # fmt: skip
        with pytest.raises(ValueError, match="stale: its options"):
            make(prose[:50], bpe, **options)
    for options in ({}, {"deduplicate": "exact"}, {"cleaning": Cleaning()}, {}):
        data.prepare(data.texts(prose[:50]), bpe, progress=False, **options)
    assert len(list((cache / "tokens").iterdir())) == 3


def test_the_share_is_remembered(bpe, make, prose):
    store = make(prose, bpe, validation_share=0.3)
    expected = np.sum(np.subtract(*store.split(0.3)[1][::-1]))
    loader = data.pretraining(store, bpe, sequence_length=32, batch_size=4)
    assert (
        loader.validation.packing.tokens - 2 * len(store.split(0.3)[1][0])
        <= expected
        <= loader.validation.packing.tokens
    )
    assert data.Store(store.directory).validation_share == 0.3 and make(prose, bpe, "b").validation_share == 0.05


def test_broken_lines_are_counted(bpe, tmp_path, prose):
    (tmp_path / "a.jsonl").write_text("\n".join(["{", *(json.dumps({"text": text}) for text in prose[:9])]))
    with pytest.raises(ValueError, match=r"a.jsonl, line 1 is no JSON"):
        data.prepare(tmp_path / "a.jsonl", bpe, tmp_path / "store", progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl"]
    source = data.sources.open(tmp_path / "a.jsonl", broken="skip")
    with pytest.warns(UserWarning, match="line 1"):
        store = data.prepare(source, bpe, tmp_path / "store", progress=False)
    assert store.manifest["broken_lines"] == 1 and "1  broken lines skipped" in data.summary(store)
    assert len(store) == 9


def test_what_cannot_be_is_refused_before_reading(bpe, make):
    def never():
        raise AssertionError("read")
        yield

    for options, message in (
        ({"deduplicate": "fuzzy"}, "deduplicate='fuzzy' is none of 'none', 'exact', 'near'"),
        ({"deduplicate": "near", "similarity": 1.5}, "similarity=1.5"),
        ({"validation_share": 1.0}, "validation_share=1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            make(never(), bpe, **options)
    with pytest.raises(ValueError, match=r"hold no text: of 2 documents none is left \(2 nearly empty"):
        make(["a", "b"], bpe, cleaning=Cleaning())
    with pytest.raises(ValueError, match="hold no text: of 0 documents"):
        make([], bpe)


@pytest.mark.parametrize("name", ["tokens.bin", "offsets.bin", "keys.bin", "manifest.json"])
def test_a_store_cut_short_is_refused(bpe, make, prose, name):
    store = make(prose[:50], bpe)
    path = store.directory / name
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match=name):
        data.Store(store.directory)
    with pytest.raises(ValueError, match=name):
        make(prose[:50], bpe)
    path.unlink()
    with pytest.raises(ValueError, match=name):
        data.Store(store.directory)


KILLED = """
import os, signal, sys
from zoo import data
from tests.data.test_prepare import Counting
def texts():
    for i in range(300):
        if i == 250:
            os.kill(os.getpid(), signal.SIGKILL)
        yield f"document {i} " * 1000
data.prepare(texts(), Counting(), sys.argv[1], deduplicate="near", progress=False)
"""


def test_killed_while_writing_leaves_no_store(tmp_path, make):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "store")], env=environment)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "store").exists()
    assert len(make(["again and again"], Counting())) == 1


def test_the_histogram_is_a_picture(bpe, make, prose, tmp_path):
    for name, texts in (("many", prose), ("one", prose[:1])):
        data.length_histogram(make(texts, bpe, name), tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob(".*.png*"))
