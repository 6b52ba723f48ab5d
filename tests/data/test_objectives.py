"""Objectives against their papers' numbers, against closed forms, and by putting back what they took out."""

import math

import numpy as np
import pytest

from zoo.data import BARTDenoising, CausalLM, MaskedLM, SpanCorruption
from zoo.data.objectives.span_corruption import _composition
from zoo.data.rows import RowRandom, Rows

PAD, BOS, EOS, MASK = 0, 1, 2, 3


def rows_of(rng, count, length, documents=1, padding=0):
    """Random rows of ordinary ids in `documents` equal segments, the last `padding` places empty."""
    token_ids = rng.integers(44, 1000, (count, length)).astype("int32")
    segment = 1 + np.arange(length) * documents // max(1, length - padding)
    segment[length - padding :] = 0
    token_ids[:, length - padding :] = PAD
    segments = np.broadcast_to(segment.astype("int32"), (count, length))
    return Rows(token_ids, segments, np.zeros_like(token_ids))


def random_of(count, seed=0):
    return RowRandom(seed, np.zeros(count, int), np.arange(count))


def test_causal_labels_stay_in_their_document(specials):
    tokens = [[1, 50, 51, 2, 1, 60, 2, 0]]
    rows = Rows(*(np.array(a, "int32") for a in (tokens, [[1, 1, 1, 1, 2, 2, 2, 0]], [[0, 1, 2, 3, 0, 1, 2, 0]])))
    x, y, w = CausalLM().bind(specials, 7)(rows, None)
    assert x["token_ids"].tolist() == [[1, 50, 51, 2, 1, 60, 2]]
    assert x["segment_ids"].tolist() == [[1, 1, 1, 1, 2, 2, 2]] and x["positions"].tolist() == [[0, 1, 2, 3, 0, 1, 2]]
    assert y.tolist() == [[50, 51, 2, 1, 60, 2, 0]]
    assert w.tolist() == [[1, 1, 1, 0, 1, 1, 0]]


def test_masked_lm_has_berts_shares(specials, rng):
    rows = rows_of(rng, 400, 128)
    x, y, w = MaskedLM().bind(specials, 128)(rows, random_of(400))
    assert x["mask_positions"].shape == y.shape == w.shape == (400, math.ceil(0.15 * 128))
    assert (w.sum(axis=1) == round(0.15 * 128)).all()
    seen = np.take_along_axis(x["token_ids"], x["mask_positions"], axis=1)[w > 0]
    truth = np.take_along_axis(rows.token_ids, x["mask_positions"], axis=1)[w > 0]
    assert np.array_equal(y[w > 0], truth)
    spread = 4 * np.sqrt(0.25 / len(seen))  # four standard deviations of a share
    assert (seen == MASK).mean() == pytest.approx(0.8, abs=spread)
    assert (seen == truth).mean() == pytest.approx(0.1, abs=spread)
    assert ((seen != truth) & (seen != MASK)).mean() == pytest.approx(0.1, abs=spread)
    untouched = np.ones_like(rows.token_ids, bool)
    np.put_along_axis(untouched, x["mask_positions"], False, axis=1)
    assert np.array_equal(x["token_ids"][untouched], rows.token_ids[untouched])
    chosen = np.bincount(x["mask_positions"][w > 0], minlength=128) / 400  # every place equally often
    assert np.abs(chosen - 19 / 128).max() < 5 * np.sqrt(0.15 * 0.85 / 400)


@pytest.mark.parametrize("whole_word", [False, True])
def test_masked_lm_leaves_special_tokens_and_padding(specials, rng, whole_word):
    rows = rows_of(rng, 50, 64, documents=3, padding=10)
    rows.token_ids[:, ::9] = rng.integers(0, 44, rows.token_ids[:, ::9].shape)
    x, y, w = MaskedLM(whole_word=whole_word).bind(specials, 64)(rows, random_of(50))
    ordinary = (rows.segment_ids > 0) & (rows.token_ids >= 44)
    chosen = np.zeros_like(ordinary)
    for row in range(50):
        places = x["mask_positions"][row, w[row] > 0]
        assert len(set(places)) == len(places) and (np.diff(places) > 0).all()
        chosen[row, places] = True
    assert not (chosen & ~ordinary).any()
    if not whole_word:
        assert (chosen.sum(1) == np.round(0.15 * ordinary.sum(1))).all()
    assert (y[w == 0] == 0).all() and (x["mask_positions"][w == 0] == 0).all()
    empty = rows_of(rng, 2, 64, padding=64)
    assert MaskedLM().bind(specials, 64)(empty, random_of(2))[2].sum() == 0


