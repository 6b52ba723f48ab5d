"""Encoding and decoding: cutting, padding, offsets, word starts, and the errors of what is no text."""

import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from tests.tokenizers.conftest import KINDS, ODD
from zoo.tokenizers import Tokenizer


@pytest.fixture(scope="session")
def peers(trained, tmp_path_factory):
    """The trained tokenizers as `transformers` opens them."""
    transformers = pytest.importorskip("transformers")
    found = {}
    for kind, tokenizer in trained.items():
        directory = tmp_path_factory.mktemp(kind)
        tokenizer.save(directory)
        found[kind] = transformers.AutoTokenizer.from_pretrained(directory)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [4, 7, 16, 33])
def test_cutting_is_that_of_transformers(trained, peers, prose, kind, length):
    texts = [text[:40] for text in prose] + [text[:9] for text in prose] + ["", "a"]
    pairs = texts[1:] + texts[:1]
    ours, theirs = trained[kind], peers[kind]
    assert ours.encode(texts, max_length=length) == theirs(texts, truncation=True, max_length=length)["input_ids"]
    expected = theirs(texts, pairs, truncation=True, max_length=length, return_token_type_ids=True)
    found = ours.encode_with_offsets(texts, pairs, max_length=length)
    assert [row.ids for row in found] == expected["input_ids"] == ours.encode(texts, pairs, max_length=length)
    assert [row.type_ids for row in found] == expected["token_type_ids"]
    assert [row.sequence_ids for row in found] == [expected.sequence_ids(i) for i in range(len(texts))]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["right", "left"])
def test_batches_are_those_of_transformers(trained, peers, prose, kind, side):
    texts, pairs = [text[:60] for text in prose], [text[:30] for text in prose[::-1]]
    theirs = peers[kind]
    theirs.padding_side = side
    expected = theirs(texts, pairs, truncation=True, max_length=50, padding="longest", return_tensors="np",
                      return_token_type_ids=True)  # fmt: skip
    found = trained[kind].batch(texts, pairs, max_length=50, padding_side=side)
    assert sorted(found) == ["padding_mask", "token_ids", "token_type_ids"]
    assert all(array.dtype == "int32" for array in found.values())
    np.testing.assert_array_equal(found["token_ids"], expected["input_ids"])
    np.testing.assert_array_equal(found["padding_mask"], expected["attention_mask"])
    np.testing.assert_array_equal(found["token_type_ids"], expected["token_type_ids"])


def test_batches_of_a_given_width(trained):
    tokenizer = trained["bpe"]
    batch = tokenizer.batch(["a b", ""], pad_to=6)
    assert batch["token_ids"].shape == (2, 6) and sorted(batch) == ["padding_mask", "token_ids"]
    assert batch["padding_mask"].tolist() == [[1, 1, 0, 0, 0, 0], [0] * 6]
    assert tokenizer.batch([], pad_to=3)["token_ids"].shape == (0, 3)
    assert tokenizer.batch([])["token_ids"].shape == (0, 0)
    with pytest.raises(ValueError, match="has 2 tokens, more than pad_to=1: give max_length=1 too"):
        tokenizer.batch(["a b"], pad_to=1)
    with pytest.raises(ValueError, match="padding_side must be 'right' or 'left', got 'top'"):
        tokenizer.batch(["a"], padding_side="top")
    with pytest.raises(ValueError, match="batch takes a list of texts"):
        tokenizer.batch("a b")


def test_padding_without_a_pad_token_is_marked_by_the_mask(prose):
    tokenizer = Tokenizer.train(prose[:5], "bpe", 300, special_tokens={"pad": None, "eos": "<e>"})
    batch = tokenizer.batch(["a b", "a"])
    assert batch["token_ids"][1, -1] == tokenizer.eos_id
    assert batch["padding_mask"].tolist() == [[1, 1], [1, 0]]


