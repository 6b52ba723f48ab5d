"""Prefix LM, UL2, fill in the middle, BART's noises and mixtures: what they took apart is put back, and counted."""

import itertools

import numpy as np
import pytest

from tests.data.test_objectives import BOS, EOS, MASK, PAD, put_back, random_of, rows_of
from zoo.data import UL2, BARTDenoising, CausalLM, FillInTheMiddle, MaskedLM, Mixture, PrefixLM, SpanCorruption
from zoo.data.rows import Rows

R, S, X, PRE, SUF, MID = range(1000, 1006)


def of_document(ids, segments, number):
    return ids[segments == number].tolist()


def chi_square(counts, expected):
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("documents, padding", [(1, 0), (5, 9)])
def test_prefix_and_rest_give_the_document(specials, rng, documents, padding):
    rows = rows_of(rng, 60, 64, documents, padding)
    x, y, w = PrefixLM().bind(specials, 64)(rows, random_of(60))
    assert all(array.shape == (60, 64) for array in (*x.values(), y, w))
    for row in range(60):
        for number in range(1, documents + 1):
            prefix = of_document(x["token_ids"][row], x["segment_ids"][row], number)
            rest = of_document(y[row], x["decoder_segment_ids"][row], number)
            if number == documents:
                assert prefix.pop() == EOS == rest.pop()
            assert prefix and rest
            assert prefix + rest == of_document(rows.token_ids[row], rows.segment_ids[row], number)
            read = of_document(x["decoder_token_ids"][row], x["decoder_segment_ids"][row], number)
            assert read[0] == PAD and read[1 : len(rest) + 1] == [*rest, EOS][: len(read) - 1]
    assert np.array_equal(w > 0, x["decoder_segment_ids"] > 0)


def test_prefixes_are_uniform(specials, rng):
    x, _, _ = PrefixLM().bind(specials, 16)(rows_of(rng, 6000, 16), random_of(6000))
    counts = np.bincount((x["segment_ids"] > 0).sum(axis=1) - 1, minlength=16)[1:]  # 1 to 15 tokens, each alike
    assert counts.sum() == 6000 and chi_square(counts, 400) < 36.1  # 14 degrees of freedom, p = 0.001


def test_prefix_lm_of_a_decoder_weighs_what_the_encoder_decoder_predicts(specials, rng):
    rows = rows_of(rng, 40, 65, documents=3, padding=6)
    x, y, w = PrefixLM("decoder").bind(specials, 64)(rows, random_of(40))
    causal = CausalLM().bind(specials, 64)(rows, None)
    assert all(np.array_equal(x[key], causal[0][key]) for key in causal[0]) and np.array_equal(y, causal[1])
    assert 0.3 < w.sum() / causal[2].sum() < 0.7 and (w <= causal[2]).all()
    for row, number in itertools.product(range(40), (1, 2, 3)):
        own = w[row][(x["segment_ids"][row] == number) & (causal[2][row] > 0)]
        assert own[-1] == 1 and (np.diff(own) >= 0).all()  # none, then all
    other = PrefixLM().bind(specials, 65)(rows, random_of(40))  # the same draws
    assert (w.sum(axis=1) == other[2].sum(axis=1) - 1).all()  # but for eos


def test_ul2_is_the_published_mixture(specials, rng):
    specials.sentinel_ids = list(range(4, 104))
    objective = UL2().bind(specials, 512)
    assert objective.row_length == 567 and objective.target_length == 284 + 95 + 1
    rows = rows_of(rng, 1400, 567)
    rows.token_ids[:] = np.maximum(rows.token_ids, 104)
    x, y, w = objective(rows, random_of(1400))
    assert x["token_ids"].shape == (1400, 512) and y.shape == w.shape == (1400, 380)
    mode, sentinels = x["token_ids"][:, 0], ((y >= 4) & (y < 104) & (w > 0)).sum(axis=1)
    hidden = (w > 0).sum(axis=1) - sentinels - 1
    # Rates and mean spans of table 1, of 567 tokens; each denoiser equally often.
    wanted = {(R, 85, 28), (R, 85, 11), (S, 141, 1), (X, 284, 95), (X, 284, 36), (X, 85, 1), (X, 284, 4)}
    found, counts = np.unique(np.stack([mode, hidden, sentinels], axis=1), axis=0, return_counts=True)
    assert {tuple(one) for one in found.tolist()} == wanted
    assert chi_square(counts, 200) < 22.5  # 6 degrees of freedom, p = 0.001
    for row in range(100):
        one = {key: x[key][row][1:][x["segment_ids"][row][1:] > 0] for key in ("token_ids", "segment_ids")}
        assert put_back(one, y[row][w[row] > 0], SpanCorruption().bind(specials, 512)) == rows.token_ids[row].tolist()


