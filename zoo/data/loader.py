"""The loader: batches as a pure function of (store, seed, step). Delivery (threads, prefetch) is grain's job.

Rows are numbered on without end: row g is row g % rows of epoch g // rows, and a step has the `batch_size` rows from
g = step * batch_size. So the whole state is the step; resuming, slicing over processes and asking for one row are
arithmetic. It knows no model.
"""

import math

import numpy as np

from zoo.data.objectives import CausalLM, Objective
from zoo.data.packing import PACKINGS
from zoo.data.preparation import prepare
from zoo.data.rows import RowRandom, Text
from zoo.data.sources import open as open_source
from zoo.data.store import Store, holds_store

ENDLESS = 2**62


def pretraining(
    sources,
    tokenizer,
    objective=None,
    sequence_length=512,
    batch_size=32,
    seed=0,
    validation_share=None,
    packing="concatenate",
    cache=None,
    split=None,
    field="text",
    process_index=0,
    process_count=1,
    progress=True,
):
    """Batches for pretraining on `sources`: text to token store, to packed rows, to the objective's (x, y, w).

    Args:
        sources: what `zoo.data.sources.open` takes ("pydocs", files, a directory, a glob, strings), a `Store`
            or its directory.
        tokenizer: a `zoo.Tokenizer`.
        objective: an objective not yet bound; None = `CausalLM()`.
        sequence_length: tokens of a row of inputs.
        batch_size: rows in a batch, over all processes.
        seed: of the order and the objective's draws.
        validation_share: share of the documents held out, chosen by a hash of their text (see `Store.split`); 0 = none,
            and `validation` is None. None = what the store was prepared with, or 0.05.
        packing: "concatenate" (no padding, documents cut at row ends) or "best_fit" (documents whole, some padding).
        cache: directory of the token store; None = an automatic one (see `zoo.data.prepare`).
        split, field: how text files fall into documents, and the key of JSON lines (see `sources.open`).
        process_index, process_count: which slice of each batch this process loads.
        progress: whether to show a bar while text is tokenized.

    Returns: a `Pretraining` over the training documents; its `validation` is one over the held-out documents.

    Raises: ValueError for arguments that do not fit, and for text that gives less than one batch.

    >>> from zoo import Tokenizer, data
    >>> tokenizer = Tokenizer.train(["to be or not to be"], kind="char")
    >>> loader = data.pretraining(data.texts(["to be or not to be"] * 50), tokenizer, sequence_length=16, batch_size=4)
    >>> x, y, w = loader.batch(1000)
    >>> sorted(x), x["token_ids"].shape, y.shape, w.dtype.name
    (['positions', 'segment_ids', 'token_ids'], (4, 16), (4, 16), 'float32')

    With a compiled task: `lm.fit(loader.dataset(start), steps_per_epoch=100)`.
    """
    if packing not in PACKINGS:
        raise ValueError(f"packing={packing!r} is none of {', '.join(map(repr, PACKINGS))}.")
    _check_counts(batch_size, seed, process_index, process_count)
    objective = CausalLM() if objective is None else objective
    if not isinstance(objective, Objective):
        raise ValueError(f"objective={objective!r} is no objective: give one such as zoo.data.MaskedLM().")
    bound = objective.bind(tokenizer, sequence_length)
    if holds_store(sources):
        sources = Store(sources)
    if isinstance(sources, Store):
        store = sources.check(tokenizer)
    else:
        store = prepare(open_source(sources, split, field), tokenizer, cache, progress=progress)
    bound = bound.informed(store.tokens)
    validation_share = store.validation_share if validation_share is None else validation_share
    training, held_out = store.split(validation_share)
    options = {"packing": packing, "batch_size": batch_size, "seed": seed, "process": (process_index, process_count)}
    validation = Pretraining(store, held_out, bound, held_out=True, **options) if validation_share else None
    return Pretraining(store, training, bound, validation=validation, **options)


