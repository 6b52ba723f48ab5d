"""From pieces of documents to rows of tokens, and the random numbers of a row. No objective, no file.

`Rows` is what an objective works on, `Documents` where documents lie in them; `Frame` says which special tokens stand
around documents; `RowRandom` gives each row its own generator, so that a row comes out the same alone, in any batch and
in any process.
"""

import dataclasses

import numpy as np
from numpy.random import Generator, Philox


@dataclasses.dataclass(frozen=True)
class Frame:
    """Special tokens set around the text: one at the start of each row, one before and one after each document.

    None = no such token. A document split over rows has its start and end tokens once, where it starts and ends.
    """

    row_start: int | None = None
    document_start: int | None = None
    document_end: int | None = None

    @property
    def extra(self):
        """How many tokens a document gains."""
        return (self.document_start is not None) + (self.document_end is not None)


@dataclasses.dataclass(frozen=True)
class Rows:
    """Packed rows: token_ids, segment_ids (0 = padding, 1, 2, … = documents) and positions, all (b, t) int32."""

    token_ids: np.ndarray
    segment_ids: np.ndarray
    positions: np.ndarray

    @classmethod
    def of(cls, batch):
        """Rows of a dictionary with `token_ids` and `segment_ids` or `padding_mask`, as `Tokenizer.batch` makes it."""
        known = set(batch) if isinstance(batch, dict) else set()
        if "token_ids" not in known or not known & {"segment_ids", "padding_mask"}:
            raise ValueError("An objective takes Rows, or a dictionary of token_ids and segment_ids or padding_mask.")
        segment_ids = np.asarray(batch.get("segment_ids", batch.get("padding_mask")), "int32")
        return cls(np.asarray(batch["token_ids"], "int32"), segment_ids, restarted_positions(segment_ids))

    def take(self, index):
        """Some of the rows."""
        return Rows(self.token_ids[index], self.segment_ids[index], self.positions[index])


class Documents:
    """Where the D documents, or their pieces, lie in rows of `segment_ids` (b, t), in reading order.

    Attributes:
        row, start, length: (D,), where each lies; number: (D,), which one of its row it is, from 0.
        place: indices, into the flat rows, of the tokens that are no padding.
        document, inside: of these tokens, which of the D documents each is in, and at what place in it, from 0.
    """

    def __init__(self, segment_ids):
        t = segment_ids.shape[1]
        opens = segment_ids > 0
        opens[:, 1:] &= segment_ids[:, 1:] != segment_ids[:, :-1]
        first = np.flatnonzero(opens)
        self.row, self.start = np.divmod(first, t)
        self.number = np.cumsum(opens, axis=1).ravel()[first] - 1
        self.place = np.flatnonzero(segment_ids)
        self.document = (np.cumsum(opens) - 1)[self.place]
        self.inside = self.place - first[self.document]
        self.length = np.bincount(self.document, minlength=len(first))

    def pick(self, values):
        """(D,): of `values` (b, t), a number for each document of a row."""
        return values[self.row, self.number]


def restarted_positions(segment_ids):
    """Positions (b, t) int32 that restart wherever the segment changes."""
    index = np.arange(segment_ids.shape[1], dtype="int32")
    change = np.zeros(segment_ids.shape, bool)
    change[:, 1:] = segment_ids[:, 1:] != segment_ids[:, :-1]
    return index - np.maximum.accumulate(np.where(change, index, 0), axis=1, dtype="int32")


class Text:
    """Documents of a token store in their frame: what a packing cuts into rows.

    Args:
        tokens: all tokens of the store, 1-D.
        spans: starts and stops (documents,) of the documents in `tokens`.
        frame: the special tokens around them.
        pad: the id that fills places without a token.
    """

    def __init__(self, tokens, spans, frame, pad):
        self.tokens, self.frame, self.pad = tokens, frame, pad
        self.starts, self.stops = spans
        self.lengths = self.stops - self.starts + frame.extra

    def rows(self, pieces, count, length):
        """`Rows` (count, length) made of `pieces` (see `Packing.pieces`); rows without a piece are padding."""
        row, document, start, size = pieces
        head = int(self.frame.row_start is not None)
        opens = np.diff(row, prepend=-1) != 0  # a row's first piece
        first = np.flatnonzero(opens)[np.cumsum(opens) - 1]  # of the row that a piece is in
        begin = np.cumsum(size) - size
        every = np.arange(size.sum())  # the tokens of all pieces, end to end
        place = every + np.repeat(row * length - begin[first] + head, size)

        token_ids = np.full((count, length), self.pad, "int32")
        segment_ids, positions = np.zeros_like(token_ids), np.zeros_like(token_ids)
        token_ids.reshape(-1)[place] = self._gather(document, start, size, begin, every)
        segment_ids.reshape(-1)[place] = np.repeat(np.arange(len(row)) - first + 1, size)
        positions.reshape(-1)[place] = every - np.repeat(begin - opens * head, size)
        if head:
            token_ids[row[opens], 0], segment_ids[row[opens], 0] = self.frame.row_start, 1
        return Rows(token_ids, segment_ids, positions)

    def _gather(self, document, start, size, begin, every):
        before, after = self.frame.document_start, self.frame.document_end
        source = every + np.repeat(self.starts[document] + start - (before is not None) - begin, size)
        found = self.tokens.take(source, mode="clip")  # the places of special tokens may lie outside
        if before is not None:
            found[begin[start == 0]] = before
        if after is not None:
            found[(begin + size - 1)[start + size == self.lengths[document]]] = after
        return found


class RowRandom:
    """Uniform random numbers for a batch of rows, row i from its own Philox stream, that of (seed, epoch, row).

    One generator serves all rows: it is set to each row's counter, a tenth of the cost of a generator a row.

    >>> alone = RowRandom(0, epochs=[3], rows=[7]).random(5)
    >>> bool((RowRandom(0, epochs=[3, 3], rows=[6, 7]).random(5)[1] == alone[0]).all())
    True
    """

    def __init__(self, seed, epochs, rows, stream=0):
        self._counters = np.zeros((len(rows), 4), "uint64")
        self._counters[:, 2], self._counters[:, 3] = epochs, rows
        self._key, self._drawn = np.array([seed, stream], "uint64"), 0

    def random(self, count):
        """(b, count) float64 in [0, 1)."""
        first, over = divmod(self._drawn, 4)  # a step of the counter gives four numbers
        self._counters[:, 0] = first
        self._drawn += count
        out = np.empty((len(self._counters), over + count))
        philox = Philox(key=self._key)
        generator, state = Generator(philox), philox.state
        for row, counter in zip(out, self._counters):
            state["state"]["counter"] = counter
            philox.state = state
            generator.random(out=row)
        return out[:, over:]

    def take(self, index):
        """The streams of some of the rows, from where they are now."""
        some = object.__new__(RowRandom)
        some._counters, some._key, some._drawn = self._counters[index], self._key, self._drawn
        return some


class SharedRandom:
    """The same from one numpy Generator for all `rows`: for use without a loader."""

    def __init__(self, generator, rows):
        self._generator, self._rows = generator, rows

    def random(self, count):
        return self._generator.random((self._rows, count))

    def take(self, index):
        return SharedRandom(self._generator, len(index))
