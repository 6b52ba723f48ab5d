"""Span corruption, the objective of T5: random spans leave the input and come out of the decoder."""

import dataclasses
import functools

import numpy as np

from zoo.data.objectives.base import Objective, check_share, close, decoder_inputs
from zoo.data.rows import restarted_positions


@dataclasses.dataclass(frozen=True)
class SpanCorruption(Objective):
    """Replace random spans by sentinels and predict them: T5's objective, with its random segmentation and lengths.

    Of R raw tokens n = round(rate R) are noise, in k = max(1, round(n / mean_span)) spans. The n tokens are cut into k
    non-empty parts, uniformly over all ways, and so are the R - n others; the parts alternate, others first. Input:
    the others, sentinel i in place of span i, eos. Target: sentinel i then span i, for each i, eos. R is the largest
    with R - n + k + 1 <= sequence_length, so inputs are full (568 raw tokens and 114 targets at 512).

    Packed documents are kept apart as if they were alone: sentinels count from the first again in each, a document's
    part of the decoder begins with the start token, and where a span runs over the end of its document, the rest is
    treated as padding. eos closes the last document only. Documents carry no special tokens.

    Args:
        rate: share of noise tokens.
        mean_span: mean tokens in a span.
        decoder_start: id the decoder starts with; None = the tokenizer's pad, else bos.

    x: token_ids, segment_ids, positions (b, sequence_length), decoder_token_ids, decoder_segment_ids,
    decoder_positions (b, target_length); y, w: (b, target_length).

    Source: Raffel et al. 2019, arXiv 1910.10683, section 3.1.4 and figure 2; lengths as in its published code.
    """

    rate: float = 0.15
    mean_span: float = 3.0
    decoder_start: int | None = None
    raw_length: int | None = dataclasses.field(default=None, kw_only=True, repr=False)  # R, where it is not the largest

    def check(self):
        check_share(rate=self.rate)
        if self.mean_span < 1:
            raise ValueError(f"mean_span={self.mean_span} must be at least 1 token.")
        self.need("eos", "sep")
        if self.decoder_start is None:
            self.need("pad", "bos")
        raw, noise, spans = self.lengths
        width, room = raw - noise + spans + 1, self.sequence_length
        if raw - noise < spans or width > room or (self.raw_length is None and width < room):
            raise ValueError(
                f"rate={self.rate} and mean_span={self.mean_span} do not fit sequence_length={self.sequence_length}: "
                "lower the rate, or lengthen the spans or the sequence."
            )
        self.need_sentinels()

    def shortened(self, row_length):
        short = dataclasses.replace(self, raw_length=row_length)
        short.check()
        return short

    @functools.cached_property
    def lengths(self):
        """Raw, noise tokens and spans of a row."""

        def parts(raw):
            noise = min(max(round(raw * self.rate), 1), raw - 1)
            return raw, noise, max(1, round(noise / self.mean_span))

        if self.raw_length is not None:
            return parts(self.raw_length)
        fitting = parts(2)
        while True:
            raw, noise, spans = parts(fitting[0] + 1)
            if raw - noise + spans + 1 > self.sequence_length:
                return fitting
            fitting = raw, noise, spans

    row_length = property(lambda self: self.lengths[0])
    target_length = property(lambda self: self.lengths[1] + self.lengths[2] + 1)
    sentinel_count = property(lambda self: self.lengths[2])
    sentinels = functools.cached_property(Objective.need_sentinels)
    eos_id = property(lambda self: self.role("eos", "sep"))

    @property
    def start_id(self):
        return self.role("pad", "bos") if self.decoder_start is None else self.decoder_start

    def make(self, rows, rng):
        tokens, segments = rows.token_ids, rows.segment_ids
        raw, noise, spans = self.lengths
        kept = _composition(rng.random(raw - noise - 1), spans)
        lost = _composition(rng.random(noise - 1), spans)
        runs = np.stack([kept, lost], axis=2).reshape(len(tokens), 2 * spans)
        run = np.repeat(np.tile(np.arange(2 * spans), len(tokens)), runs.ravel()).reshape(tokens.shape)
        hidden, span = run % 2 == 1, run // 2
        first = np.cumsum(runs, axis=1)[:, 0::2]  # (b, k): the column of each span's first token
        owner = np.take_along_axis(segments, first, axis=1)  # the document a span belongs to
        sentinels = self.sentinels[restarted_positions(owner)]

        def substitute(columns, keep):
            """Tokens and segments with the sentinels at `columns`, of the places in `keep` and `columns`."""
            ids, document, keep = tokens.copy(), segments.copy(), keep.copy()
            np.put_along_axis(ids, columns, sentinels, axis=1)
            np.put_along_axis(document, columns, owner, axis=1)
            np.put_along_axis(keep, columns, True, axis=1)
            return ids[keep].reshape(len(ids), -1), document[keep].reshape(len(ids), -1), keep

        inputs, input_segments, _ = substitute(first, ~hidden)
        targets, target_segments, keep = substitute(first - 1, hidden)
        own = segments == np.take_along_axis(owner, span, axis=1)
        np.put_along_axis(own, first - 1, True, axis=1)
        last = segments.max(axis=1)
        token_ids, segment_ids = close(inputs, input_segments, last, self.eos_id, self.pad_id)
        own = own[keep].reshape(targets.shape)  # without the rest of a span that left its document
        y, decoder_segments = close(targets, target_segments, last, self.eos_id, self.pad_id, own)
        x = {"token_ids": token_ids, "segment_ids": segment_ids, "positions": restarted_positions(segment_ids)}
        return x | decoder_inputs(y, decoder_segments, self.start_id), y, (decoder_segments > 0).astype("float32")


def _composition(scores, parts):
    """Uniformly random cuts of scores.shape[1] + 1 tokens into `parts` non-empty runs: their lengths (b, parts)."""
    b, cuts = scores.shape
    chosen = np.sort(np.argsort(scores, axis=1)[:, : parts - 1], axis=1) + 1
    edges = np.concatenate([np.zeros((b, 1), "int64"), chosen, np.full((b, 1), cuts + 1)], axis=1)
    return np.diff(edges, axis=1)