def test_whole_words_are_masked_together(specials, rng):
    rows = rows_of(rng, 300, 128, documents=2)
    x, _y, w = MaskedLM(whole_word=True).bind(specials, 128)(rows, random_of(300))
    for row in range(300):
        start = specials.word_start_table[rows.token_ids[row]].copy()
        start[[0, 64]] = True
        word = np.cumsum(start)
        places = x["mask_positions"][row, w[row] > 0]
        for one in np.unique(word[places]):
            assert (word[places] == one).sum() == (word == one).sum()
    assert w.sum(axis=1).max() == round(0.15 * 128) and w.sum(axis=1).mean() > 0.98 * 0.15 * 128


@pytest.mark.parametrize(
    "length, rate, span, raw, targets",
    [(512, 0.15, 3.0, 568, 114), (114, 0.15, 3.0, 126, 26), (512, 0.5, 3.0, 767, 513), (512, 0.15, 8.0, 588, 100)],
)
def test_span_lengths_are_those_of_t5(specials, length, rate, span, raw, targets):
    specials.sentinel_ids = list(range(4, 904))
    objective = SpanCorruption(rate, span).bind(specials, length)
    assert (objective.row_length, objective.target_length) == (raw, targets)
    noise = round(raw * rate)
    assert (raw - noise + round(noise / span) + 1, noise + round(noise / span) + 1) == (length, targets)


def put_back(x, y, objective):
    """The raw row of a span corruption: each sentinel of the input replaced by what follows it in the target."""
    source = [(t, s) for t, s in zip(x["token_ids"].tolist(), x["segment_ids"].tolist()) if t != EOS]
    spans, current = [], None
    for token in y.tolist():
        if token in objective.sentinels:
            current = (token, [])
            spans.append(current)
        elif token != EOS:
            current[1].append(token)
    spans = iter(spans)
    out = []
    for token, _ in source:
        if token in objective.sentinels:
            sentinel, content = next(spans)
            assert sentinel == token
            out += content
        else:
            out.append(token)
    return out


@pytest.mark.parametrize("documents", [1, 7])
def test_spans_put_back_give_the_row(specials, rng, documents):
    objective = SpanCorruption().bind(specials, 256)
    rows = rows_of(rng, 40, objective.row_length, documents)
    x, y, w = objective(rows, random_of(40))
    assert x["token_ids"].shape == (40, 256) and y.shape == w.shape == (40, objective.target_length)
    assert (x["token_ids"][:, -1] == EOS).all() and (y[:, -1] == EOS).all()
    for row in range(40):
        one = {key: value[row] for key, value in x.items()}
        assert put_back(one, y[row], objective) == rows.token_ids[row].tolist()
        for segment in range(1, documents + 1):  # sentinels in order, from the first, in each document
            ours = y[row][x["decoder_segment_ids"][row] == segment]
            sentinels = ours[(ours >= 4) & (ours < 44)]
            assert sentinels.tolist() == list(range(4, 4 + len(sentinels)))
            theirs = one["token_ids"][one["segment_ids"] == segment]
            assert theirs[(theirs >= 4) & (theirs < 44)].tolist() == sentinels.tolist()


