"""Objectives that judge tokens, pairs and orders, and masked spans: shares, distributions, the text they are from."""

import itertools

import numpy as np
import pytest

from tests.data.test_denoisers import assert_rows_stand_alone, chi_square
from tests.data.test_objectives import BOS, EOS, random_of, rows_of
from zoo import data
from zoo.data import Contrastive, MaskedLM, NextSentence, PermutationLM, ReplacedTokenDetection, SentenceOrder
from zoo.data.objectives.masked import _span_lengths
from zoo.data.objectives.passages import sentence_ends
from zoo.tokenizers import Tokenizer


def test_span_lengths_are_spanberts():
    share = np.diff(_span_lengths(), prepend=0)
    assert share[1:] / share[:-1] == pytest.approx(np.full(9, 0.8)) and share.sum() == pytest.approx(1)
    assert share @ np.arange(1, 11) == pytest.approx(3.8, abs=0.005)  # section 3.1


def masked(x, w, t):
    found = np.zeros((len(w), t), bool)
    for row in range(len(w)):
        found[row, x["mask_positions"][row, w[row] > 0]] = True
    return found


def test_masked_spans_have_spanberts_lengths_and_one_manner_each(specials, rng):
    rows = rows_of(rng, 600, 512)
    objective = MaskedLM(span=True, mask_share=1, random_share=0).bind(specials, 512)
    x, _, w = objective(rows, random_of(600))
    unit = objective._units(rows, np.ones((600, 512), bool), random_of(600).random(512))  # the same first draws
    found = masked(x, w, 512)
    lengths = []
    for row in range(600):
        for one in np.unique(unit[row][found[row]]):
            inside = unit[row] == one
            assert found[row][inside].all()
            lengths.append(inside.sum())
    assert w.sum(axis=1).mean() > 0.99 * round(0.15 * 512)
    # Spans that would exceed the budget are passed over, at the end of some twenty: a little shorter than 3.8.
    assert 3.4 < np.mean(lengths) < 3.8
    everywhere = np.concatenate([np.bincount(row)[:-1] for row in unit])  # the last of a row is cut off
    expected = np.diff(_span_lengths(), prepend=0)
    counts = np.bincount(everywhere, minlength=11)[1:]
    assert counts / counts.sum() == pytest.approx(expected, abs=0.01)

    x, _, w = MaskedLM(span=True, random_share=0).bind(specials, 512)(rows, random_of(600))
    seen = np.take_along_axis(x["token_ids"], x["mask_positions"], axis=1)
    assert (seen == specials.mask_id)[w > 0].mean() == pytest.approx(0.8, abs=4 * np.sqrt(0.16 / (77 * 600 / 3.6)))
    of = np.take_along_axis(unit, x["mask_positions"], axis=1)
    together = (of[:, 1:] == of[:, :-1]) & (w[:, 1:] > 0)
    assert np.array_equal((seen == 3)[:, 1:][together], (seen == 3)[:, :-1][together])


def test_spans_of_words_are_whole_words_within_documents(specials, rng):
    rows = rows_of(rng, 100, 256, documents=4, padding=11)
    x, _, w = MaskedLM(rate=0.3, span=True, whole_word=True).bind(specials, 256)(rows, random_of(100))
    found = masked(x, w, 256)
    start = specials.whole_word_starts(rows.token_ids) | (np.diff(rows.segment_ids, axis=1, prepend=0) != 0)
    word = np.cumsum(start, axis=1)
    real = rows.segment_ids > 0
    for row in range(100):
        for one in np.unique(word[row][found[row]]):
            assert found[row][(word[row] == one) & real[row]].all()
    joined = (found[:, 1:] & found[:, :-1] & start[:, 1:]).sum() / (found & start).sum()
    assert joined > 0.4  # words that follow a masked one; alone it would be about the rate


def test_whole_words_of_chinese_are_the_tokenizers_tokens(shared_data):
    paths = sorted((shared_data / "zh-classics").glob("*.txt"))[:2]
    text = "".join(path.read_text(encoding="utf-8")[:40000] for path in paths)
    for kind, size in (("char", 8000), ("unigram", 4000), ("bpe", 3000)):
        tokenizer = Tokenizer.train([text], kind=kind, vocabulary_size=size, special_tokens={"mask": "<mask>"})
        ids = np.array(tokenizer.encode(text, add_special_tokens=False)[:2560]).reshape(-1, 128)
        starts = tokenizer.whole_word_starts(ids)
        for row, at in itertools.product(range(3), range(1, 128)):
            before, after = (tokenizer.decode(ids[row, :end]) for end in (at, at + 1))
            if "\ufffd" not in before and after.startswith(before) and "\u4e00" <= after[len(before) :][:1] <= "\u9fff":
                assert starts[row, at]  # a token that begins with an ideograph begins a word
        rows = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
        w = MaskedLM(whole_word=True).bind(tokenizer, 128)(rows, random_of(len(ids)))[2]
        assert w.sum(axis=1).min() > 15  # 19 less what a character of three bytes can waste


