"""The whole way with real tokenizers: prose in, rows out that read as that prose."""

import doctest
import importlib

import numpy as np
import pytest

from zoo import data
from zoo.tokenizers import Tokenizer


@pytest.fixture(scope="module")
def bpe(prose):
    roles = {"pad": "<pad>", "bos": "<s>", "eos": "</s>", "mask": "<mask>"}
    return Tokenizer.train(prose, kind="bpe", vocabulary_size=2000, special_tokens=roles, num_sentinels=40)


@pytest.fixture(scope="module")
def wordpiece(prose):
    return Tokenizer.train(prose, kind="wordpiece", vocabulary_size=2000)


def load(prose, tokenizer, objective=None, **options):
    options = {"sequence_length": 128, "batch_size": 8, "packing": "best_fit", "progress": False} | options
    return data.pretraining(data.texts(prose), tokenizer, objective, **options)


def documents_of(x):
    for row, segments in zip(x["token_ids"], x["segment_ids"]):
        for segment in range(1, segments.max() + 1):
            yield row[segments == segment]


def test_packed_rows_read_as_the_documents(prose, bpe):
    loader = load(prose, bpe, sequence_length=1024, batch_size=4)
    assert loader.packing.padding_share < 0.02
    whole, seen = set(prose), 0
    for x, _, _ in loader:
        for ids in documents_of(x):
            if ids[0] == bpe.bos_id and ids[-1] == bpe.eos_id:
                assert bpe.decode(ids) in whole
                seen += 1
    assert seen > 0.8 * len(prose)


def test_bert_rows_mask_whole_words_between_cls_and_sep(prose, wordpiece):
    x, y, w = load(prose, wordpiece, data.MaskedLM(whole_word=True)).batch(0)
    restored = x["token_ids"].copy()
    row, place = np.nonzero(w)
    restored[row, x["mask_positions"][row, place]] = y[row, place]
    assert (restored[:, 0] == wordpiece.cls_id).all()
    for ids in documents_of({**x, "token_ids": restored}):
        assert wordpiece.sep_id not in ids[:-1] and wordpiece.cls_id not in ids[1:]
    parts = 0
    for ids, places in zip(restored, x["mask_positions"]):
        pieces = [wordpiece.id_to_token(i) for i in ids]
        for place in range(2, len(pieces)):
            if pieces[place].startswith("##") and pieces[place - 1] not in ("[CLS]", "[SEP]"):
                assert (place in places) == (place - 1 in places)
                parts += place in places
    assert parts > 10


def test_t5_targets_hold_what_the_inputs_lack(prose, bpe):
    x, y, w = load(prose, bpe, data.SpanCorruption(), packing="concatenate").batch(0)
    source, target = (bpe.decode(ids, skip_special_tokens=False) for ids in (x["token_ids"][0], y[0]))
    assert source.count("<extra_id_0>") == target.count("<extra_id_0>") >= 1
    assert source.endswith("</s>") and target.endswith("</s>") and target.startswith("<extra_id_0>")
    assert (x["decoder_token_ids"][:, 0] == bpe.pad_id).all() and w.mean() > 0.9


@pytest.mark.parametrize("objective", [data.CausalLM(), data.SpanCorruption(), data.BARTDenoising(), data.MaskedLM()])
def test_frequencies_alone_are_better_than_nothing(prose, bpe, objective):
    perplexity = load(prose, bpe, objective, batch_size=4).unigram_perplexity()
    assert 50 < perplexity < bpe.vocabulary_size / 2


def test_each_tokenizer_says_what_it_lacks(prose, wordpiece):
    with pytest.raises(ValueError, match=r"has 0: add them with tokenizer.add_sentinels\(7\)"):
        load(prose, wordpiece, data.SpanCorruption())
    plain = Tokenizer.train(prose[:200], kind="char", vocabulary_size=400)
    with pytest.raises(ValueError, match="MaskedLM needs a mask token"):
        load(prose, plain, data.MaskedLM())


def test_chinese_text_too(shared_data):
    path = next((shared_data / "zh-classics").glob("*.txt"))
    tokenizer = Tokenizer.train([path], kind="char", vocabulary_size=8000, special_tokens={"mask": "<mask>"})
    loader = data.pretraining(path, tokenizer, data.MaskedLM(), 128, 8, split="line", progress=False)
    x, y, w = loader.batch(0)
    assert (x["segment_ids"] > 0).all() and w.sum(axis=1).max() == 19
    assert all("\u4e00" <= tokenizer.decode([i]) or not tokenizer.decode([i]).isalpha() for i in y[w > 0])
    assert len(loader.store) > 1000


OBJECTIVES = ("base", "fill_in_the_middle", "infilling", "masked", "mixture", "pairs", "permutation", "prefix",
              "replaced", "ul2")  # fmt: skip


MODULES = ("cleaning", "labelled", "loader", "mixture", "packing", "preparation", "preview", "report", "rows",
           "sources", *(f"objectives.{one}" for one in OBJECTIVES))  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    result = doctest.testmod(importlib.import_module(f"zoo.data.{name}"))
    assert result.attempted and not result.failed
