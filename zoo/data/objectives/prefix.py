"""Prefix language modelling: the end of a document from its beginning, for decoders and for encoder-decoders."""

import dataclasses

import numpy as np

from zoo.data.objectives.base import Objective, check_share, close, decoder_inputs, pack_left
from zoo.data.objectives.causal import CausalLM
from zoo.data.rows import Documents, Frame, restarted_positions

ARCHITECTURES = ("encoder_decoder", "decoder")


@dataclasses.dataclass(frozen=True)
class PrefixLM(Objective):
    """Predict the end of each document from its beginning: -sum_{t >= p} log p(token[t] | token[..t]).

    A document of n tokens in a row is cut at p, uniform over 1, …, n - 1; a document of one token is all prefix.

    With an encoder-decoder the encoder reads the prefix, in both directions, and the decoder writes the rest. Documents
    carry no special tokens, and eos closes the last of a row on both sides, as in `SpanCorruption`.

    With a decoder, rows are those of `CausalLM`, and only labels behind p have weight 1. The decoders here attend
    causally to the prefix too: the loss is that of a prefix LM, its bidirectional prefix is not to be had.

    Args:
        architecture: "encoder_decoder" or "decoder".
        share: share of a document that is to be predicted, at its end; None = drawn uniformly, as above.
        sentinel: whether the first sentinel stands for the missing end in the input and opens it in the target (UL2).
        decoder_start: id the decoder starts with; None = the tokenizer's pad, else bos.

    x: of an encoder-decoder token_ids, segment_ids, positions and decoder_token_ids, decoder_segment_ids,
    decoder_positions; of a decoder the first three; y, w: all (b, sequence_length).

    Source: Raffel et al. 2019, arXiv 1910.10683, sections 3.2.1 and 3.3.1; after Liu et al. 2018, arXiv 1801.10198.

    >>> from zoo import Tokenizer, data
    >>> tokenizer = Tokenizer.train(["to be or not to be"], kind="char")
    >>> objective = data.PrefixLM().bind(tokenizer, 20)
    >>> x, y, w = objective(tokenizer.batch(["to be or not to be"], pad_to=20), np.random.default_rng(0))
    >>> tokenizer.decode(x["token_ids"][0]), tokenizer.decode(y[0])
    ('to be or no', 't to be')
    """

    architecture: str = "encoder_decoder"
    share: float | None = None
    sentinel: bool = False
    decoder_start: int | None = None

    is_decoder = property(lambda self: self.architecture == "decoder")
    row_length = property(lambda self: self.sequence_length + self.is_decoder)
    target_length = property(lambda self: 0 if self.is_decoder else self.sequence_length)
    sentinel_count = property(lambda self: int(self.sentinel))
    end_id = property(lambda self: self.role("eos", "sep"))

    def check(self):
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"architecture={self.architecture!r} is none of {', '.join(ARCHITECTURES)}.")
        if self.share is not None:
            check_share(share=self.share)
        if self.is_decoder:
            if self.sentinel:
                raise ValueError("sentinel=True is for encoder-decoders: leave it False.")
            return
        self.need("eos", "sep")
        if self.decoder_start is None:
            self.need("pad", "bos")
        self.need_sentinels()

    @property
    def frame(self):
        return Frame(self.role("bos", "cls"), None, self.end_id) if self.is_decoder else Frame()

    @property
    def start_id(self):
        return self.role("pad", "bos") if self.decoder_start is None else self.decoder_start

    def make(self, rows, rng):
        documents = Documents(rows.segment_ids)
        if self.share is None:
            cut = 1 + (documents.pick(rng.random(self.row_length)) * (documents.length - 1)).astype("int64")
        else:
            cut = documents.length - np.maximum(1, (self.share * documents.length).astype("int64"))
        place = np.full(rows.token_ids.size, -1)
        place[documents.place] = documents.inside - np.maximum(cut, 1)[documents.document]
        place = place.reshape(rows.token_ids.shape)  # behind the cut, from 0 on; before it, and at padding, negative
        if self.is_decoder:
            x, y, w = CausalLM.make(self, rows, rng)
            return x, y, w * (place[:, 1:] >= 0)
        return self._two_sides(rows, place)

    def _two_sides(self, rows, place):
        t, real, hidden = self.sequence_length, rows.segment_ids > 0, place >= 0

        def side(keep, at):
            """Token and segment ids (b, t) of the places `keep`, with the sentinel at the places `at`."""
            ids = np.where(at, self.need_sentinels()[0], rows.token_ids) if self.sentinel else rows.token_ids
            kept = (keep | at if self.sentinel else keep) & real
            moved = pack_left(kept, t - 1, (ids, self.pad_id), (rows.segment_ids, 0))
            return close(*moved, rows.segment_ids.max(axis=1), self.end_id, self.pad_id)

        token_ids, segment_ids = side(~hidden, place == 0)
        y, decoder_segments = side(hidden, np.pad(place[:, 1:] == 0, ((0, 0), (0, 1))))
        x = {"token_ids": token_ids, "segment_ids": segment_ids, "positions": restarted_positions(segment_ids)}
        return x | decoder_inputs(y, decoder_segments, self.start_id), y, (decoder_segments > 0).astype("float32")
