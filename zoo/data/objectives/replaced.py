"""Replaced token detection: some tokens are exchanged for others, and every token is judged."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from zoo.data.objectives.base import Objective, check_share
from zoo.data.objectives.masked import MaskedLM

SAMPLE = 10_000_000  # tokens of the corpus that frequencies are counted on, at most twice as many


@dataclasses.dataclass(frozen=True)
class ReplacedTokenDetection(Objective):
    """Tell replaced tokens from original ones: y[t] = 1 where token[t] differs from what it was.

    round(rate C) of a row's C ordinary tokens are chosen as in `MaskedLM`, and each is replaced by a draw: from
    `generator`, else from the frequencies of tokens in the corpus, p(v) = c(v) / sum c. A draw may be the token that
    was there; its label is then 0. Every token that is no padding is judged, special ones too.

    Args:
        rate: share of the ordinary tokens that are drawn anew.
        generator: called as generator(x, uniform) with the batch of `MaskedLM`, all chosen tokens masked, and uniform
            numbers (b, m); returns ids (b, m) for `mask_positions`. Such a model is trained apart, or beside.
        frequencies: (vocabulary_size,) how often each token is drawn; None = as often as in the token store that
            `pretraining` works on, or, without one, all ordinary tokens alike.

    x: token_ids, segment_ids, positions; y (0 or 1), w: all (b, sequence_length). For `zoo.ReplacedTokenDetector`.

    Source: Clark et al. 2020 (ELECTRA), arXiv 2003.10555, section 2; without a generator, the unigram one of its
    section 3.2.

    >>> from zoo import Tokenizer, data
    >>> tokenizer = Tokenizer.train(["to be or not to be"], kind="char")
    >>> objective = data.ReplacedTokenDetection().bind(tokenizer, 20)
    >>> x, y, w = objective(tokenizer.batch(["to be or not to be"], pad_to=20), np.random.default_rng(0))
    >>> tokenizer.decode(x["token_ids"][0]), np.flatnonzero(y[0]).tolist()
    ('to  e or no  oo be', [3, 11, 13])
    """

    rate: float = 0.15
    generator: Callable | None = None
    frequencies: np.ndarray | None = dataclasses.field(default=None, repr=False, compare=False)

    frame = MaskedLM.frame
    roles = property(lambda self: ("mask",) if self.generator else ())

    def check(self):
        check_share(rate=self.rate)
        if self.generator is not None:
            self.need("mask")
        if self.frequencies is not None:
            counts = np.asarray(self.frequencies)
            if counts.shape != (self.tokenizer.vocabulary_size,) or counts.min() < 0 or not counts.sum() > 0:
                raise ValueError(
                    f"frequencies must be {self.tokenizer.vocabulary_size} numbers, none negative and not all 0."
                )

    def informed(self, tokens):
        if self.frequencies is not None or self.generator is not None:
            return self
        some = tokens[:: max(1, len(tokens) // SAMPLE)]
        return dataclasses.replace(self, frequencies=np.bincount(some, minlength=self.tokenizer.vocabulary_size))

    @functools.cached_property
    def _masked(self):
        return MaskedLM(self.rate, tokenizer=self.tokenizer, sequence_length=self.sequence_length)

    @functools.cached_property
    def _cumulative(self):
        """P(token <= v) of the frequencies."""
        total = np.cumsum(~self.is_special if self.frequencies is None else self.frequencies)
        return total / total[-1]

    def make(self, rows, rng):
        masked = self._masked
        numbers = rng.random(masked.place_draws + masked.mask_count)
        row, place, column, _ = masked.places(rows, numbers[:, : masked.place_draws])
        at, uniform = (row, place), numbers[:, masked.place_draws :]
        x = {"token_ids": rows.token_ids.copy(), "segment_ids": rows.segment_ids, "positions": rows.positions}
        if self.generator is None:
            x["token_ids"][at] = np.searchsorted(self._cumulative, uniform[row, column], side="right")
        else:
            x["token_ids"][at] = self.tokenizer.mask_id
            positions = np.zeros(uniform.shape, "int32")
            positions[row, column] = place
            drawn = np.asarray(self.generator({**x, "mask_positions": positions}, uniform))
            x = {**x, "token_ids": rows.token_ids.copy()}
            x["token_ids"][at] = drawn[row, column]
        y = (x["token_ids"] != rows.token_ids).astype("int32")
        return x, y, (rows.segment_ids > 0).astype("float32")
