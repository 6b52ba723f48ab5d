"""Masked language modelling: which tokens are hidden, and behind what."""

import dataclasses
import functools
import math

import numpy as np

from zoo.data.objectives.base import Objective, check_share
from zoo.data.rows import Frame


@dataclasses.dataclass(frozen=True)
class MaskedLM(Objective):
    """Predict hidden tokens from both sides: BERT's objective, with masks drawn anew each epoch as RoBERTa's.

    Of a row's C ordinary tokens round(rate C) are chosen, at least one and at most m = ceil(rate sequence_length). A
    chosen token is replaced by the mask with probability `mask_share`, by a uniformly drawn token with probability
    `random_share`, else left. Special tokens and padding are never chosen. With `whole_word` all tokens of a word are
    chosen together, as the tokenizer's `whole_word_starts` tells words: words in random order, passing over those that
    would exceed round(rate C). With `span` a row falls into spans, of tokens or with `whole_word` of words, whose
    lengths are drawn from the geometric distribution P(l) ~ 0.8 ** l, l = 1, …, 10 (mean 3.8), and spans are chosen as
    words are; all tokens of a span are replaced in the same manner. Documents and special tokens end words and spans.

    In scripts without spaces (Chinese, Japanese, Thai, …) a word is what the tokenizer has as one token, for most a
    character: see `Tokenizer.word_start_table`.

    Rows start with cls (else bos) and every document ends with sep (else eos), where the tokenizer has them.

    x: token_ids, segment_ids, positions (b, sequence_length), mask_positions (b, m) ascending; y, w: (b, m). Places
    left over have position 0, label 0 and weight 0.

    Sources: Devlin et al. 2018, arXiv 1810.04805, section 3.1 and appendix A.1; Liu et al. 2019, arXiv 1907.11692;
    spans: Joshi et al. 2019 (SpanBERT), arXiv 1907.10529, section 3.1; whole words: BERT's published code.

    >>> from zoo import Tokenizer, data
    >>> tokenizer = Tokenizer.train(["to be or not to be"], kind="wordpiece", vocabulary_size=40)
    >>> objective = data.MaskedLM(0.3, mask_share=1, random_share=0, whole_word=True).bind(tokenizer, 11)
    >>> x, y, w = objective(tokenizer.batch(["to be or not to be"]), np.random.default_rng(0))
    >>> tokenizer.decode(x["token_ids"][0], skip_special_tokens=False), tokenizer.decode(y[0][w[0] > 0])
    ('[CLS] to [MASK] [MASK] [MASK] not to be [SEP]', 'be or')
    """

    roles = ("mask",)

    rate: float = 0.15
    mask_share: float = 0.8
    random_share: float = 0.1
    whole_word: bool = False
    span: bool = False

    def check(self):
        check_share(rate=self.rate)
        kept = 1 - self.mask_share - self.random_share
        if min(self.mask_share, self.random_share, kept + 1e-9) < 0:
            raise ValueError(
                f"mask_share={self.mask_share} and random_share={self.random_share} must add up to at most 1."
            )
        self.need("mask")
        if self.whole_word and self.tokenizer.word_start_table is None:
            raise ValueError(
                "whole_word=True needs tokens that tell where words begin, and these do not: leave it False."
            )

    @property
    def frame(self):
        return Frame(row_start=self.role("cls", "bos"), document_end=self.role("sep", "eos"))

    @property
    def mask_count(self):
        """m, the number of places a row has for predictions."""
        return min(math.ceil(self.rate * self.sequence_length), self.sequence_length - 1)

    @property
    def place_draws(self):
        """Uniform numbers a row that `places` needs."""
        return self.sequence_length * (1 + self.span)

    def make(self, rows, rng):
        (b, t), m, before = rows.token_ids.shape, self.mask_count, self.place_draws
        numbers = rng.random(before + (t if self.span else m) + m)  # all at once: each call has its cost
        row, place, column, unit = self.places(rows, numbers[:, :before])
        original = rows.token_ids[row, place]
        draw = numbers[row, before + (unit[row, place] if self.span else column)]
        drawn = (numbers[row, column - m] * self.tokenizer.vocabulary_size).astype("int32")
        shown = np.where(draw < self.mask_share + self.random_share, drawn, original)
        token_ids = rows.token_ids.copy()
        token_ids[row, place] = np.where(draw < self.mask_share, self.tokenizer.mask_id, shown)

        positions, y, w = np.zeros((b, m), "int32"), np.zeros((b, m), "int32"), np.zeros((b, m), "float32")
        positions[row, column], y[row, column], w[row, column] = place, original, 1
        x = {
            "token_ids": token_ids,
            "segment_ids": rows.segment_ids,
            "positions": rows.positions,
            "mask_positions": positions,
        }
        return x, y, w

    def places(self, rows, numbers):
        """The n chosen tokens in reading order: row, place in it, rank among its chosen (n,); and `_units` (b, t).

        `numbers` (b, place_draws) decide.
        """
        candidate = (rows.segment_ids > 0) & ~self.is_special[rows.token_ids]
        unit = self._units(rows, candidate, numbers)
        numbers = numbers[:, -self.sequence_length :]
        if self.whole_word or self.span:
            chosen = self._choose_units(candidate, unit, numbers)
        else:
            chosen = self._choose(candidate, numbers)
        row, place = np.nonzero(chosen)
        count = np.bincount(row, minlength=len(chosen))
        return row, place, np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count), unit

    def _wanted(self, candidate):
        """How many tokens of each row are to be chosen, at most: (b, 1)."""
        count = candidate.sum(axis=1, keepdims=True)
        return np.minimum(np.maximum(np.round(self.rate * count).astype("int64"), count > 0), self.mask_count)

    def _choose(self, candidate, numbers):
        """Which of the tokens `candidate` are chosen, those with the smallest numbers: (b, t) bool."""
        draw = np.where(candidate, numbers, 2)
        last = np.maximum(self._wanted(candidate) - 1, 0)
        return candidate & (draw <= np.take_along_axis(np.sort(draw, axis=1), last, axis=1))

    def _choose_units(self, candidate, word, numbers):
        """The same, by whole `word`s (b, t) of them."""
        b, t = candidate.shape
        size = np.bincount((np.arange(b)[:, None] * t + word)[candidate], minlength=b * t).reshape(b, t)
        order = np.argsort(np.where(size > 0, numbers, 2), axis=1)
        size = np.take_along_axis(size, order, axis=1)
        wanted = self._wanted(candidate)
        # Words in order while they fit; then those too large for the room left are struck out, and on with the rest.
        running = size > 0
        while True:
            taken = running & (np.cumsum(size * running, axis=1) <= wanted)
            room = wanted - (size * taken).sum(axis=1, keepdims=True)
            later = running & ~taken & (size <= room)
            if not later.any():
                break
            running = taken | later
        chosen = np.zeros((b, t), bool)
        np.put_along_axis(chosen, order, taken, axis=1)
        return candidate & np.take_along_axis(chosen, word, axis=1)

    def _units(self, rows, candidate, numbers):
        """The number of what a token is chosen together with (b, t): itself, its word, its span."""
        b, t = candidate.shape
        if not (self.whole_word or self.span):
            return np.broadcast_to(np.arange(t), (b, t))
        breaks = ~candidate
        breaks[:, 1:] |= ~candidate[:, :-1] | (rows.segment_ids[:, 1:] != rows.segment_ids[:, :-1])
        start = breaks | (self.tokenizer.whole_word_starts(rows.token_ids) if self.whole_word else True)
        if self.span:
            length = 1 + np.searchsorted(_span_lengths(), numbers[:, :t])
            edge = np.zeros((b, t + 1), bool)  # which of the tokens or words begin a span
            np.put_along_axis(edge, np.minimum(np.cumsum(length, axis=1) - length, t), True, axis=1)
            order = np.maximum(np.cumsum(start, axis=1) - 1, 0)
            start &= breaks | np.take_along_axis(edge, order, axis=1)
        return np.maximum(np.cumsum(start, axis=1) - 1, 0)


@functools.cache
def _span_lengths(p=0.2, longest=10):
    """P(length <= l) for l = 1, …, longest: a geometric distribution, cut off."""
    share = p * (1 - p) ** np.arange(longest)
    return np.cumsum(share) / share.sum()
