"""UL2's mixture of denoisers: short spans, long spans and endings, each announced by a token at the input's start."""

import dataclasses
import functools

import numpy as np

from zoo.data.objectives.base import Objective, decoder_inputs
from zoo.data.objectives.mixture import Mixture
from zoo.data.objectives.prefix import PrefixLM
from zoo.data.objectives.span_corruption import SpanCorruption
from zoo.data.rows import restarted_positions

# (mode, mean span, rate), as published; the sequential denoiser has one span, a quarter of the text, at its end.
DENOISERS = (("R", 3.0, 0.15), ("R", 8.0, 0.15), ("S", None, 0.25), ("X", 3.0, 0.5), ("X", 8.0, 0.5), ("X", 64.0, 0.15),
             ("X", 64.0, 0.5))  # fmt: skip


@dataclasses.dataclass(frozen=True)
class UL2(Objective):
    """A mixture of denoisers, drawn for each row: R regular, X extreme, S sequential; a mode token says which.

    R and X are `SpanCorruption` with their mean span and rate, S is `PrefixLM(share=rate, sentinel=True)`. All work on
    the same R raw tokens, the most for which every denoiser's input and mode token fit into sequence_length; targets
    have the length of the longest. The mode token opens each document of a row's input. What it pushes out of a row
    with several documents is cut, and what the decoder would have to say about that has weight 0.

    Args:
        denoisers: tuple of (mode, mean span, rate) with mode "R", "X" or "S"; S has no mean span (None).
        weights: of the denoisers; None = all alike, as published.
        modes: the tokens that announce R, S and X. The published checkpoints call them [NLU], [S2S] and [NLG].
        decoder_start: id the decoder starts with; None = the tokenizer's pad, else bos.

    x: token_ids, segment_ids, positions (b, sequence_length), decoder_token_ids, decoder_segment_ids,
    decoder_positions (b, target_length); y, w: (b, target_length). For encoder-decoders.

    Source: Tay et al. 2022, arXiv 2205.05131, section 3.1 and table 1.

    >>> from zoo import Tokenizer, data
    >>> tokenizer = Tokenizer.train(["to be or not to be"], kind="unigram", vocabulary_size=120)
    >>> data.UL2().add_tokens(tokenizer, 64)
    3
    >>> objective = data.UL2().bind(tokenizer, 64)
    >>> objective.row_length, objective.target_length  # at 512 tokens these are 567 and 380
    (69, 46)
    """

    denoisers: tuple = DENOISERS
    weights: tuple | None = None
    modes: tuple = ("[R]", "[S]", "[X]")
    decoder_start: int | None = None

    named_tokens = property(lambda self: self.modes)
    sentinel_count = property(lambda self: max(part.sentinel_count for part in self._parts))

    def check(self):
        if not self.denoisers or not {denoiser[0] for denoiser in self.denoisers} <= {"R", "S", "X"}:
            raise ValueError(f"denoisers={self.denoisers} must be (mode, mean span, rate) with mode 'R', 'S' or 'X'.")
        if len(self.modes) != 3:
            raise ValueError(f"modes={self.modes} must be the tokens that announce R, S and X.")
        _ = self._mode_ids
        self.need_sentinels()
        for part in self._parts:
            part.check()
        self._mixture.check()

    @functools.cached_property
    def _parts(self):
        """The denoisers, for inputs that leave one place for the mode."""
        common = {"tokenizer": self.tokenizer, "sequence_length": self.sequence_length - 1}
        parts = [
            PrefixLM(share=rate, sentinel=True, decoder_start=self.decoder_start, **common)
            if mode == "S"
            else SpanCorruption(rate, mean_span, self.decoder_start, **common)
            for mode, mean_span, rate in self.denoisers
        ]
        raw = min((part.row_length for part in parts if isinstance(part, SpanCorruption)), default=parts[0].row_length)
        size = {SpanCorruption: "raw_length", PrefixLM: "sequence_length"}  # an ending's row is longer than its input
        return tuple(dataclasses.replace(part, **{size[type(part)]: raw}) for part in parts)

    @functools.cached_property
    def _mixture(self):
        return Mixture(self._parts, self.weights, tokenizer=self.tokenizer, sequence_length=self.sequence_length - 1)

    @functools.cached_property
    def _mode_ids(self):
        """(denoisers,): the mode token of each."""
        ids = dict(zip("RSX", (self.need_token(mode) for mode in self.modes)))
        return np.array([ids[mode] for mode, *_ in self.denoisers], "int32")

    row_length = property(lambda self: self._parts[0].row_length)
    start_id = property(lambda self: self._parts[0].start_id)

    @property
    def target_length(self):
        spans = [part.target_length for part in self._parts if isinstance(part, SpanCorruption)]
        return max(spans, default=self._parts[0].target_length)

    def make(self, rows, rng):
        chosen = self._mixture.choose(rng)
        x, y, _ = self._mixture.mixed(rows, rng, chosen)
        token_ids, segment_ids = self._announced(x, self._mode_ids[chosen])
        y, decoder_segments = (part[:, : self.target_length].copy() for part in (y, x["decoder_segment_ids"]))
        # Spans whose sentinel was cut from the input are not asked for.
        shown, asked = np.isin(token_ids, self._sentinels), np.isin(y, self._sentinels)
        decoder_segments[np.cumsum(asked, axis=1) > shown.sum(axis=1, keepdims=True)] = 0
        x = {"token_ids": token_ids, "segment_ids": segment_ids, "positions": restarted_positions(segment_ids)}
        return x | decoder_inputs(y, decoder_segments, self.start_id), y, (decoder_segments > 0).astype("float32")

    @functools.cached_property
    def _sentinels(self):
        return self.need_sentinels()

    def _announced(self, x, mode):
        """Token and segment ids (b, sequence_length) with `mode` (b,) before each document."""
        tokens, segments, t = x["token_ids"], x["segment_ids"], self.sequence_length
        real = segments > 0
        opens = real.copy()
        opens[:, 1:] &= segments[:, 1:] != segments[:, :-1]
        column = np.arange(tokens.shape[1]) + np.cumsum(opens, axis=1)
        token_ids, segment_ids = np.full((len(tokens), t), self.pad_id, "int32"), np.zeros((len(tokens), t), "int32")
        for row, place, shift in ((*np.nonzero(real & (column < t)), 0), (*np.nonzero(opens & (column <= t)), 1)):
            token_ids[row, column[row, place] - shift] = mode[row] if shift else tokens[row, place]
            segment_ids[row, column[row, place] - shift] = segments[row, place]
        return token_ids, segment_ids