def test_replaced_tokens_come_from_the_frequencies(specials, rng):
    frequencies = np.zeros(1006)
    frequencies[[50, 60, 70, 80]] = 4, 3, 2, 1
    rows = rows_of(rng, 400, 128, documents=2, padding=8)
    rows.token_ids[:, 0] = BOS
    rows.token_ids[:, 1:40] = 50
    x, y, w = ReplacedTokenDetection(frequencies=frequencies).bind(specials, 128)(rows, random_of(400))
    assert np.array_equal(y > 0, x["token_ids"] != rows.token_ids) and np.array_equal(w > 0, rows.segment_ids > 0)
    drawn = x["token_ids"][:, 40:120][y[:, 40:120] > 0]  # of other tokens, nearly every draw is a replacement
    counts = np.bincount(drawn, minlength=1006)[[50, 60, 70, 80]]
    assert counts.sum() == len(drawn)
    assert chi_square(counts, len(drawn) * np.array([0.4, 0.3, 0.2, 0.1])) < 16.3  # 3 degrees, p = 0.001
    # Of 119 ordinary tokens 18 are drawn; where 50 stood, 0.4 of the draws are no replacement (section 2).
    assert y[:, 40:120].mean() == pytest.approx(18 / 119, abs=0.01)
    assert y[:, 1:40].mean() == pytest.approx(0.6 * 18 / 119, abs=0.01) and y[:, 0].sum() == 0


def test_without_frequencies_the_stores_are_used(specials, as_texts):
    documents = [[50] * 60 + [60] * 20 for _ in range(60)]
    loader = data.pretraining(as_texts(documents), specials, ReplacedTokenDetection(0.5), 64, 8)
    counts = loader.objective.frequencies
    assert counts[[50, 60]].tolist() == [3600, 1200] and counts.sum() == 4800
    x, y, _ = loader.batch(0)
    assert set(x["token_ids"][y > 0]) == {50, 60}
    unbound = ReplacedTokenDetection(0.5).bind(specials, 64)
    assert unbound._cumulative[43] == 0 and unbound._cumulative[999] == 1


def test_a_generator_sees_masks_and_gives_the_replacements(specials, rng):
    calls = []

    def generator(x, uniform):
        calls.append(x)
        assert x["mask_positions"].shape == uniform.shape
        return np.full(uniform.shape, 77)

    rows = rows_of(rng, 20, 64)
    rows.token_ids[rows.token_ids == 77] = 78
    x, y, _ = ReplacedTokenDetection(generator=generator).bind(specials, 64)(rows, random_of(20))
    (seen,) = calls
    assert ((seen["token_ids"] == specials.mask_id).sum(axis=1) == round(0.15 * 64)).all()
    assert np.array_equal(seen["token_ids"] == specials.mask_id, y > 0) and (x["token_ids"][y > 0] == 77).all()


def passages(x, row):
    """The two passages of a pair."""
    ids = x["token_ids"][row][x["segment_ids"][row] > 0].tolist()
    assert ids[0] == BOS and ids.count(EOS) == 2 and ids[-1] == EOS
    types = x["token_type_ids"][row][: len(ids)].tolist()
    assert types == [0] * (ids.index(EOS) + 1) + [1] * (len(ids) - ids.index(EOS) - 1)
    return ids[1 : ids.index(EOS)], ids[ids.index(EOS) + 1 : -1]


def begins_sentence(rows, row, at):
    ids, segments = rows.token_ids[row], rows.segment_ids[row]
    return at == 0 or ids[at - 1] % 10 == 9 or segments[at] != segments[at - 1]


def place_of(rows, row, passage):
    """Where a passage begins in its row, whose ids are distinct."""
    at = rows.token_ids[row].tolist().index(passage[0])
    assert rows.token_ids[row, at : at + len(passage)].tolist() == passage
    return at


