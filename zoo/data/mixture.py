"""Several sources as one, by weights: which source a row comes from is a function of (weights, seed, row) alone.

Rows are dealt in blocks of `BLOCK`: of every source the same number in each block, in an order drawn anew; and the rows
of a source in its own order, epoch after epoch. It knows loaders, and neither packing nor objectives.
"""

import math
from collections.abc import Mapping

import numpy as np

from zoo.data.loader import Pretraining, pretraining

BLOCK = 1 << 14  # rows; the finest share of a source is one of them


def mixed_pretraining(sources, tokenizer, objective=None, weights=None, temperature=1.0, limit=None, batch_size=32,
                      seed=0, process_index=0, process_count=1, **options):  # fmt: skip
    """Batches for pretraining on several sources at once.

    Args:
        sources: dictionary, name -> what `pretraining` takes as sources.
        weights: dictionary, name -> share of the rows, in any unit; None = by size.
        temperature: where no weights are given, source n of e_n rows has the weight
            min(e_n, limit) ** (1 / temperature): 1 is in proportion to size, more is more even (Raffel et al. 2020,
            arXiv 1910.10683, section 3.5.2).
        limit: the artificial limit of that section, in rows; None = none.
        tokenizer, objective, batch_size, seed, process_index, process_count, options: as in `pretraining`.

    Returns: a `MixedPretraining`, used as what `pretraining` returns. Its `validation` has the held-out rows of all
        sources, one source after the other; those of one source are `parts[name].validation`.

    Raises: ValueError for weights that are negative, no numbers, or sum to zero, and names that do not match.

    >>> from zoo import Tokenizer, data
    >>> texts = {name: data.texts([name[0] * 5] * 50) for name in ("be", "not")}
    >>> tokenizer = Tokenizer.train(["bn"], kind="char")
    >>> mixed = mixed_pretraining(texts, tokenizer, weights={"be": 3, "not": 1}, sequence_length=16, batch_size=4)
    >>> mixed.counts(mixed.steps_per_block)
    {'be': 12288, 'not': 4096}
    """
    if not isinstance(sources, Mapping) or not sources:
        raise ValueError("The sources of a mixture are a dictionary, name -> source, with at least one.")
    _check(sources, weights, temperature, limit)
    seeds = np.random.SeedSequence(seed).generate_state(len(sources), "uint64") >> np.uint64(1)
    parts = {
        name: pretraining(source, tokenizer, objective, batch_size=1, seed=int(own), **options)
        for (name, source), own in zip(sources.items(), seeds)
    }
    if weights is None:
        weights = {name: min(part.rows, limit or math.inf) ** (1 / temperature) for name, part in parts.items()}
    return MixedPretraining(parts, weights, batch_size, seed, (process_index, process_count))


class MixedPretraining(Pretraining):
    """Batches (x, y, w) of several sources; made by `mixed_pretraining`. Stores and packings are those of its parts.

    Attributes:
        parts: dictionary, name -> `Pretraining` of one source.
        shares: dictionary, name -> share of the rows, exactly.
        rows: rows in an epoch, as many as the sources have together; how often one is read depends on its share.
        validation: the held-out rows of all sources, or None.
        steps_per_block: the batches after which every source has had its share exactly.
    """

    def __init__(self, parts, weights, batch_size, seed, process, held_out=False):
        self.parts, self.batch_size, self.seed, self.held_out = parts, batch_size, seed, held_out
        self.objective = next(iter(parts.values())).objective
        self.rows = sum(part.rows for part in parts.values())
        self.validation, self._block = None, (None, None, None)
        index, count = process
        if batch_size < 1 or count < 1 or batch_size % count or not 0 <= index < count:
            raise ValueError(f"batch_size={batch_size} must be a positive multiple of process_count={count}, "
                             f"and process_index={index} below that.")  # fmt: skip
        self._slice = np.arange(batch_size).reshape(count, -1)[index]
        if held_out:
            self._dealt = np.array([part.rows for part in parts.values()])
            return
        self._dealt = _apportioned(np.array([weights[name] for name in parts], float), BLOCK)
        self.shares = {name: count / BLOCK for name, count in zip(parts, self._dealt.tolist())}
        self.steps_per_block = BLOCK // math.gcd(BLOCK, batch_size)
        held = {name: part.validation for name, part in parts.items() if part.validation}
        if held:
            self.validation = MixedPretraining(held, None, batch_size, seed, process, held_out=True)

    def counts(self, steps):
        """Rows of each source in the first `steps` batches of all processes: dictionary, name -> rows."""
        blocks, rest = divmod(steps * self.batch_size, BLOCK)
        counts = blocks * self._dealt + np.bincount(self._order(blocks)[0][:rest], minlength=len(self.parts))
        return dict(zip(self.parts, counts.tolist()))

    def _order(self, block):
        """The source of each row of a block, and the number of the row among those of its source in the block."""
        known, source, rank = self._block  # one tuple, so that threads never see half of a change
        if known != block:
            source = np.repeat(np.arange(len(self._dealt)), self._dealt)
            if not self.held_out:
                source = np.random.default_rng([self.seed, 3, block]).permutation(source)
            rank = np.empty_like(source)
            rank[np.argsort(source, kind="stable")] = np.concatenate([np.arange(count) for count in self._dealt])
            self._block = (block, source, rank)
        return source, rank

    def _make(self, numbers):
        size = self._dealt.sum()
        blocks = numbers // size
        source, local = np.empty_like(numbers), np.empty_like(numbers)
        for block in np.unique(blocks).tolist():
            here = np.flatnonzero(blocks == block)
            if self.held_out and block:  # what is missing in the last batch
                source[here], local[here] = 0, self._dealt[0] + np.arange(len(here))
                continue
            sources, ranks = self._order(block)
            source[here] = sources[numbers[here] % size]
            local[here] = block * self._dealt[source[here]] + ranks[numbers[here] % size]
        x, y, w = {}, None, None
        for index, part in enumerate(self.parts.values()):
            here = np.flatnonzero(source == index)
            if not len(here):
                continue
            some_x, some_y, some_w = part._make(local[here])
            if y is None:
                x = {name: np.empty((len(numbers), *value.shape[1:]), value.dtype) for name, value in some_x.items()}
                y, w = (np.empty((len(numbers), *value.shape[1:]), value.dtype) for value in (some_y, some_w))
            for name, value in some_x.items():
                x[name][here] = value
            y[here], w[here] = some_y, some_w
        return x, y, w


def _check(sources, weights, temperature, limit):
    if not temperature > 0 or (limit is not None and limit < 1):
        raise ValueError(f"temperature={temperature} and limit={limit} must be positive.")
    if weights is None:
        return
    if not isinstance(weights, Mapping) or set(weights) != set(sources):
        raise ValueError(f"The weights must name the sources {sorted(sources)}: got {weights!r}.")
    for name, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"The weight {weight} of {name!r} is no share: give a number that is not negative.")
    if not sum(weights.values()):
        raise ValueError(f"The weights of {', '.join(weights)} sum to zero: give one of them a positive weight.")


def _apportioned(weights, total):
    """Whole numbers in proportion to weights that sum to `total`, by largest remainders; none but 0 becomes 0."""
    exact = weights / weights.sum() * total
    counts = np.maximum(np.floor(exact), weights > 0).astype("int64")
    while counts.sum() > total:  # the tiny ones that were raised to 1
        counts[np.argmax(counts)] -= 1
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return counts