def test_ul2_announces_every_document_and_asks_only_for_what_it_shows(specials, rng):
    objective = UL2().bind(specials, 128)
    x, y, w = objective(rows_of(rng, 300, objective.row_length, documents=9), random_of(300))
    opens = np.diff(x["segment_ids"], axis=1, prepend=0) > 0
    assert np.isin(x["token_ids"][opens], (R, S, X)).all() and not np.isin(x["token_ids"][~opens], (R, S, X)).any()
    assert (x["positions"][opens] == 0).all()
    cut = 0
    for row in range(300):
        assert len(set(x["token_ids"][row][opens[row]])) == 1
        for number in range(1, 10):
            shown = of_document(x["token_ids"][row], x["segment_ids"][row], number)
            asked = of_document(y[row], x["decoder_segment_ids"][row], number)
            shown, asked = ([one for one in side if 4 <= one < 44] for side in (shown, asked))
            assert asked == shown[: len(asked)] and (len(asked) == len(shown) or number == 9)
            cut += not shown
    assert cut and np.array_equal(w > 0, x["decoder_segment_ids"] > 0)


def undone(ids):
    """A document rearranged by fill in the middle, as it was, and the mode it was in."""
    start, end = ids[:1] == [BOS], ids[-1:] == [EOS]
    inner = ids[start : len(ids) - end]
    if MID not in inner:
        return ids, None
    middle = inner.index(MID)
    if inner[:2] == [PRE, SUF]:
        inner, mode = inner[middle + 1 :] + inner[2:middle], "spm"
    else:
        suffix = inner.index(SUF)
        inner, mode = inner[1:suffix] + inner[middle + 1 :] + inner[suffix + 1 : middle], "psm"
    return ids[:start] + inner + ids[len(ids) - end :], mode


def test_fill_in_the_middle_can_be_undone(specials, rng):
    objective = FillInTheMiddle().bind(specials, 254)
    assert objective.row_length == 252
    rows = rows_of(rng, 500, 252, documents=7, padding=25)
    first = np.diff(rows.segment_ids, axis=1, prepend=0) > 0
    rows.token_ids[first] = BOS
    rows.token_ids[:, :-1][(np.diff(rows.segment_ids, axis=1) != 0) & (rows.segment_ids[:, :-1] > 0)] = EOS
    x, y, w = objective(rows, random_of(500))
    modes = []
    for row, number in itertools.product(range(500), range(1, 8)):
        ids, mode = undone(of_document(x["token_ids"][row], x["segment_ids"][row], number))
        assert ids == of_document(rows.token_ids[row], rows.segment_ids[row], number)
        modes.append(mode)
    share = np.array([modes.count(one) for one in (None, "psm", "spm")]) / 3500
    assert share == pytest.approx([0.5, 0.25, 0.25], abs=4 * 0.5 / np.sqrt(3500))
    inside = x["segment_ids"][:, 1:] == x["segment_ids"][:, :-1]
    assert np.array_equal(y[:, :-1], x["token_ids"][:, 1:])
    assert np.array_equal(w[:, :-1] > 0, inside & (x["segment_ids"][:, :-1] > 0))


def test_the_middle_is_between_two_uniform_cuts(specials, rng):
    rows = rows_of(rng, 5000, 3)
    x, _, w = FillInTheMiddle(rate=1, spm_rate=0).bind(specials, 5)(rows, random_of(5000))
    assert (w.sum(axis=1) == 5).all()  # six tokens
    places = np.stack([np.argmax(x["token_ids"] == token, axis=1) for token in (SUF, MID)], axis=1)
    places[:, 1] = np.where(places[:, 1] == 0, 5, places[:, 1])  # the last token is a label only
    prefix, suffix = places[:, 0] - 1, places[:, 1] - places[:, 0] - 1
    counts = np.bincount(4 * prefix + (3 - prefix - suffix), minlength=16).reshape(4, 4)
    # Cuts i <= j of 0 … 3: (i, i) in 1 of 16 cases, others in 2.
    expected = np.array([[1, 2, 2, 2], [1, 2, 2, 0], [1, 2, 0, 0], [1, 0, 0, 0]]) * 5000 / 16
    assert (counts[expected == 0] == 0).all()
    assert chi_square(counts[expected > 0], expected[expected > 0]) < 27.9  # 9 degrees of freedom, p = 0.001