def distinct(rng, count, length, documents, padding=0):
    rows = rows_of(rng, count, length, documents, padding)
    for row in range(count):
        rows.token_ids[row, : length - padding] = rng.permutation(np.arange(44, 1000))[: length - padding]
    return rows


def test_next_sentences_follow_half_of_the_time(specials, rng):
    objective = NextSentence().bind(specials, 63)
    assert objective.row_length == 120
    rows = distinct(rng, 600, 120, documents=5, padding=9)
    x, y, w = objective(rows, random_of(600))
    assert y.shape == w.shape == (600,) and (w == 1).all()
    assert y.mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(600))
    cuts = starts = 0
    for row in range(600):
        first, second = passages(x, row)
        a, b = (place_of(rows, row, one) for one in (first, second))
        documents = [set(rows.segment_ids[row, at : at + len(one)]) for at, one in ((a, first), (b, second))]
        assert all(len(one) == 1 for one in documents)
        assert (b == a + len(first)) == (y[row] == 0) and (documents[0] == documents[1]) == (y[row] == 0)
        cuts += begins_sentence(rows, row, a + len(first))
        starts += begins_sentence(rows, row, b)
    assert cuts > 500 and starts > 500  # documents of 22 tokens with one end in ten: some have none inside


def test_the_only_document_gives_another_place_and_no_text_gives_no_label(specials, rng):
    rows = distinct(rng, 300, 120, documents=1)
    x, y, w = NextSentence().bind(specials, 63)(rows, random_of(300))
    assert (w == 1).all() and 0.35 < y.mean() < 0.65
    for row in np.flatnonzero(y):
        first, second = passages(x, row)
        a, b = (place_of(rows, row, one) for one in (first, second))
        assert b >= 60 and a == 0
    for padding in (119, 120):
        x, y, w = NextSentence().bind(specials, 63)(rows_of(rng, 4, 120, padding=padding), random_of(4))
        assert w.sum() == y.sum() == x["segment_ids"].sum() == 0


def test_sentence_order_is_swapped_half_of_the_time(specials, rng):
    objective = SentenceOrder().bind(specials, 43)
    rows = distinct(rng, 600, 40, documents=2)
    x, y, w = objective(rows, random_of(600))
    assert (w == 1).all() and y.mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(600))
    for row in range(600):
        first, second = passages(x, row)[:: -1 if y[row] else 1]
        assert first + second in (rows.token_ids[row, :20].tolist(), rows.token_ids[row, 20:].tolist())


def test_contrastive_views(specials, rng):
    rows = distinct(rng, 50, 30, documents=2, padding=2)
    x, y, w = Contrastive().bind(specials, 32)(rows, random_of(50))
    assert x["token_ids"].shape == (50, 2, 32) and y.tolist() == w.tolist() == [1] * 50 and "token_type_ids" not in x
    for key in x:
        assert np.array_equal(x[key][:, 0], x[key][:, 1])
    assert x["token_ids"][0, 0, :16].tolist() == [BOS, *rows.token_ids[0, :14], EOS]
    rows = distinct(rng, 50, 60, documents=1)
    x, _, _ = Contrastive("neighbours").bind(specials, 32)(rows, random_of(50))
    for row in range(50):
        before, after = (ids[1 : ids.index(EOS)] for ids in x["token_ids"][row].tolist())
        at = place_of(rows, row, before)
        assert rows.token_ids[row, at + len(before) :][: len(after)].tolist() == after
        assert len(before) == 30 or at == 0


@pytest.mark.parametrize("K, share", [(6, 1 / 6), (2, 1 / 2)])
def test_permutation_lm_predicts_one_token_in_k(specials, rng, K, share):
    rows = rows_of(rng, 500, 240)
    x, y, w = PermutationLM(K).bind(specials, 240)(rows, random_of(500))
    target = x["permutation"] > 0
    assert w.sum(axis=1).mean() / 240 == pytest.approx(share, rel=0.02)
    assert np.array_equal(masked(x, w, 240), target)
    assert np.array_equal(y[w > 0], rows.token_ids[target])
    for row in range(500):
        assert sorted(x["permutation"][row][target[row]]) == [*range(1, target[row].sum() + 1)]
    # Uniform orders: of three targets each order is as likely as any other.
    three = np.array([x["permutation"][row][target[row]][:3] for row in range(500)]).argsort(axis=1)
    counts = np.unique(three @ [9, 3, 1], return_counts=True)[1]
    assert len(counts) == 6 and chi_square(counts, 500 / 6) < 20.5  # 5 degrees of freedom, p = 0.001