@pytest.mark.parametrize("kind", KINDS)
def test_offsets_point_at_the_words(trained, prose, kind):
    """Every character but white space is covered, in order, and each token's characters are its own."""
    for text in [*prose[:10], *ODD]:
        if kind != "bpe" and text in ODD:
            continue  # their normalizers change the characters
        encoding = trained[kind].encode_with_offsets(text)
        covered, at = np.zeros(len(text), bool), 0
        for id, (start, end), word in zip(encoding.ids, encoding.offsets, encoding.word_ids):
            assert start >= 0 and end <= len(text)
            if word is None:
                assert (start, end) == (0, 0) and id in trained[kind].special_ids
                continue
            assert not text[start:end][:1].isspace()
            if kind == "wordpiece":
                assert text[start:end] == trained[kind].id_to_token(id).removeprefix("##")
            covered[start:end] = True
            assert end >= at
            at = end
        assert all(done or char.isspace() for done, char in zip(covered, text))


def test_offsets_are_those_of_transformers(trained, peers, prose):
    text = "".join(prose[:5])
    expected = peers["wordpiece"](text, "a pair", return_offsets_mapping=True)
    found = trained["wordpiece"].encode_with_offsets(text, "a pair")
    assert found.offsets == expected["offset_mapping"]
    assert found.word_ids == expected.word_ids()


@pytest.mark.parametrize("kind", KINDS)
def test_one_and_many(trained, prose, kind):
    tokenizer = trained[kind]
    many = tokenizer.encode(prose[:8])
    assert many == [tokenizer.encode(text) for text in prose[:8]] == tokenizer.encode(tuple(prose[:8]))
    assert tokenizer.encode_with_offsets(prose[:3]) == [tokenizer.encode_with_offsets(text) for text in prose[:3]]
    assert tokenizer.decode(many) == [tokenizer.decode(ids) for ids in many]
    batch = tokenizer.batch(prose[:8], add_special_tokens=False)
    assert tokenizer.decode(batch["token_ids"]) == tokenizer.decode(many)
    assert [tokenizer.token_to_id(token) for token in tokenizer.tokenize(prose[0])] == tokenizer.encode(
        prose[0], add_special_tokens=False
    )
    assert tokenizer.encode([]) == [] and tokenizer.decode([]) == "" and tokenizer.decode([[], [0]]) == ["", ""]


def test_decoding_special_tokens(trained):
    tokenizer = trained["wordpiece"]
    ids = tokenizer.encode("the list")
    assert tokenizer.decode(ids) == "the list"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "[CLS] the list [SEP]"


@pytest.mark.parametrize("kind", KINDS)
def test_word_starts(trained, prose, kind):
    """Against the words of the text itself: a word starts where white space (BERT: or punctuation) ends."""
    tokenizer = trained[kind]
    text = "".join(prose[:10])
    encoding = tokenizer.encode_with_offsets(text, add_special_tokens=False)
    starts = tokenizer.whole_word_starts(encoding.ids)
    if kind == "wordpiece":
        words = np.array(encoding.word_ids)
        np.testing.assert_array_equal(starts, np.diff(words, prepend=-1) != 0)
    else:
        groups = np.split(encoding.ids, np.flatnonzero(starts)[1:])
        words = [word.strip() for word in tokenizer.decode([group.tolist() for group in groups])]
        assert [word for word in words if word] == text.split()


def test_word_starts_after_special_tokens_and_in_rows(trained):
    tokenizer = trained["bpe"]
    ids = tokenizer.encode("over<|endoftext|>overrun")
    starts = tokenizer.whole_word_starts(ids)
    after = ids.index(tokenizer.eos_id) + 1
    assert starts[0] and starts[after - 1] and starts[after]
    rows = np.array([ids, ids[::-1]])
    np.testing.assert_array_equal(tokenizer.whole_word_starts(rows)[0], starts)
    assert tokenizer.whole_word_starts(np.zeros((2, 0), int)).shape == (2, 0)
    assert tokenizer.word_start_table.shape == (tokenizer.vocabulary_size,)
    with pytest.raises(ValueError, match="The id 1500 is outside the vocabulary of 1500 tokens"):
        tokenizer.whole_word_starts([1500])