def test_fill_in_the_middle_cuts_at_the_end_of_the_row_alone(specials, rng):
    rows = rows_of(rng, 50, 62, documents=6)
    x, _, _ = FillInTheMiddle(rate=1).bind(specials, 64)(rows, random_of(50))
    assert (x["segment_ids"] > 0).all()  # 62 tokens and 18 new ones, more than fit
    plain = FillInTheMiddle(rate=0).bind(specials, 64)(rows, random_of(50))[0]
    assert np.array_equal(plain["token_ids"][:, :62], rows.token_ids) and (plain["token_ids"][:, 62:] == PAD).all()
    for row in range(50):
        ids, _ = undone(of_document(x["token_ids"][row], x["segment_ids"][row], 1))
        assert ids == of_document(rows.token_ids[row], rows.segment_ids[row], 1)


def bart(specials, rng, **options):
    """The input and the row, documents framed, of one noise alone."""
    rows = rows_of(rng, 80, 96, documents=3, padding=7)
    rows.token_ids[:, :-1][(np.diff(rows.segment_ids, axis=1) != 0) & (rows.segment_ids[:, :-1] > 0)] = EOS
    rows.token_ids[:, 0] = BOS
    x, y, w = BARTDenoising(rate=0, **options).bind(specials, 96)(rows, random_of(80))
    assert np.array_equal(y, rows.token_ids) and np.array_equal(w > 0, rows.segment_ids > 0)
    for row, number in itertools.product(range(80), (1, 2, 3)):
        ids = [of_document(one[row], x["segment_ids"][row] if one is not y else rows.segment_ids[row], number)
               for one in (x["token_ids"], y)]  # fmt: skip
        assert all(one[-1] == EOS and (one[0] == BOS) == (number == 1) for one in ids)
        yield tuple([token for token in one if token not in (BOS, EOS)] for one in ids)


def sentences(ids):
    ends = [i + 1 for i, token in enumerate(ids[:-1]) if token % 10 == 9]
    return [tuple(ids[a:b]) for a, b in zip([0, *ends], [*ends, len(ids)])]


def test_bart_shuffles_whole_sentences(specials, rng):
    moved = 0
    for noisy, plain in bart(specials, rng, permute_sentences=True):
        last, noisy = sentences(plain)[-1], list(noisy)
        at = next(i for i in range(len(noisy)) if tuple(noisy[i : i + len(last)]) == last)  # need not end in a stop
        rest = sentences(noisy[:at]) if at else []
        rest += sentences(noisy[at + len(last) :]) if at + len(last) < len(noisy) else []
        assert sorted(rest) == sorted(sentences(plain)[:-1])
        moved += noisy != plain
    assert moved > 150


def test_bart_rotates_documents_uniformly(specials, rng):
    turns = []
    for noisy, plain in bart(specials, rng, rotate=True):
        turn = plain.index(noisy[0])
        if noisy != plain[turn:] + plain[:turn]:  # the first token came twice
            turn = next(i for i in range(len(plain)) if noisy == plain[i:] + plain[:i])
        turns.append(turn / len(plain))
    assert np.mean(turns) == pytest.approx(0.5, abs=4 * np.sqrt(1 / 12 / 240))


def test_bart_deletes_its_share(specials, rng):
    kept = total = 0
    for noisy, plain in bart(specials, rng, deletion=0.2):
        remaining = iter(plain)
        assert all(token in remaining for token in noisy)
        kept, total = kept + len(noisy), total + len(plain)
    assert kept / total == pytest.approx(0.8, abs=4 * np.sqrt(0.16 / total))


def test_bart_noises_together_keep_the_shares_of_each(specials, rng):
    rows = rows_of(rng, 100, 256)
    objective = BARTDenoising(permute_sentences=True, rotate=True, deletion=0.1).bind(specials, 256)
    x, _, _ = objective(rows, random_of(100))
    ordinary = (x["token_ids"] >= 44).sum()
    assert ordinary / (100 * (256 - round(0.3 * 256))) == pytest.approx(0.9, abs=0.01)
    assert (x["token_ids"] == MASK).sum(axis=1).mean() == pytest.approx((77 + 1.5) / 3, abs=4 * 4.2 / 10)


