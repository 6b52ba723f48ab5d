"""Mixtures: shares against the weights and the paper's formula, rows as functions of their number, refusals."""

import numpy as np
import pytest

from zoo import data
from zoo.data.mixture import BLOCK, mixed_pretraining


def digest(batch):
    x, y, w = batch
    return b"".join(array.tobytes() for array in (*(x[name] for name in sorted(x)), y, w))


@pytest.fixture
def sources(as_texts, rng):
    """Three sources, told apart by their tokens: 100 to 199, 200 to 299, 300 to 399; of very different size."""
    sizes = {"small": 30, "middle": 300, "large": 3000}
    return {
        name: as_texts([rng.integers(100 * i, 100 * i + 100, 20).tolist() for _ in range(size)])
        for i, (name, size) in enumerate(sizes.items(), 1)
    }


@pytest.fixture
def mix(sources, specials):
    def mix(objective=None, **options):
        options = {"sequence_length": 20, "batch_size": 8, "progress": False} | options
        return mixed_pretraining(sources, specials, objective, **options)

    return mix


def sources_of(batches):
    """How many rows are of each source."""
    counts = np.zeros(4, int)
    for x, _, _ in batches:
        counts += np.bincount(x["token_ids"].max(axis=1) // 100, minlength=4)
    return dict(zip(("small", "middle", "large"), counts[1:].tolist()))


def test_rows_come_in_the_shares_of_the_weights(mix):
    weights = {"small": 1, "middle": 5, "large": 2}
    mixed = mix(weights=weights)
    assert mixed.shares == {name: weight / 8 for name, weight in weights.items()}
    for steps in (1, 7, 200):
        assert mixed.counts(steps) == sources_of(mixed.batch(step) for step in range(steps))
    assert mixed.counts(mixed.steps_per_block) == {name: weight * BLOCK // 8 for name, weight in weights.items()}
    seen, expected = np.array(list(mixed.counts(200).values())), 1600 * np.array([1, 5, 2]) / 8
    assert (abs(seen - expected) < 4 * np.sqrt(expected)).all()


@pytest.mark.parametrize(("temperature", "limit"), [(1, None), (2, None), (4, 100), (1e9, None)])
def test_temperature_and_limit_are_those_of_the_paper(mix, temperature, limit):
    mixed = mix(temperature=temperature, limit=limit)
    sizes = np.array([min(part.rows, limit or np.inf) for part in mixed.parts.values()])
    rates = sizes / sizes.sum()  # r_m, raised to 1 / T and renormalised
    rates = rates ** (1 / temperature) / np.sum(rates ** (1 / temperature))
    np.testing.assert_allclose(list(mixed.shares.values()), rates, atol=1 / BLOCK)


def test_a_source_is_read_through_before_it_is_read_again(mix):
    mixed = mix(weights={"small": 1, "middle": 0, "large": 0}, packing="best_fit")
    assert mixed.counts(10) == {"small": 80, "middle": 0, "large": 0}
    rows = mixed.parts["small"].rows
    numbers = [mixed._make(np.arange(i, i + 1))[0]["token_ids"].tobytes() for i in range(2 * rows)]
    assert (
        set(numbers[:rows]) != set() and len(set(numbers[:rows])) == rows and set(numbers[:rows]) == set(numbers[rows:])
    )


@pytest.mark.parametrize("objective", [data.CausalLM(), data.MaskedLM(), data.SpanCorruption()])
def test_restart_at_any_step_gives_the_same_batches(mix, objective):
    steps = [0, 1, 5, BLOCK // 8 - 1, BLOCK // 8, 10**6]
    known = [digest(mix(objective).batch(step)) for step in steps]
    again = mix(objective)
    assert [digest(again.batch(step)) for step in reversed(steps)] == known[::-1] and len(set(known)) == len(steps)
    assert [digest(batch) for batch in again.iterate(5, 6)] == known[2:3]
    assert digest(mix(objective, seed=1).batch(0)) != known[0]
    halves = [mix(objective, process_index=i, process_count=2).batch(5) for i in (0, 1)]
    assert np.array_equal(np.concatenate([y for _, y, _ in halves]), again.batch(5)[1])


def test_validation_has_the_held_out_rows_of_all(mix):
    validation = mix(validation_share=0.1, packing="best_fit").validation
    batches = list(validation)
    assert len(batches) == len(validation) == -(-validation.rows // 8)
    rows = [row for x, _, w in batches for row in np.where(x["segment_ids"] > 0, x["token_ids"], 0)]
    expected = [
        row
        for part in validation.parts.values()
        for x, _, _ in part
        for row in np.where(x["segment_ids"] > 0, x["token_ids"], 0)
    ]
    assert np.array_equal(rows[: len(expected)], expected) and not np.any(rows[len(expected) :])
    parts = [mix(validation_share=0.1, packing="best_fit", process_index=i, process_count=8) for i in range(8)]
    last = [
        np.where(x["segment_ids"] > 0, x["token_ids"], 0)
        for x, _, _ in (p.validation.batch(len(batches) - 1) for p in parts)
    ]
    assert np.array_equal(np.concatenate(last), rows[-8:]) and not batches[-1][2][-1].any()
    assert mix(validation_share=0).validation is None


def test_a_weight_is_never_rounded_to_nothing(mix):
    assert mix(weights={"small": 1e-9, "middle": 1, "large": 1e-9}).shares["small"] == 1 / BLOCK


@pytest.mark.parametrize(("options", "message"), [
    ({"weights": {"small": 0, "middle": 0, "large": 0}}, "sum to zero"),
    ({"weights": {"small": -1, "middle": 1, "large": 1}}, "The weight -1 of 'small' is no share"),
    ({"weights": {"small": float("nan"), "middle": 1, "large": 1}}, "The weight nan of 'small'"),
    ({"weights": {"small": 1}}, "must name the sources"),
    ({"temperature": 0}, "temperature=0"),
    ({"limit": 0}, "limit=0"),
    ({"batch_size": 0}, "batch_size=0"),
    ({"process_count": 3}, "process_count=3"),
])  # fmt: skip
def test_what_is_no_mixture_is_refused(mix, options, message):
    with pytest.raises(ValueError, match=message):
        mix(**options)


def test_sources_need_names(specials):
    for wrong in ({}, ["pydocs"]):
        with pytest.raises(ValueError, match="dictionary, name -> source"):
            mixed_pretraining(wrong, specials)
