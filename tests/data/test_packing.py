"""Packings against a slow second way to compute them, and against what every packing must keep."""

import bisect

import numpy as np
import pytest

from zoo.data.packing import BestFit, Concatenate, best_fit_decreasing


def all_pieces(packing, epoch):
    return np.stack(packing.pieces(epoch, np.arange(packing.rows)), axis=1)


def tokens_covered(packing, epoch):
    """How often each token of each document is in a row of the epoch."""
    seen = [np.zeros(length, int) for length in packing.lengths]
    for _, document, start, length in all_pieces(packing, epoch):
        assert length > 0
        seen[document][start : start + length] += 1
    return np.concatenate(seen)


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_concatenation_has_every_token_once_but_for_a_tail(rng, epoch):
    packing = Concatenate(rng.integers(1, 60, 500), 64, seed=1)
    covered = tokens_covered(packing, epoch)
    assert covered.max() == 1
    assert (covered == 0).sum() == packing.tokens % 64
    row, _, _, length = all_pieces(packing, epoch).T
    assert (np.bincount(row, length) == 64).all()


def test_concatenation_of_one_document_moves_its_cuts():
    packing = Concatenate([1000], 64, seed=1)
    starts = [all_pieces(packing, epoch)[:, 2] % 64 for epoch in range(3)]
    assert len({tuple(np.unique(one)) for one in starts}) == 3
    assert all(tokens_covered(packing, epoch).max() == 1 for epoch in range(3))


def test_held_out_rows_come_in_order_and_whole(rng):
    packing = Concatenate(rng.integers(1, 60, 500), 64, seed=None)
    assert (tokens_covered(packing, 0) == 1).all()
    documents = all_pieces(packing, 0)[:, 1]
    assert (np.diff(documents) >= 0).all()


def naive_best_fit(lengths, capacity):
    """The fill of each row by best-fit decreasing, one piece after the other into a sorted list of rooms."""
    rooms = []
    for length in sorted(lengths, reverse=True):
        index = bisect.bisect_left(rooms, length)
        bisect.insort(rooms, (rooms.pop(index) if index < len(rooms) else capacity) - length)
    return sorted(capacity - room for room in rooms)


@pytest.mark.parametrize("capacity, count", [(4, 30), (17, 200), (64, 1000), (64, 3), (300, 300)])
def test_best_fit_makes_the_rows_of_the_textbook(rng, capacity, count):
    for _ in range(20):
        lengths = rng.integers(1, capacity + 1, count)
        rows = best_fit_decreasing(np.bincount(lengths, minlength=capacity + 1))
        filled = np.bincount(rows, np.sort(lengths)[::-1])
        assert sorted(filled.tolist()) == naive_best_fit(lengths.tolist(), capacity)


@pytest.mark.parametrize("seed", [0, None])
def test_best_fit_has_every_token_once_and_splits_only_what_is_too_long(rng, seed):
    lengths = np.concatenate([rng.integers(1, 64, 500), [64, 65, 128, 1000]])
    packing = BestFit(lengths, 64, seed)
    for epoch in (0, 2):
        assert (tokens_covered(packing, epoch) == 1).all()
        row, document, _, length = all_pieces(packing, epoch).T
        filled = np.bincount(row, length)
        assert filled.max() <= 64
        assert packing.padding_share == pytest.approx(1 - filled.sum() / (64 * packing.rows))
        assert (np.bincount(document) == -(-lengths // 64)).all()


@pytest.mark.parametrize("kind", [Concatenate, BestFit])
def test_a_row_alone_is_the_row_in_its_epoch(rng, kind):
    lengths = rng.integers(1, 100, 300)
    packing = kind(lengths, 64, seed=5)
    epochs = [all_pieces(packing, epoch) for epoch in (0, 1)]
    assert not np.array_equal(*[epoch[:200] for epoch in epochs])
    for epoch, index in ((1, 3), (0, 100), (1, packing.rows - 1)):
        alone = np.stack(kind(lengths, 64, seed=5).pieces(epoch, [index]), axis=1)
        whole = epochs[epoch]
        assert np.array_equal(alone[:, 1:], whole[whole[:, 0] == index][:, 1:])
