"""Training: the same text gives the same tokenizer, text comes back, special tokens lie where they should."""

import json
import os
import random
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from tests.tokenizers.conftest import KINDS, ODD
from zoo.tokenizers import Tokenizer


def random_text(rng, length=200):
    """Any code points but surrogates."""
    ranges = (range(128), range(0xD800), range(0xE000, 0x110000))
    return "".join(chr(rng.choice(rng.choice(ranges))) for _ in range(length))


def test_byte_pairs_are_lossless_on_any_text(trained):
    rng = random.Random(0)
    texts = [random_text(rng) for _ in range(300)] + ODD
    assert trained["bpe"].decode(trained["bpe"].encode(texts)) == texts


def test_characters_are_lossless_and_one_token_each(trained, prose):
    ids = trained["char"].encode(prose)
    assert trained["char"].decode(ids) == prose
    assert [len(row) for row in ids] == [len(text) for text in prose]


def test_bytes_need_no_training():
    """The ids are bytes after the special tokens, as in ByT5, whatever the text."""
    tokenizer = Tokenizer.train([], "byte")
    assert tokenizer.encode(ODD) == [[byte + 3 for byte in text.encode()] + [tokenizer.eos_id] for text in ODD]
    assert tokenizer.decode(tokenizer.encode(ODD)) == ODD
    assert tokenizer.vocabulary_size == 384 and len(tokenizer.sentinel_ids) == 125
    assert tokenizer.encode("É") != Tokenizer.train([], "byte", lowercase=True).encode("É") == tokenizer.encode("é")


def test_characters_never_seen_become_unk():
    tokenizer = Tokenizer.train(["abc"], "char")
    assert tokenizer.encode("aZc") == [tokenizer.token_to_id("a"), tokenizer.unk_id, tokenizer.token_to_id("c")]


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_words_are_lossless_up_to_white_space(trained, prose, kind):
    ids = trained[kind].encode(prose)
    assert not any(trained[kind].unk_id in row for row in ids)
    squeeze = "".join if kind == "wordpiece" else " ".join  # BERT's decoder sets punctuation as English does
    texts = prose if kind == "wordpiece" else [unicodedata.normalize("NFKC", text) for text in prose]
    expected = [squeeze(text.split()) for text in texts]
    assert [squeeze(text.split()) for text in trained[kind].decode(ids)] == expected


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_text_gives_the_same_tokenizer(trained, prose, kind, tmp_path):
    (tmp_path / "a.txt").write_text("".join(prose[:20]), encoding="utf-8")
    (tmp_path / "b.txt").write_text("".join(prose[20:]), encoding="utf-8")
    program = (
        "import sys; from zoo.tokenizers import Tokenizer; "
        "print(Tokenizer.train(sys.argv[2:], sys.argv[1], 1500).fingerprint)"
    )
    files = [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-c", program, kind, *files]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    here = Tokenizer.train([Path(file) for file in files], kind, 1500)
    assert run.stdout.strip() == here.fingerprint
    assert Tokenizer.train(iter(prose), kind, 1500).fingerprint == trained[kind].fingerprint
    assert here.fingerprint != Tokenizer.train(prose[:3], kind, 1500).fingerprint


def test_unigram_says_as_much_with_as_many_pieces_as_the_rust_trainer(trained, prose):
    """Tokens and log-likelihood of the text, against `tokenizers.trainers.UnigramTrainer` with the same rules."""
    ours = trained["unigram"]
    theirs = tokenizers.Tokenizer(tokenizers.models.Unigram())
    theirs.normalizer, theirs.pre_tokenizer = ours._backend.normalizer, ours._backend.pre_tokenizer
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=ours.vocabulary_size - 100, show_progress=False, unk_token="<unk>",
        special_tokens=["<pad>", "</s>", "<unk>"],
    )  # fmt: skip
    theirs.train_from_iterator(prose, trainer)

    def measure(backend):
        scores = np.array([score for _, score in json.loads(backend.to_str())["model"]["vocab"]])
        ids = np.concatenate([e.ids for e in backend.encode_batch(prose, add_special_tokens=False)]).astype(int)
        assert np.exp(scores[3:]).sum() == pytest.approx(1, abs=0.05)  # the pieces' scores are log-probabilities
        return len(ids), scores[ids].sum()

    (our_tokens, our_score), (their_tokens, their_score) = measure(ours._backend), measure(theirs)
    assert our_tokens <= 1.01 * their_tokens
    assert our_score >= 1.01 * their_score  # both negative


