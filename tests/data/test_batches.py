"""Batches of arrays: every row once an epoch, cut to what its rows need, the same whenever a step is asked for."""

import numpy as np
import pytest

from zoo.data import Batches


def arrays(n=203, t=70, by_token=False):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, t + 1, n)
    mask = (np.arange(t) < lengths[:, None]).astype("int32")
    ids = mask * (1 + np.arange(n)[:, None])
    return {"token_ids": ids, "padding_mask": mask}, (ids if by_token else np.arange(n)), mask if by_token else None


def test_an_epoch_has_each_row_once_and_nothing_of_a_text_is_cut():
    x, y, _ = arrays()
    data = Batches(x, y, batch_size=8, seed=3)
    assert len(data) == 25
    for epoch in range(2):
        seen = []
        for step in range(epoch * 25, epoch * 25 + 25):
            batch, labels, w = data.batch(step)
            assert w.tolist() == [1] * 8 and batch["token_ids"].shape[1] in (16, 32, 48, 64, 70)
            assert batch["padding_mask"].sum(axis=1).tolist() == x["padding_mask"][labels].sum(axis=1).tolist()
            assert [row for _, row in data.rows_of(step)] == labels.tolist()
            seen += labels.tolist()
        assert len(set(seen)) == 200
    widths = [data.batch(step)[0]["token_ids"].shape[1] for step in range(25)]
    assert np.mean(widths) < 0.7 * 70 and widths != sorted(widths)
    exact = [Batches(x, y, batch_size=8, seed=3, exact=True).batch(step)[0]["padding_mask"] for step in range(25)]
    assert all(mask[:, -1].any() for mask in exact)


def test_a_step_is_the_same_in_any_order():
    x, y, _ = arrays()
    data = Batches(x, y, batch_size=8, seed=3)
    steps = {step: data.batch(step)[1].tolist() for step in (0, 60, 26, 3)}
    assert steps == {step: Batches(x, y, batch_size=8, seed=3).batch(step)[1].tolist() for step in sorted(steps)}
    assert Batches(x, y, batch_size=8, seed=4).batch(0)[1].tolist() != steps[0]
    assert [batch[1].tolist() for batch in data.iterate(25, 27)][1] == steps[26]


@pytest.mark.parametrize("held_out", [False, True])
def test_slices_of_processes_make_the_batch(held_out):
    x, y, _ = arrays()
    options = {"batch_size": 8, "seed": 3, "held_out": held_out}
    whole = Batches(x, y, **options)
    slices = [Batches(x, y, **options, process_index=i, process_count=4) for i in range(4)]
    for step in (0, 7, 25):
        (ids, labels, w), parts = whole.batch(step), [part.batch(step) for part in slices]
        assert np.array_equal(np.concatenate([part[0]["token_ids"] for part in parts]), ids["token_ids"])
        assert all(np.array_equal(np.concatenate([part[i] for part in parts]), one) for i, one in ((1, labels), (2, w)))
    assert held_out or [row for part in slices for row in part.rows_of(7)] == whole.rows_of(7)
    with pytest.raises(ValueError, match="batch_size=8 does not divide into 3 slices"):
        Batches(x, y, **options, process_count=3)


def test_held_out_rows_come_once_and_can_be_put_back():
    x, y, _ = arrays()
    data = Batches(x, y, batch_size=8, held_out=True)
    found, weight = zip(*((labels, w) for _, labels, w in data.iterate()))
    found, weight = np.concatenate(found), np.concatenate(weight)
    assert found[weight > 0].tolist() == data.index.tolist() and sorted(data.index) == list(range(203))
    assert len(found) == 208 and weight[203:].tolist() == [0] * 5


def test_labels_by_token_are_cut_with_the_side_they_belong_to():
    x, y, w = arrays(by_token=True)
    batch, labels, weight = Batches(x, y, w, batch_size=8).batch(0)
    assert labels.shape == weight.shape == batch["token_ids"].shape and (labels * weight == batch["token_ids"]).all()
    x["decoder_token_ids"] = np.ones((203, 20), "int32")
    y, w = x["token_ids"][:, :20], np.zeros((203, 20))
    w[:, :3] = 1
    batch, labels, weight = Batches(x, y, w, batch_size=8).batch(0)
    assert labels.shape == weight.shape == batch["decoder_token_ids"].shape == (8, 16)


def test_too_few_rows():
    x, y, _ = arrays(7)
    with pytest.raises(ValueError, match="batch_size=8 is more than the 7 rows"):
        Batches(x, y, batch_size=8)