def test_packed_span_targets_are_of_their_document_only(specials, rng):
    objective = SpanCorruption().bind(specials, 256)
    rows = rows_of(rng, 40, objective.row_length, documents=7)
    rows.token_ids[:] = 100 * rows.segment_ids + rows.token_ids % 100  # the document can be read off a token
    x, y, w = objective(rows, random_of(40))
    ordinary = (w > 0) & (y >= 44)
    assert np.array_equal(y[ordinary] // 100, x["decoder_segment_ids"][ordinary])
    assert ((y >= 44) & (w == 0)).sum() > 0  # some spans did run over a boundary
    inputs, segments = x["decoder_token_ids"], x["decoder_segment_ids"]
    begins = np.diff(segments, axis=1, prepend=-1) != 0
    assert (inputs[begins] == PAD).all()
    assert np.array_equal(inputs[:, 1:][~begins[:, 1:]], y[:, :-1][~begins[:, 1:]])
    assert (x["decoder_positions"][begins] == 0).all()


def test_span_corruption_of_padded_rows(specials, rng):
    objective = SpanCorruption().bind(specials, 256)
    rows = rows_of(rng, 40, objective.row_length, documents=2, padding=60)
    x, y, _w = objective(rows, random_of(40))
    for tokens, segments in ((x["token_ids"], x["segment_ids"]), (y, x["decoder_segment_ids"])):
        assert ((tokens == EOS).sum(axis=1) == 1).all()
        assert (segments[tokens == EOS] == 2).all()
        after = np.cumsum(tokens == EOS, axis=1) - (tokens == EOS)
        assert (segments[after > 0] == 0).all() and (tokens[after > 0] == PAD).all()
    assert objective(rows_of(rng, 2, objective.row_length, padding=objective.row_length), random_of(2))[2].sum() == 0


def test_random_segmentation_is_uniform():
    lengths = _composition(random_of(6000).random(6), 3)  # 7 tokens in 3 parts: C(6, 2) = 15 ways
    assert (lengths.sum(axis=1) == 7).all() and lengths.min() == 1
    ways, counts = np.unique(lengths, axis=0, return_counts=True)
    assert len(ways) == 15
    assert ((counts - 400) ** 2 / 400).sum() < 36.1  # chi-square, 14 degrees of freedom, p = 0.001
    assert _composition(random_of(2).random(0), 1).tolist() == [[1], [1]]


def test_mean_span_is_three_tokens(specials, rng):
    specials.sentinel_ids = list(range(4, 44))
    objective = SpanCorruption().bind(specials, 512)
    _, y, _ = objective(rows_of(rng, 20, objective.row_length), random_of(20))
    sentinels = ((y >= 4) & (y < 44)).sum()
    assert (y >= 44).sum() / sentinels == pytest.approx(85 / 28)  # 15 % of 568 in spans of 3


def test_bart_infills_thirty_percent_by_poisson_spans(specials, rng):
    rows = rows_of(rng, 400, 512)
    x, y, w = BARTDenoising().bind(specials, 512)(rows, random_of(400))
    assert np.array_equal(y, rows.token_ids) and (w == 1).all()
    hidden = round(0.3 * 512)
    kept = (x["token_ids"] >= 44).sum(axis=1)
    assert (kept == 512 - hidden).all()
    masks = (x["token_ids"] == MASK).sum(axis=1)
    # Spans until their lengths reach n: (n + mean overshoot) / 3 of them, the overshoot of Poisson(3) being 3 / 2.
    assert masks.mean() == pytest.approx((hidden + 1.5) / 3, abs=4 * 4.2 / 20)
    assert np.array_equal(x["decoder_token_ids"][:, 1:], y[:, :-1]) and (x["decoder_token_ids"][:, 0] == EOS).all()


def test_bart_keeps_the_rest_in_order_and_documents_apart(specials, rng):
    rows = rows_of(rng, 60, 128, documents=4, padding=20)
    rows.token_ids[:, 26::27] = EOS
    x, _, w = BARTDenoising().bind(specials, 128)(rows, random_of(60))
    assert np.array_equal(w > 0, rows.segment_ids > 0)
    for row in range(60):
        for segment in range(1, 5):
            before = rows.token_ids[row][rows.segment_ids[row] == segment].tolist()
            after = x["token_ids"][row][x["segment_ids"][row] == segment].tolist()
            remaining = iter(before)
            assert all(token in remaining for token in after if token != MASK)  # a subsequence
            assert before.count(EOS) == after.count(EOS)
            assert (len(before) > sum(token != MASK for token in after)) <= (MASK in after)
    ends = (x["segment_ids"] > 0).sum(axis=1)
    assert all((x["token_ids"][row, end:] == PAD).all() for row, end in enumerate(ends))


def test_bart_span_lengths_are_poisson(specials):
    cumulative = BARTDenoising(poisson=3.0)._cumulative
    assert np.diff(cumulative, prepend=0)[:4] == pytest.approx(np.exp(-3) * np.array([1, 3, 4.5, 4.5]))
    assert cumulative[-1] == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("objective", [MaskedLM(), MaskedLM(whole_word=True), SpanCorruption(), BARTDenoising()])
def test_a_row_does_not_depend_on_its_neighbours(specials, rng, objective):
    bound = objective.bind(specials, 128)
    rows = rows_of(rng, 8, bound.row_length, documents=3, padding=5)
    x, y, w = bound(rows, RowRandom(1, [4] * 8, range(8)))
    one = Rows(*(array[5:6] for array in (rows.token_ids, rows.segment_ids, rows.positions)))
    x5, y5, w5 = bound(one, RowRandom(1, [4], [5]))
    assert all(np.array_equal(x5[key][0], x[key][5]) for key in x)
    assert np.array_equal(y5[0], y[5]) and np.array_equal(w5[0], w[5])
    assert any(not np.array_equal(bound(one, RowRandom(1, [5], [5]))[0][key], x5[key]) for key in x)


def test_a_tokenizers_batch_and_a_numpy_generator_will_do(specials, rng):
    token_ids, padding_mask = rng.integers(44, 1000, (4, 32)), np.ones((4, 32), int)
    padding_mask[0, 20:] = 0
    batch = {"token_ids": token_ids, "padding_mask": padding_mask}
    x, _, w = MaskedLM().bind(specials, 32)(batch, np.random.default_rng(0))
    assert np.array_equal(x["segment_ids"], padding_mask) and w.sum() == round(0.15 * 20) + 3 * round(0.15 * 32)
    assert x["mask_positions"][0].max() < 20
    with pytest.raises(ValueError, match="takes Rows, or a dictionary"):
        MaskedLM().bind(specials, 32)(token_ids, rng)


def test_what_does_not_fit_is_refused(specials, numbers):
    plain = numbers()
    for objective, what in (
        (MaskedLM(), "mask"),
        (BARTDenoising(), "mask"),
        (SpanCorruption(), "eos or sep"),
    ):
        with pytest.raises(ValueError, match=f"{type(objective).__name__} needs a {what} token"):
            objective.bind(plain, 64)
    for wrong in (MaskedLM(rate=0), MaskedLM(rate=1.0), SpanCorruption(rate=1.5), BARTDenoising(rate=-0.1)):
        with pytest.raises(ValueError, match=r"rate=.* must lie (strictly between 0 and 1|in \[0, 1\))"):
            wrong.bind(specials, 64)
    with pytest.raises(ValueError, match="must add up to at most 1"):
        MaskedLM(mask_share=0.8, random_share=0.3).bind(specials, 64)
    with pytest.raises(
        ValueError, match=r"needs 57 sentinels at sequence_length=1024, .* tokenizer.add_sentinels\(57\)"
    ):
        SpanCorruption().bind(specials, 1024)
    with pytest.raises(ValueError, match="do not fit sequence_length=64"):
        SpanCorruption(rate=0.9, mean_span=1).bind(specials, 64)
    with pytest.raises(ValueError, match="sequence_length=1 "):
        CausalLM().bind(specials, 1)
    with pytest.raises(ValueError, match="not bound"):
        CausalLM()(None, None)
    with pytest.raises(ValueError, match="rows of 65 tokens, got 64"):
        CausalLM().bind(specials, 64)({"token_ids": np.ones((1, 64)), "padding_mask": np.ones((1, 64))}, None)
