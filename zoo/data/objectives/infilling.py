"""Text infilling, the objective of BART: spans shrink to one mask each, and the decoder writes the whole text again."""

import dataclasses
import functools
import math

import numpy as np

from zoo.data.objectives.base import Objective, check_share, decoder_inputs
from zoo.data.rows import Frame, restarted_positions


@dataclasses.dataclass(frozen=True)
class BARTDenoising(Objective):
    """Text infilling: spans of Poisson length become one mask each, and the decoder writes the whole row again.

    Of a row's C ordinary tokens round(rate C) are hidden, in spans whose lengths are drawn from Poisson(`poisson`)
    until they add up; the last is cut short. Each stands at a random place among the tokens left. A span of length 0
    inserts a mask. A span that meets a special token or the end of its document goes on behind it with another mask.
    Rows start with bos (else cls), documents end with eos (else sep). Sentences are not permuted.

    Args:
        rate: share of hidden tokens.
        poisson: mean length of a span.
        decoder_start: id the decoder starts with; None = the tokenizer's eos, else sep.

    x: token_ids, segment_ids, positions (padded at the end) and decoder_token_ids, decoder_segment_ids,
    decoder_positions; y, the row as it was, and w: all (b, sequence_length).

    Source: Lewis et al. 2019, arXiv 1910.13461, section 2.2.
    """

    rate: float = 0.3
    poisson: float = 3.0
    decoder_start: int | None = None

    target_length = property(lambda self: self.sequence_length)
    end_id = property(lambda self: self.role("eos", "sep"))

    def check(self):
        check_share(rate=self.rate)
        if not 0 < self.poisson <= 100:
            raise ValueError(f"poisson={self.poisson} must lie in (0, 100] tokens.")
        self.need("mask")
        if self.decoder_start is None:
            self.need("eos", "sep")

    @property
    def start_id(self):
        return self.end_id if self.decoder_start is None else self.decoder_start

    @property
    def frame(self):
        return Frame(row_start=self.role("bos", "cls"), document_end=self.end_id)

    @functools.cached_property
    def _cumulative(self):
        """P(length <= i) of the Poisson distribution."""
        count = np.arange(int(self.poisson + 12 * math.sqrt(self.poisson)) + 12)
        return np.cumsum(np.exp(count * math.log(self.poisson) - self.poisson - [math.lgamma(i + 1) for i in count]))

    def make(self, rows, random):
        tokens, segments = rows.token_ids, rows.segment_ids
        b, t = tokens.shape
        ordinary = (segments > 0) & ~self.is_special[tokens]
        span, inserted = self._spans(ordinary.sum(axis=1), t, random)
        place = np.maximum(np.cumsum(ordinary, axis=1) - 1, 0)  # which of the ordinary tokens a column holds
        span = np.where(ordinary, np.take_along_axis(span, place, axis=1), 0)  # (b, t): the span it is in, 0 = none
        inserted = np.where(ordinary, np.take_along_axis(inserted, place, axis=1), 0)  # masks put before it

        hidden, leads = span > 0, span > 0
        leads[:, 1:] &= (span[:, 1:] != span[:, :-1]) | (segments[:, 1:] != segments[:, :-1])
        room = (hidden & ~leads).sum(axis=1, keepdims=True)  # insertions may use what hiding saves
        inserted = np.diff(np.minimum(np.cumsum(inserted, axis=1), room), axis=1, prepend=0)
        emitted = inserted + (segments > 0) * (~hidden | leads)
        source = np.repeat(np.arange(b * t), emitted.ravel())
        final = np.cumsum(emitted.ravel())[source] - 1 == np.arange(len(source))  # a column's own token comes last
        column = np.arange(len(source)) - np.repeat(np.cumsum(emitted.sum(1)) - emitted.sum(1), emitted.sum(1))
        token_ids, segment_ids = np.full((b, t), self.pad_id, "int32"), np.zeros((b, t), "int32")
        shown = np.where(final & ~hidden.ravel()[source], tokens.ravel()[source], self.tokenizer.mask_id)
        token_ids[source // t, column], segment_ids[source // t, column] = shown, segments.ravel()[source]
        x = {"token_ids": token_ids, "segment_ids": segment_ids, "positions": restarted_positions(segment_ids)}
        return x | decoder_inputs(tokens, segments, self.start_id), tokens, (segments > 0).astype("float32")

    def _spans(self, count, t, random):
        """For `count` (b,) tokens: the span each is in (b, t), 0 = none, and the empty spans before each (b, t)."""
        most = 2 * math.ceil(self.rate * t / self.poisson) + 16
        length = np.searchsorted(self._cumulative, random(most))
        wanted, count = np.round(self.rate * count).astype("int64")[:, None], count[:, None]
        before = np.cumsum(length, axis=1) - length
        used = before < wanted
        length = np.minimum(length, np.maximum(wanted - before, 0))
        left = count - length.sum(axis=1, keepdims=True)
        gap = np.sort(np.where(used, random(most) * (left + 1), np.inf), axis=1)  # tokens left before each span
        start = np.where(used, gap, 0).astype("int64") + before

        def tally(which, columns):
            row, span = np.nonzero(which)
            return np.bincount(row * (t + 1) + columns[row, span], minlength=len(count) * (t + 1)).reshape(-1, t + 1)

        filled = used & (length > 0)
        opened, closed = tally(filled, start), tally(filled, start + length)
        number = np.cumsum(opened, axis=1) * (np.cumsum(opened - closed, axis=1) > 0)
        inserted = tally(used & (length == 0), np.minimum(start, count - 1))
        return number[:, :t], inserted[:, :t]
