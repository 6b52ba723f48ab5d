"""A weighted mixture of objectives: each row of a batch is made by one of them, drawn at random."""

import dataclasses
import functools

import numpy as np

from zoo.data.objectives.base import Objective
from zoo.data.rows import Rows


@dataclasses.dataclass(frozen=True)
class Mixture(Objective):
    """Several objectives at once: a row is made by objective i with probability weights[i] / sum(weights).

    All see rows of the same length, that of the one with the shortest; batches narrower than the widest are padded,
    with weight 0. So they must frame documents with the same special tokens and give the same keys.

    Args:
        objectives: objectives, not yet bound.
        weights: as many numbers, none negative; None = all alike.

    x, y, w: those of the objectives, (b, sequence_length) and (b, target_length), the longest of theirs.

    Raises: ValueError for weights that do not fit, and for objectives that cannot share a batch.

    >>> from zoo import Tokenizer, data
    >>> tokenizer = Tokenizer.train(["to be or not to be"], kind="unigram", vocabulary_size=120)
    >>> mixture = data.Mixture((data.SpanCorruption(), data.PrefixLM()), weights=(3, 1)).bind(tokenizer, 32)
    >>> mixture.row_length, mixture.target_length
    (32, 32)
    """

    objectives: tuple = ()
    weights: tuple | None = None

    def bind(self, tokenizer, sequence_length):
        if not self.objectives or not all(isinstance(one, Objective) for one in self.objectives):
            raise ValueError(f"Mixture takes a tuple of objectives, got {self.objectives!r}.")
        parts = [one.bind(tokenizer, sequence_length) for one in self.objectives]
        shortest = min(one.row_length for one in parts)
        parts = tuple(one if one.row_length == shortest else one.shortened(shortest) for one in parts)
        bound = dataclasses.replace(self, objectives=parts, tokenizer=tokenizer, sequence_length=int(sequence_length))
        bound.check()
        return bound

    def check(self):
        weights = np.asarray(self.weights if self.weights is not None else [1.0] * len(self.objectives))
        if weights.shape != (len(self.objectives),):
            raise ValueError(f"{weights.size} weights do not go with {len(self.objectives)} objectives.")
        if not np.isfinite(weights).all() or weights.min() < 0 or weights.sum() == 0:
            raise ValueError(f"weights={self.weights} must be numbers of at least 0, and not all 0.")
        first, *others = self.objectives
        for other, batch in zip(others, self._samples[1:]):
            if other.frame != first.frame:
                raise ValueError(f"{first} and {other} set other special tokens around documents: they do not mix.")
            if (mine := _signature(self._samples[0])) != (theirs := _signature(batch)):
                raise ValueError(f"{first} gives {', '.join(mine)}, {other} {', '.join(theirs)}: they do not mix.")

    @functools.cached_property
    def _samples(self):
        """A row without a document from each objective: its keys and widths are those of any row."""
        empty = np.zeros((1, self.row_length), "int32")
        return [one(Rows(empty, empty, empty), np.random.default_rng(0)) for one in self.objectives]

    row_length = property(lambda self: self.objectives[0].row_length)
    target_length = property(lambda self: max(one.target_length for one in self.objectives))
    start_id = property(lambda self: self.objectives[0].start_id)
    frame = property(lambda self: self.objectives[0].frame)

    def informed(self, tokens):
        return dataclasses.replace(self, objectives=tuple(one.informed(tokens) for one in self.objectives))

    def add_tokens(self, tokenizer, sequence_length):
        return sum(one.add_tokens(tokenizer, sequence_length) for one in self.objectives)

    def make(self, rows, rng):
        return self.mixed(rows, rng, self.choose(rng))

    def choose(self, rng):
        """Which objective makes each row, (b,)."""
        edges = np.cumsum(np.ones(len(self.objectives)) if self.weights is None else self.weights)
        return np.searchsorted(edges / edges[-1], rng.random(1)[:, 0], side="right")

    def mixed(self, rows, rng, chosen):
        """(x, y, w) with each row made by the objective `chosen` (b,) for it."""
        count = len(rows.token_ids)
        flat = [_flat(sample) for sample in self._samples]
        batch = {}
        for key, value in flat[0].items():
            shape = count, *np.max([one[key].shape[1:] for one in flat], axis=0).astype(int)
            batch[key] = np.full(shape, self.pad_id if key.endswith("token_ids") else 0, value.dtype)
        for index in np.unique(chosen):
            places = np.flatnonzero(chosen == index)
            for key, value in _flat(self.objectives[index].make(rows.take(places), rng.take(places))).items():
                batch[key][places, ..., : value.shape[-1]] = value
        y, w = batch.pop("y"), batch.pop("w")
        return batch, y, w


def _flat(batch):
    x, y, w = batch
    return {**x, "y": y, "w": w}


def _signature(batch):
    return [f"{key} with {value.ndim} axes" for key, value in sorted(_flat(batch).items())]