class Pretraining:
    """Batches (x, y, w) of one part of a token store; made by `pretraining`.

    The training part is endless: epoch follows epoch, each in its own order, and a batch may hold the end of one and
    the beginning of the next. The held-out part (`data.validation`) is one epoch in fixed order with fixed masks; the
    rows missing in its last batch are padding of weight 0.

    Attributes:
        rows: rows in an epoch.
        validation: the held-out part, or None.
        store, objective, packing: what it is made of; `packing.padding_share` is the share of padding.
    """

    def __init__(self, store, spans, objective, packing, batch_size, seed, process, held_out=False, validation=None):
        self.store, self.objective, self.validation = store, objective, validation
        self.batch_size, self.seed, self.held_out = batch_size, seed, held_out
        self._text = Text(store.tokens, spans, objective.frame, objective.pad_id)
        room = objective.row_length - (objective.frame.row_start is not None)
        self.packing = PACKINGS[packing](self._text.lengths, room, None if held_out else seed)
        self.rows = self.packing.rows
        index, count = process
        self._slice = np.arange(batch_size).reshape(count, -1)[index]
        if not held_out and self.rows < batch_size:
            raise ValueError(
                f"batch_size={batch_size} is more than the {self.rows} rows of {objective.row_length} tokens in "
                f"{len(self._text.lengths):,} documents: lower batch_size or sequence_length, or add text."
            )

    def __len__(self):
        """Batches in an epoch: whole ones in training (what is left opens the next epoch), all in validation."""
        return math.ceil(self.rows / self.batch_size) if self.held_out else self.rows // self.batch_size

    @property
    def tokens_per_batch(self):
        """Positions, encoder's and decoder's, in a batch over all processes."""
        return self.batch_size * (self.objective.sequence_length + self.objective.target_length)

    def batch(self, step):
        """(x, y, w) of a step: this process's slice. x: dict of int32 arrays; y: int32; w: float32, 0 or 1."""
        if step < 0 or (self.held_out and step >= len(self)):
            raise IndexError(f"There is no batch {step}" + f" among {len(self)} of validation." * self.held_out)
        return self._make(step * self.batch_size + self._slice)

    def rows_of(self, step):
        """(epoch, index) of each row of a step's batch, over all processes: what `row` takes."""
        numbers = step * self.batch_size + np.arange(self.batch_size)
        return [(int(number // self.rows), int(number % self.rows)) for number in numbers]

    def row(self, epoch, index):
        """(x, y, w) of one row of an epoch, without a batch axis."""
        if not 0 <= index < self.rows or epoch < 0 or (self.held_out and epoch):
            raise IndexError(f"There is no row {index} of epoch {epoch}: an epoch has {self.rows} rows.")
        x, y, w = self._make(np.array([epoch * self.rows + index]))
        return {key: value[0] for key, value in x.items()}, y[0], w[0]

    def _make(self, numbers):
        epochs, index = np.divmod(numbers, self.rows)
        pieces = []
        for epoch in [0] if self.held_out else np.unique(epochs).tolist():
            here = np.flatnonzero(epochs == epoch)
            row, *rest = self.packing.pieces(epoch, index[here])
            pieces.append((here[row], *rest))
        pieces = [np.concatenate(part) for part in zip(*pieces)]
        rows = self._text.rows(pieces, len(numbers), self.objective.row_length)
        return self.objective(rows, RowRandom(self.seed, epochs, index, stream=int(self.held_out)))

    def __iter__(self):
        """One epoch of batches, from step 0."""
        return self.iterate(0, len(self))

    def iterate(self, start=0, stop=None, threads=2, prefetch=8):
        """A generator of the batches from step `start`, without end unless `stop` is given; made ahead by threads.

        Keras's `fit` takes it, with `steps_per_epoch`; a run is resumed with `start` = the steps done.
        """
        yield from self.dataset(start, stop, threads, prefetch)

    def dataset(self, start=0, stop=None, threads=2, prefetch=8):
        """The same as a `grain.IterDataset`, which can be read again and again, as `fit` does with `validation_data`.

        Without `stop` training is endless, and validation ends with its last batch: `fit(validation_data=
        data.validation.dataset(), validation_steps=len(data.validation))`.
        """
        import grain  # here, for it is slow to import and asking for single batches does not need it

        if stop is None:
            stop = len(self) if self.held_out else ENDLESS
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
        return grain.MapDataset.range(start, stop).map(self.batch).to_iter_dataset(options)

    def unigram_perplexity(self, batches=1000):
        """Perplexity of the validation labels under the add-one smoothed frequencies of the training labels.

        Both are counted where the objective has labels (w = 1): in all validation batches, and in one epoch of
        training or its first `batches`. With counts c of training, N their sum, h of validation and V the vocabulary
        size, p(v) = (c(v) + 1) / (N + V), and the result is exp(-sum_v h(v) log p(v) / sum_v h(v)): what a model that
        knows nothing but frequencies reaches.
        """
        if self.validation is None:
            raise ValueError("There is no validation part to measure: give a validation_share.")
        counts = self._label_counts(min(batches, len(self))) + 1.0
        held_out = self.validation._label_counts(len(self.validation))
        return float(np.exp(-np.sum(held_out * np.log(counts / counts.sum())) / held_out.sum()))

    def _label_counts(self, batches):
        counts = np.zeros(self.objective.tokenizer.vocabulary_size)
        for step in range(batches):
            _, y, w = self._make(step * self.batch_size + np.arange(self.batch_size))
            counts += np.bincount(y[w > 0], minlength=len(counts))
        return counts


def _check_counts(batch_size, seed, process_index, process_count):
    if batch_size < 1 or process_count < 1 or batch_size % process_count:
        raise ValueError(f"batch_size={batch_size} must be a positive multiple of process_count={process_count}.")
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index={process_index} is not below process_count={process_count}.")
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed={seed} must lie in [0, 2**63).")