def test_a_mixture_draws_by_weight_and_each_row_is_its_objectives(specials, rng):
    parts = (SpanCorruption(), SpanCorruption(rate=0.3, mean_span=8), PrefixLM())
    mixture = Mixture(parts, (1, 2, 5)).bind(specials, 64)
    assert mixture.row_length == 64 and mixture.target_length == 64 and mixture.start_id == PAD
    rows, random = rows_of(rng, 2000, 64, documents=2), random_of(2000)
    x, y, w = mixture(rows, random)
    assert all(array.shape == (2000, 64) for array in (*x.values(), y, w))
    chosen = mixture.choose(random_of(2000))
    assert np.bincount(chosen) / 2000 == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=4 * 0.5 / np.sqrt(2000))
    again = random_of(2000)
    again.random(1)
    for index, part in enumerate(mixture.objectives):
        mine = np.flatnonzero(chosen == index)
        alone = part(rows.take(mine), again.take(mine))
        for key, value in {**alone[0], "y": alone[1], "w": alone[2]}.items():
            mixed = {**x, "y": y, "w": w}[key][mine]
            assert np.array_equal(mixed[:, : value.shape[1]], value)
            assert (mixed[:, value.shape[1] :] == 0).all()


def assert_rows_stand_alone(bound, rng):
    """A row made alone is the one made among others; returns what was made of."""
    rows = rows_of(rng, 8, bound.row_length, documents=3, padding=5)
    x, y, w = bound(rows, random_of(8))
    x5, y5, w5 = bound(rows.take([5]), random_of(8).take([5]))
    assert all(np.array_equal(x5[key][0], x[key][5]) for key in x)
    assert np.array_equal(y5[0], y[5]) and np.array_equal(w5[0], w[5])
    return rows


def test_masked_mixtures_share_their_widest_targets(specials, rng):
    mixture = Mixture((MaskedLM(0.15), MaskedLM(0.4, span=True))).bind(specials, 64)
    x, y, w = mixture(rows_of(rng, 50, 64), random_of(50))
    assert x["mask_positions"].shape == y.shape == (50, 26) and 10 in w.sum(axis=1) and w.sum(axis=1).max() == 26


@pytest.mark.parametrize(
    "objective",
    [
        PrefixLM(),
        UL2(),
        FillInTheMiddle(),
        Mixture((SpanCorruption(), PrefixLM())),
        BARTDenoising(permute_sentences=True, rotate=True, deletion=0.1),
    ],
    ids=lambda one: type(one).__name__,
)
def test_a_row_does_not_depend_on_its_neighbours(specials, rng, objective):
    bound = objective.bind(specials, 64)
    rows = assert_rows_stand_alone(bound, rng)
    nothing = Rows(*(np.zeros_like(rows.token_ids) for _ in range(3)))
    x, y, w = bound(nothing, random_of(8))
    assert w.sum() == 0 and x["segment_ids"].sum() == 0
    numpy = bound(rows, np.random.default_rng(0))
    assert numpy[1].shape == y.shape


def test_what_does_not_fit_is_refused(specials, numbers):
    plain = numbers(pad_id=0, eos_id=2, bos_id=1)
    refused = [
        (UL2(), plain, r"UL2 needs the token '\[R\]', .* tokenizer.add_tokens\(\['\[R\]'\]\)"),
        (UL2(), changed(specials, sentinel_ids=[]), r"UL2 needs \d+ sentinels .*add_sentinels"),
        (UL2((("Q", 3, 0.1),)), specials, "mode 'R', 'S' or 'X'"),
        (FillInTheMiddle(), plain, "needs the token '<fim_prefix>'"),
        (FillInTheMiddle(rate=2), specials, "rate=2 must lie between 0 and 1"),
        (PrefixLM("encoder"), specials, "architecture='encoder'"),
        (PrefixLM(share=1.0), specials, "share=1.0"),
        (PrefixLM("decoder", sentinel=True), specials, "leave it False"),
        (PrefixLM(sentinel=True), plain, "PrefixLM needs 1 sentinels"),
        (BARTDenoising(rate=0), specials, "needs another noise"),
        (BARTDenoising(deletion=1.0), specials, "deletion=1.0"),
        (Mixture(()), specials, "takes a tuple of objectives"),
        (Mixture((CausalLM(), MaskedLM())), specials, "special tokens around documents: they do not mix"),
        (Mixture((PrefixLM(), FillInTheMiddle())), specials, "do not mix"),
        (Mixture((SpanCorruption(), PrefixLM()), (0, 0)), specials, "not all 0"),
        (Mixture((SpanCorruption(), PrefixLM()), (1, -1)), specials, "at least 0"),
        (Mixture((SpanCorruption(), PrefixLM()), (1,)), specials, "1 weights do not go with 2 objectives"),
    ]  # fmt: skip
    for objective, tokenizer, message in refused:
        with pytest.raises(ValueError, match=message):
            objective.bind(tokenizer, 64)


def changed(tokenizer, **changes):
    other = object.__new__(type(tokenizer))
    vars(other).update(vars(tokenizer) | changes)
    return other
