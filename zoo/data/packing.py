"""Which piece of which document stands in which row. It knows lengths and a seed; no token and no objective.

A packing answers one question: `pieces(epoch, rows)`, what those rows are made of. The answer is a pure function of
(lengths, row_length, seed, epoch, row): any row of any epoch can be had alone, and only one epoch's order is kept.
"""

import numpy as np


class Packing:
    """What the packings share: the row count and one remembered epoch.

    Args:
        lengths: (documents,) tokens of each document, all positive.
        row_length: tokens a row can hold.
        seed: of the order of documents and rows; None = as they stand, without a draw, the last row kept when not full.
    """

    def __init__(self, lengths, row_length, seed=0):
        self.lengths, self.row_length, self.seed = np.asarray(lengths, "int64"), row_length, seed
        self.tokens = int(self.lengths.sum())
        self._epoch = (None, None)

    @property
    def padding_share(self):
        """The share of the rows' places that hold no token."""
        places = self.rows * self.row_length
        return max(0.0, 1 - self.tokens / places) if places else 0.0

    def pieces(self, epoch, rows):
        """The pieces of `rows` (n,), each below `self.rows`, in reading order.

        Returns: four int64 arrays of equal length: index into `rows`, document, where the piece starts in it, tokens.
        """
        known, order = self._epoch  # one tuple, so that threads never see half of a change
        if known != epoch:
            order = self._order(None if self.seed is None else np.random.default_rng([self.seed, 2, epoch]))
            self._epoch = (epoch, order)
        return self._pieces(order, np.asarray(rows, "int64"))


class Concatenate(Packing):
    """All documents end to end, in an order drawn anew each epoch, cut every `row_length` tokens.

    The stream is a ring that each epoch enters at a random place, so that even one long document is cut differently
    each time; the rows come in random order. Every token is in exactly one row, but for a tail shorter than a row,
    another one each epoch. Nothing is padding. So GPT-3, Brown et al. 2020, arXiv 2005.14165, appendix B.
    """

    def __init__(self, lengths, row_length, seed=0):
        super().__init__(lengths, row_length, seed)
        self.rows = self.tokens // row_length if seed is not None else -(-self.tokens // row_length)

    def _order(self, rng):
        count = len(self.lengths)
        documents = rng.permutation(count) if rng else np.arange(count)
        shift = int(rng.integers(self.tokens)) if rng else 0
        rows = rng.permutation(self.rows) if rng else np.arange(self.rows)
        return documents, np.cumsum(self.lengths[documents]), shift, rows

    def _pieces(self, order, rows):
        documents, ends, shift, chunks = order
        count, total = len(documents), self.tokens
        first = (chunks[rows] * self.row_length + shift) % total  # where each row begins on the ring
        last = first + self.row_length
        if self.seed is None:
            last = np.minimum(last, total)
        rank = np.searchsorted(ends, first, side="right")  # the document a row begins in, as a rank in the order
        lap, place = np.divmod(last - 1, total)
        pieces = np.searchsorted(ends, place, side="right") + lap * count - rank + 1
        row = np.repeat(np.arange(len(rows)), pieces)
        rank = _ranges(rank, pieces)
        lap, rank = np.divmod(rank, count)
        document = documents[rank]
        end = ends[rank] + lap * total
        begin = end - self.lengths[document]
        start, stop = np.maximum(begin, first[row]), np.minimum(end, last[row])
        return row, document, start - begin, stop - start


class BestFit(Packing):
    """Whole documents where they fit best: best-fit decreasing; only a document longer than a row is split.

    The longest document goes first, each into the fullest row that still has room for it: Johnson 1973; for language
    models Ding et al. 2024, arXiv 2404.10830. Documents of one length are interchangeable, so the packing is computed
    on the histogram of lengths, as in Krell et al. 2021, arXiv 2107.02027: exactly the rows of best-fit decreasing,
    without a search for each document. An epoch draws which document takes which place of its length, and the order of
    the rows.
    """

    def __init__(self, lengths, row_length, seed=0):
        super().__init__(lengths, row_length, seed)
        pieces = -(-self.lengths // row_length)
        self.document = np.repeat(np.arange(len(pieces)), pieces)
        self.start = _ranges(np.zeros_like(pieces), pieces) * row_length
        self.length = np.minimum(self.lengths[self.document] - self.start, row_length)
        self.row_of_place = best_fit_decreasing(np.bincount(self.length, minlength=row_length + 1))
        self.rows = int(self.row_of_place.max(initial=-1)) + 1

    def _order(self, rng):
        count = len(self.length)
        piece = rng.permutation(count) if rng else np.arange(count)
        piece = piece[np.argsort(-self.length[piece], kind="stable")]  # the pieces in the order of the places
        rows = rng.permutation(self.rows) if rng else np.arange(self.rows)
        row = rows[self.row_of_place]
        return piece[np.argsort(row, kind="stable")], np.concatenate([[0], np.cumsum(np.bincount(row))])

    def _pieces(self, order, rows):
        piece, offsets = order
        count = offsets[rows + 1] - offsets[rows]
        piece = piece[_ranges(offsets[rows], count)]
        return np.repeat(np.arange(len(rows)), count), self.document[piece], self.start[piece], self.length[piece]


PACKINGS = {"concatenate": Concatenate, "best_fit": BestFit}


def best_fit_decreasing(histogram):
    """Rows of best-fit decreasing for `histogram[length]` pieces of each length; the last length is the row's.

    Returns: (pieces,) int64, the row of each piece, pieces in order of falling length.

    >>> best_fit_decreasing([0, 1, 0, 2, 1]).tolist()                      # lengths 4, 3, 3, 1 in rows of 4
    [0, 1, 2, 1]
    """
    capacity = len(histogram) - 1
    open_rows = [[] for _ in range(capacity + 1)]  # by room left: arrays of row numbers
    rooms = np.zeros(capacity + 1, bool)  # which of them are not empty
    placed, new_row = [], 0
    for length in range(capacity, 0, -1):
        left = int(histogram[length])
        while left:
            room = length + int(np.argmax(rooms[length:]))
            if rooms[room]:
                rows = np.concatenate(open_rows[room])
            else:  # no open row has room for it: as many new ones as the rest of this length fills
                room = capacity
                rows = np.arange(new_row, new_row - (-left // (capacity // length)))
                new_row += len(rows)
            each = room // length  # a row that took one is a tighter fit for the next: it takes all it can
            full = min(len(rows), left // each)
            rest = left - full * each if full < len(rows) else 0  # what one more row takes, not filled up
            placed += [np.repeat(rows[:full], each), np.repeat(rows[full : full + 1], rest)]
            left -= full * each + rest
            open_rows[room], rooms[room] = [], False
            for changed, taken in ((rows[:full], each), (rows[full : full + 1], rest), (rows[full + 1 :], 0)):
                after = room - taken * length
                if len(changed):
                    open_rows[after].append(changed)
                    rooms[after] = after > 0
    return np.concatenate(placed) if placed else np.zeros(0, "int64")


def _ranges(starts, counts):
    """The numbers starts[0], starts[0] + 1, … (counts[0] of them), starts[1], … in one array."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - counts), counts)