def test_default_special_tokens(trained):
    none = dict.fromkeys(("pad", "bos", "eos", "unk", "mask", "cls", "sep"))
    ids = {kind: {role: getattr(t, f"{role}_id") for role in none} for kind, t in trained.items()}
    assert ids["bpe"] == none | {"pad": 0, "bos": 0, "eos": 0}
    assert ids["char"] == none | {"pad": 0, "bos": 0, "eos": 0, "unk": 1}
    assert ids["wordpiece"] == none | {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
    assert ids["unigram"] == none | {"pad": 0, "eos": 1, "unk": 2}
    assert [trained["wordpiece"].id_to_token(i) for i in range(5)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def test_sentinels_are_the_last_ids_descending(trained):
    tokenizer = trained["unigram"]
    assert tokenizer.vocabulary_size == 1500
    assert tokenizer.sentinel_ids == list(range(1499, 1399, -1))
    assert tokenizer.id_to_token(1499) == "<extra_id_0>"
    assert tokenizer.encode("<extra_id_1> x", add_special_tokens=False)[0] == 1498
    assert set(tokenizer.sentinel_ids) < tokenizer.special_ids
    assert trained["bpe"].sentinel_ids == []
    with pytest.raises(ValueError, match="100 sentinels already"):
        tokenizer.add_sentinels(5)


def test_sentinels_can_be_added(prose):
    tokenizer = Tokenizer.train(prose[:5], "bpe", 400, num_sentinels=3)
    assert (tokenizer.vocabulary_size, tokenizer.sentinel_ids) == (400, [399, 398, 397])
    tokenizer = Tokenizer.train(prose[:5], "bpe", 400)
    before = tokenizer.fingerprint
    assert tokenizer.add_sentinels(2) == 2
    assert (tokenizer.vocabulary_size, tokenizer.sentinel_ids) == (402, [401, 400])
    assert tokenizer.fingerprint != before


def test_templates(prose):
    roles = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}
    tokenizer = Tokenizer.train(prose, "bpe", 500, special_tokens=roles, template="roberta")
    assert [tokenizer.token_to_id(token) for token in roles.values()] == [0, 1, 2, 3, 4]
    assert (tokenizer.cls_id, tokenizer.sep_id, tokenizer.token_to_id("<|endoftext|>")) == (0, 2, None)
    a, b = tokenizer.encode(["one", " two"], add_special_tokens=False)
    assert tokenizer.encode("one") == [0, *a, 2]
    assert tokenizer.encode("one", " two") == [0, *a, 2, 2, *b, 2]
    assert tokenizer.tokenize("one <mask> two")[-2:] != ["Ġ", "<mask>"]
    assert "Ġ" not in tokenizer.tokenize("the <mask> is")  # the mask takes the space before it
    tokenizer = Tokenizer.train(prose, "bpe", 500, template="t5")
    assert tokenizer.encode("one", "two")[-1] == tokenizer.eos_id == tokenizer.encode("one")[-1]
    words = Tokenizer.train(prose, "wordpiece", 500)
    a, b = words.encode(["one", "two"], add_special_tokens=False)
    assert words.encode("one", "two") == [2, *a, 3, *b, 3]
    pair = words.encode_with_offsets("one", "two")
    assert pair.type_ids == [0] * (len(a) + 2) + [1] * (len(b) + 1)


def test_special_tokens_as_a_list_or_without_a_role(prose):
    tokenizer = Tokenizer.train(prose[:5], "bpe", 300, special_tokens=["<|user|>"])
    assert tokenizer.encode("<|user|>") == [1]
    assert tokenizer.special_ids == {0, 1}
    tokenizer = Tokenizer.train(prose[:5], "bpe", 300, special_tokens={"pad": None})
    assert (tokenizer.pad_id, tokenizer.eos_id) == (None, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_lowercase(prose, kind):
    tokenizer = Tokenizer.train(prose[:10], kind, 600, lowercase=True)
    assert tokenizer.encode("The ABC of it") == tokenizer.encode("the abc of it")
    specials = {tokenizer.id_to_token(i) for i in tokenizer.special_ids}
    tokens = [tokenizer.id_to_token(i) for i in range(tokenizer.vocabulary_size)]
    if kind != "bpe":  # byte-level tokens spell bytes in letters of their own
        assert not [token for token in tokens if token not in specials and token != token.lower()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "words"}, "Unknown kind of tokenizer 'words'; known are bpe, wordpiece, unigram, char, byte"),
        ({"vocabulary_size": 200}, "vocabulary_size=200 is too small .* at least 257"),
        ({"kind": "char", "vocabulary_size": 5}, "too small .* 2 special tokens .* different characters"),
        ({"kind": "wordpiece", "vocabulary_size": 20}, "too small .* different characters"),
        ({"kind": "unigram", "vocabulary_size": 110}, "too small .* 100 sentinels: there are .* characters"),
        ({"kind": "unigram", "vocabulary_size": 100}, "too small .* at least 104"),
        ({"source": []}, "corpus is empty"),
        ({"source": [" \n", ""], "kind": "unigram"}, "corpus is empty"),
        ({"source": ["\x0e"], "kind": "unigram"}, "corpus is empty"),
        ({"source": [], "kind": "wordpiece"}, "corpus is empty"),
        ({"source": ["a", 3]}, "text 1 is of type int"),
        ({"source": "no/such/file.txt"}, "is not a file; to train on text itself give a list of strings"),
        ({"special_tokens": {"end": "<e>"}}, "unknown role 'end'"),
        ({"special_tokens": "<pad>"}, "must be a dictionary or a list, got the string '<pad>'"),
        ({"special_tokens": {"eos": ""}}, "must be non-empty strings"),
        ({"kind": "char", "special_tokens": {"unk": None}}, "needs an unk token"),
        ({"template": "roberta", "special_tokens": {"bos": None, "eos": None}}, "needs a sep and a cls token"),
        ({"template": "gpt"}, "Unknown template 'gpt'"),
    ],
)
def test_bad_arguments(prose, arguments, message):
    arguments = {"source": prose[:10], **arguments}
    with pytest.raises(ValueError, match=message):
        Tokenizer.train(arguments.pop("source"), **arguments)


def test_missing_files_are_named(tmp_path):
    (tmp_path / "a.txt").write_text("a b c")
    with pytest.raises(ValueError, match=r"b\.txt' is not a file"):
        Tokenizer.train([str(tmp_path / "a.txt"), str(tmp_path / "b.txt")])
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"c\.txt is not UTF-8"):
        Tokenizer.train(tmp_path / "c.txt")