def test_a_vocabulary_that_marks_word_ends_tells_no_starts():
    model = tokenizers.models.BPE({"a": 0, "b</w>": 1}, [], end_of_word_suffix="</w>")
    tokenizer = Tokenizer(tokenizers.Tokenizer(model))
    assert tokenizer.word_start_table is None
    with pytest.raises(ValueError, match="marks where words end"):
        tokenizer.whole_word_starts([0])


def _encode_elsewhere(tokenizer, text):
    return tokenizer.encode(text), tokenizer.fingerprint, tokenizer.special_ids, tokenizer.pad_id


def test_pickling_to_a_spawned_process(trained, prose):
    tokenizer = trained["unigram"]
    expected = _encode_elsewhere(tokenizer, prose[0])
    assert _encode_elsewhere(pickle.loads(pickle.dumps(tokenizer)), prose[0]) == expected
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_encode_elsewhere, (tokenizer, prose[0])) == expected


def test_threads_with_different_lengths_do_not_disturb_each_other(trained, prose):
    tokenizer, texts = trained["wordpiece"], prose[:20]
    expected = {length: tokenizer.encode(texts, max_length=length) for length in (None, 5, 50)}
    with ThreadPoolExecutor(6) as pool:
        jobs = [(length, pool.submit(tokenizer.encode, texts, max_length=length)) for length in (None, 5, 50) * 4]
        assert all(job.result() == expected[length] for length, job in jobs)


def test_added_tokens(prose):
    tokenizer = Tokenizer.train(prose[:5], "bpe", 300)
    size, text = tokenizer.vocabulary_size, "a <b> [c]"
    assert tokenizer.add_tokens(["<b>"]) == 1 and tokenizer.add_tokens(["[c]"], special=False) == 1
    assert tokenizer.add_tokens(["<b>"]) == 0
    assert tokenizer.vocabulary_size == size + 2 == len(tokenizer.word_start_table)
    assert size in tokenizer.special_ids and size + 1 not in tokenizer.special_ids
    ids = tokenizer.encode(text)
    assert {size, size + 1} < set(ids) and tokenizer.decode(ids) == "a  [c]"
    assert tokenizer.id_to_token(size) == "<b>" and tokenizer.token_to_id("<b>") == size
    assert tokenizer.id_to_token(size + 2) is tokenizer.token_to_id("<none>") is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.encode(3), "The text must be a string or a list of strings, got int"),
        (lambda t: t.encode(["a", None]), "The text must hold strings; number 1 is of type NoneType"),
        (lambda t: t.encode(["a"], [b"b"]), "The pair must hold strings; number 0 is of type bytes"),
        (lambda t: t.encode(["a", "b"], ["c"]), "Got 2 texts and 1 second texts"),
        (lambda t: t.encode(["a"], "c"), "The pair must be a string or a list of strings, got str"),
        (lambda t: t.encode("a\ud800"), "half of a surrogate pair"),
        (lambda t: t.encode("a b c", max_length=2), "max_length=2 leaves no room for text beside 2 special tokens"),
        (lambda t: t.decode([1, 99999]), "The id 99999 is outside the vocabulary of 1500 tokens"),
        (lambda t: t.decode([[1], [-1]]), "The id -1 is outside the vocabulary"),
        (lambda t: t.decode([1.5]), "Token ids must be integers, got float64"),
        (lambda t: Tokenizer(t._backend, {"eos": "<no>"}), "The eos token '<no>' is not in the vocabulary"),
        (lambda t: Tokenizer(t._backend, {"end": "[SEP]"}), "Unknown role 'end'"),
    ],
)
def test_errors(trained, call, message):
    with pytest.raises(ValueError, match=message):
        call(trained["wordpiece"])


def test_no_backend_is_imported():
    program = (
        "import sys, zoo.tokenizers; names = 'keras', 'torch', 'jax', 'tensorflow', 'transformers', 'sentencepiece'; "
        "print([name for name in names if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
