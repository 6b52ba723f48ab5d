"""Batches of examples that are arrays already, for fine-tuning: a pure function of (arrays, seed, step).

Rows of similar length share a batch, which is cut to the length it needs, in few sizes so that few programs are
compiled. It knows the batch dictionary and no tokenizer, no task and no model.
"""

import numpy as np
from numpy.random import Generator, Philox

SHUFFLED = 50  # batches whose rows are sorted by length together


def width(length):
    """The number of slots for texts of some length: few sizes, and less than a quarter above it beyond 64.

    >>> [width(n) for n in (3, 16, 17, 65, 100, 200, 400)]
    [16, 16, 32, 80, 112, 224, 448]
    """
    step = max(16, 2 ** (max(int(length) - 1, 1).bit_length() - 3))
    return -(-int(length) // step) * step


class Batches:
    """Batches (x, y, w) of arrays that lie in memory.

    In training an epoch has the whole batches of a seeded permutation; up to `batch_size` - 1 rows, others each time,
    are left out. Held-out batches are in order of length, each row once, with rows of weight 0 to fill the last.

    Args:
        x: dictionary of arrays (n, t) or (n, choices, t), padded at the right; see `zoo.batch`.
        y: labels (n, …); with weights of two axes they are by token, else by row.
        w: weights (n,) or of the shape of y, or None for 1 a row.
        batch_size: rows in a batch.
        seed: of the order.
        held_out: whether the rows are for evaluation.
        exact: whether batches have the very length of their longest text, where no program is compiled for it.
        process_index, process_count: which slice of each batch is given, and of how many, where processes share a
            batch. The slices of one batch have the same length.

    Attributes:
        rows: n.
        index: of held-out rows, which of the n is at each place, so that predictions can be put back.

    Raises:
        ValueError: fewer rows than one batch to train on, or slices that do not divide a batch.
    """

    def __init__(self, x, y, w=None, batch_size=32, seed=0, held_out=False, exact=False, process_index=0,
                 process_count=1):  # fmt: skip
        if batch_size % process_count:
            raise ValueError(f"batch_size={batch_size} does not divide into {process_count} slices.")
        self.x, self.y, self.rows = x, np.asarray(y), len(y)
        self.w = np.ones(self.rows, "float32") if w is None else np.asarray(w, "float32")
        self.batch_size, self.seed, self.held_out, self.exact = batch_size, seed, held_out, exact
        rows = batch_size // process_count
        self._slice = slice(process_index * rows, (process_index + 1) * rows)
        mask = x.get("padding_mask", x.get("segment_ids"))
        self._encoder = self._lengths(np.ones_like(x["token_ids"]) if mask is None else mask)
        by_token = self.w.ndim > 1
        self._decoder = self._lengths(self.w) if by_token and "decoder_token_ids" in x else self._encoder
        self._labels = self._decoder if by_token else None
        if not held_out and self.rows < batch_size:
            raise ValueError(f"batch_size={batch_size} is more than the {self.rows} rows to train on: lower it.")
        self.index = np.argsort(-self._encoder, kind="stable")
        self._order = None

    def _lengths(self, mask):
        """Slots up to the last that is not padding, (n,)."""
        mask = np.asarray(mask) != 0
        last = mask.shape[-1] - np.argmax(mask[..., ::-1], axis=-1)
        return np.where(mask.any(axis=-1), last, 1).reshape(self.rows, -1).max(axis=1)

    def __len__(self):
        """Batches in an epoch."""
        return -(-self.rows // self.batch_size) if self.held_out else self.rows // self.batch_size

    @property
    def tokens_per_batch(self):
        """Tokens in a batch, the encoder's and the decoder's, on average."""
        own = 0 if self._decoder is self._encoder else self._decoder.mean()
        return round((self._encoder.mean() + own) * self.batch_size)

    def batch(self, step):
        """(x, y, w) of a step, or this process's slice of them; y and w have the rows of x."""
        if step < 0 or (self.held_out and step >= len(self)):
            raise IndexError(f"There is no batch {step}" + f" among {len(self)}." * self.held_out)
        if self.held_out:
            index = self.index[step * self.batch_size : (step + 1) * self.batch_size]
            missing = self.batch_size - len(index)
            x, y, w = self._cut(np.concatenate([index, np.repeat(index[-1:], missing)]))
            w[len(index) :] = 0
        else:
            epoch, place = divmod(step, len(self))
            x, y, w = self._cut(self._epoch(epoch)[place])
        return {key: value[self._slice] for key, value in x.items()}, y[self._slice], w[self._slice]

    def rows_of(self, step):
        """(epoch, row) of each row of a step's batch in training."""
        epoch, place = divmod(step, len(self))
        return [(epoch, int(row)) for row in self._epoch(epoch)[place][self._slice]]

    def _epoch(self, epoch):
        """(batches, batch_size): the rows of each batch of an epoch."""
        if self._order is None or self._order[0] != epoch:
            rng = Generator(Philox(key=[self.seed, epoch]))
            rows = rng.permutation(self.rows)[: len(self) * self.batch_size]
            for start in range(0, len(rows), SHUFFLED * self.batch_size):
                part = rows[start : start + SHUFFLED * self.batch_size]
                part[:] = part[np.argsort(-self._encoder[part], kind="stable")]
            self._order = epoch, rng.permutation(rows.reshape(len(self), self.batch_size))
        return self._order[1]

    def _cut(self, index):
        def cut(values, lengths):
            if lengths is None:
                return values[index]
            longest = lengths[index].max()
            return values[index][..., : longest if self.exact else min(width(longest), values.shape[-1])]

        sides = {key: self._decoder if key.startswith("decoder_") else self._encoder for key in self.x}
        sides["mask_positions"] = None
        x = {key: cut(value, sides[key]) for key, value in self.x.items()}
        return x, cut(self.y, self._labels), cut(self.w, self._labels)

    def iterate(self, start=0, stop=None):
        """A generator of the batches from step `start`; without end in training unless `stop` is given."""
        stop = len(self) if stop is None and self.held_out else stop
        step = start
        while stop is None or step < stop:
            yield self.batch(step)
            step += 1
