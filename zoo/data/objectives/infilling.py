"""BART's denoising: text is infilled, shuffled, rotated or thinned out, and the decoder writes it as it was."""

import dataclasses
import functools
import math

import numpy as np

from zoo.data.objectives.base import Objective, decoder_inputs
from zoo.data.objectives.passages import sentence_ends
from zoo.data.rows import Documents, Frame, restarted_positions


@dataclasses.dataclass(frozen=True)
class BARTDenoising(Objective):
    """Spans of Poisson length become one mask each, and the decoder writes the whole row again.

    Of a row's C ordinary tokens round(rate C) are hidden, in spans whose lengths are drawn from Poisson(`poisson`)
    until they add up; the last is cut short. Each stands at a random place among the tokens left. A span of length 0
    inserts a mask. A span that meets a special token or the end of its document goes on behind it with another mask.
    Rows start with bos (else cls), documents end with eos (else sep); these stay where they are.

    Before that, on request, the sentences of each document in the row are shuffled, and the document is turned to begin
    at a uniformly random token. Last, tokens that are not hidden are deleted, each with probability `deletion`.

    Args:
        rate: share of hidden tokens; 0 = no infilling.
        poisson: mean length of a span.
        permute_sentences: whether sentences are shuffled, as in the published models.
        rotate: whether documents are rotated.
        deletion: share of the tokens deleted.
        decoder_start: id the decoder starts with; None = the tokenizer's eos, else sep.

    x: token_ids, segment_ids, positions (padded at the end) and decoder_token_ids, decoder_segment_ids,
    decoder_positions; y, the row as it was, and w: all (b, sequence_length).

    Source: Lewis et al. 2019, arXiv 1910.13461, section 2.2.

    >>> from zoo import Tokenizer, data
    >>> tokenizer = Tokenizer.train(["to be . or not to be ."], kind="wordpiece", vocabulary_size=40)
    >>> objective = data.BARTDenoising(permute_sentences=True).bind(tokenizer, 13)
    >>> x, y, w = objective(tokenizer.batch(["to be. or not."], pad_to=13), np.random.default_rng(0))
    >>> tokenizer.decode(x["token_ids"][0], skip_special_tokens=False)
    '[CLS] to be. [MASK] or [MASK]. [SEP] [PAD] [PAD] [PAD]'
    """

    rate: float = 0.3
    poisson: float = 3.0
    permute_sentences: bool = False
    rotate: bool = False
    deletion: float = 0.0
    decoder_start: int | None = None

    roles = property(lambda self: ("mask",) if self.rate else ())
    target_length = property(lambda self: self.sequence_length)
    end_id = property(lambda self: self.role("eos", "sep"))

    def check(self):
        for name in ("rate", "deletion"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie in [0, 1).")
        if not (self.rate or self.deletion or self.rotate or self.permute_sentences):
            raise ValueError("BARTDenoising(rate=0) needs another noise: permute_sentences, rotate or deletion.")
        if not 0 < self.poisson <= 100:
            raise ValueError(f"poisson={self.poisson} must lie in (0, 100] tokens.")
        if self.rate:
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

    def make(self, rows, rng):
        segments, (b, t) = rows.segment_ids, rows.token_ids.shape
        ordinary = (segments > 0) & ~self.is_special[rows.token_ids]
        tokens = self._moved(rows, rng)
        span, inserted = self._spans(ordinary.sum(axis=1), t, rng)
        place = np.maximum(np.cumsum(ordinary, axis=1) - 1, 0)  # which of the ordinary tokens a column holds
        span = np.where(ordinary, np.take_along_axis(span, place, axis=1), 0)  # (b, t): the span it is in, 0 = none
        inserted = np.where(ordinary, np.take_along_axis(inserted, place, axis=1), 0)  # masks put before it

        hidden, leads = span > 0, span > 0
        leads[:, 1:] &= (span[:, 1:] != span[:, :-1]) | (segments[:, 1:] != segments[:, :-1])
        kept = (segments > 0) & (~hidden | leads)
        if self.deletion:
            kept &= hidden | ~ordinary | (rng.random(t) >= self.deletion)
        room = ((segments > 0) & ~kept).sum(axis=1, keepdims=True)  # insertions may use what the rest saves
        inserted = np.diff(np.minimum(np.cumsum(inserted, axis=1), room), axis=1, prepend=0)
        emitted = inserted + kept
        source = np.repeat(np.arange(b * t), emitted.ravel())
        # A column's own token comes last, behind the masks put before it.
        final = kept.ravel()[source] & (np.cumsum(emitted.ravel())[source] - 1 == np.arange(len(source)))
        column = np.arange(len(source)) - np.repeat(np.cumsum(emitted.sum(1)) - emitted.sum(1), emitted.sum(1))
        token_ids, segment_ids = np.full((b, t), self.pad_id, "int32"), np.zeros((b, t), "int32")
        shown = np.where(final & ~hidden.ravel()[source], tokens.ravel()[source], self.role("mask") or 0)
        token_ids[source // t, column], segment_ids[source // t, column] = shown, segments.ravel()[source]
        x = {"token_ids": token_ids, "segment_ids": segment_ids, "positions": restarted_positions(segment_ids)}
        y = rows.token_ids
        return x | decoder_inputs(y, segments, self.start_id), y, (segments > 0).astype("float32")

    @functools.cached_property
    def _ends(self):
        return sentence_ends(self.tokenizer)

    def _moved(self, rows, rng):
        """The tokens with sentences shuffled and documents rotated, but for what stands around them."""
        tokens = rows.token_ids.copy()
        around = [one for one in (self.frame.row_start, self.frame.document_end) if one is not None]
        documents = Documents(np.where(np.isin(tokens, around), 0, rows.segment_ids))
        place, of = documents.place, documents.document
        if self.permute_sentences:
            begins = np.concatenate([[True], self._ends[tokens.ravel()[place[:-1]]] | (of[1:] != of[:-1])])[: len(of)]
            score = rng.random(tokens.shape[1]).ravel()[place[begins]][np.cumsum(begins) - 1]
            tokens.ravel()[place] = tokens.ravel()[place[np.lexsort((score, of))]]
        if self.rotate:
            shift = (documents.pick(rng.random(tokens.shape[1])) * documents.length).astype("int64")
            source = (documents.inside + shift[of]) % documents.length[of] - documents.inside
            tokens.ravel()[place] = tokens.ravel()[place + source]
        return tokens

    def _spans(self, count, t, rng):
        """For `count` (b,) tokens: the span each is in (b, t), 0 = none, and the empty spans before each (b, t)."""
        most = 2 * math.ceil(self.rate * t / self.poisson) + 16
        length = np.searchsorted(self._cumulative, rng.random(most))
        wanted, count = np.round(self.rate * count).astype("int64")[:, None], count[:, None]
        before = np.cumsum(length, axis=1) - length
        used = before < wanted
        length = np.minimum(length, np.maximum(wanted - before, 0))
        left = count - length.sum(axis=1, keepdims=True)
        gap = np.sort(np.where(used, rng.random(most) * (left + 1), np.inf), axis=1)  # tokens left before each span
        start = np.where(used, gap, 0).astype("int64") + before

        def tally(which, columns):
            row, span = np.nonzero(which)
            return np.bincount(row * (t + 1) + columns[row, span], minlength=len(count) * (t + 1)).reshape(-1, t + 1)

        filled = used & (length > 0)
        opened, closed = tally(filled, start), tally(filled, start + length)
        number = np.cumsum(opened, axis=1) * (np.cumsum(opened - closed, axis=1) > 0)
        inserted = tally(used & (length == 0), np.minimum(start, count - 1))
        return number[:, :t], inserted[:, :t]