def test_permutation_masks_are_the_definition(specials, rng):
    rows = rows_of(rng, 3, 60, documents=2, padding=4)
    x, _, _ = PermutationLM(3, 4).bind(specials, 60)(rows, random_of(3))
    content, query = PermutationLM.masks(x)
    for row, i, j in itertools.product(range(3), range(60), range(60)):
        rank, segment = x["permutation"][row], x["segment_ids"][row]
        same = segment[i] == segment[j] > 0
        assert query[row, i, j] == (same and (rank[j] == 0 or rank[j] < rank[i]))
        assert content[row, i, j] == (same and (rank[j] == 0 or rank[j] < rank[i] or i == j))


def test_models_refuse_a_permutation():
    from zoo.batch import check_batch
    from zoo.config import Config

    config = Config(vocabulary_size=10, num_layers=1, num_heads=1, hidden_dim=2, intermediate_dim=2)
    ids = np.ones((1, 4), "int32")
    with pytest.raises(ValueError, match="Unknown input 'permutation'"):
        check_batch({"token_ids": ids, "permutation": ids}, config)


def test_sentences_end_where_their_text_does():
    text = 'One. Two! Is it (three)? "Four." Five: six, 3.14 and\nseven. 你好。再见！'
    tokenizer = Tokenizer.train([text], kind="char", vocabulary_size=200)
    ends = {tokenizer.decode([i]) for i in np.flatnonzero(sentence_ends(tokenizer))}
    assert ends == {".", "!", "?", "\n", "。", "！"}
    words = Tokenizer.train([text] * 9, kind="bpe", vocabulary_size=300)
    ends = {words.decode([i]) for i in np.flatnonzero(sentence_ends(words))}
    assert {".", "!", "?"} <= ends and not [end for end in ends if end.strip()[-1:].isalnum()]


@pytest.mark.parametrize(
    "objective",
    [MaskedLM(span=True), ReplacedTokenDetection(), NextSentence(), SentenceOrder(), Contrastive("neighbours"),
     PermutationLM()],
    ids=lambda one: type(one).__name__,
)  # fmt: skip
def test_a_row_does_not_depend_on_its_neighbours(specials, rng, objective):
    assert_rows_stand_alone(objective.bind(specials, 64), rng)


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "char"])
def test_missing_tokens_are_added_on_request(kind, prose):
    objectives = (MaskedLM(), data.BARTDenoising(), data.SpanCorruption(), data.UL2(), data.FillInTheMiddle())
    tokenizer = Tokenizer.train(prose[:100], kind=kind, vocabulary_size=500)
    size, added = tokenizer.vocabulary_size, 0
    for objective in objectives:
        added += objective.add_tokens(tokenizer, 128)
        bound = objective.bind(tokenizer, 128)
        assert bound.is_special[size : size + added].all() or kind == "wordpiece"
        assert objective.add_tokens(tokenizer, 128) == 0
    assert tokenizer.vocabulary_size == size + added
    tokens = {tokenizer.id_to_token(i) for i in range(size, size + added)}
    assert {"[R]", "[S]", "[X]", "<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<extra_id_0>"} <= tokens


def test_what_does_not_fit_is_refused(specials, numbers):
    refused = [
        (NextSentence(), numbers(), "NextSentence needs a cls or bos token"),
        (SentenceOrder(), numbers(bos_id=1), "SentenceOrder needs a sep or eos token"),
        (Contrastive(), numbers(), "tokenizer.add_roles"),
        (Contrastive("similar"), specials, "views='similar' is neither"),
        (ReplacedTokenDetection(frequencies=np.ones(3)), specials, "must be 1006 numbers"),
        (ReplacedTokenDetection(rate=1.0), specials, "rate=1.0"),
        (ReplacedTokenDetection(generator=print), numbers(), "needs a mask token"),
        (PermutationLM(K=0), specials, "K=0 must be a positive integer"),
        (PermutationLM(K=20), specials, "windows of 100 tokens, more than sequence_length=64"),
    ]
    for objective, tokenizer, message in refused:
        with pytest.raises(ValueError, match=message):
            objective.bind(tokenizer, 64)
    with pytest.raises(ValueError, match="has a mask token already, '<m>'"):
        tokenizer = Tokenizer.train(["a b"], kind="char", special_tokens={"mask": "<m>"})
        tokenizer.add_roles({"mask": "<mask>"})
    with pytest.raises(ValueError, match="Unknown role 'hidden'"):
        tokenizer.add_roles({"hidden": "<mask>"})
