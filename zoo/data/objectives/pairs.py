"""Objectives on two passages: does one follow the other (BERT), are they in order (ALBERT), are they one (SimCSE).

A row gives one example. Both passages come from the row itself, so an example never depends on its neighbours.
"""

import dataclasses
import functools

import numpy as np

from zoo.data.objectives.base import Objective
from zoo.data.objectives.passages import cut, draw, longest, sentence_ends
from zoo.data.rows import restarted_positions


@dataclasses.dataclass(frozen=True)
class Pair(Objective):
    """What the objectives on two passages share: the tokens around them, and where the text is cut."""

    def check(self):
        self.need("cls", "bos")
        self.need("sep", "eos")
        if self.sequence_length < 5:
            raise ValueError(f"sequence_length={self.sequence_length} leaves no room for two passages: raise it.")

    @functools.cached_property
    def _ends(self):
        return sentence_ends(self.tokenizer)

    def split(self, rows, rng, columns):
        """The longest text in the first `columns`, its first column, and where its second passage begins: (b,) each."""
        start, length = longest(rows.segment_ids[:, :columns])
        ends = self._ends[rows.token_ids[:, :columns]]
        return start, length, cut(ends, start, length, rng.random(columns))

    def framed(self, tokens, *passages):
        """The batch of cls, then each passage and sep.

        Args:
            tokens: (b, t) ids that the passages are taken from.
            passages: pairs of first column and length, both (b,). Rows whose passages are empty are padding.
        """
        b, width = len(tokens), self.sequence_length
        column, at = np.arange(width), np.ones((b, 1), "int64")
        token_ids, types = np.full((b, width), self.pad_id, "int32"), np.zeros((b, width), "int32")
        token_ids[:, 0] = self.role("cls", "bos")
        for number, (start, length) in enumerate(passages):
            place = column - at  # in this passage
            inside = (place >= 0) & (place < length[:, None])
            source = np.clip(start[:, None] + place, 0, tokens.shape[1] - 1)
            token_ids = np.where(inside, np.take_along_axis(tokens, source, axis=1), token_ids)
            token_ids[place == length[:, None]] = self.role("sep", "eos")
            types[inside | (place == length[:, None])] = number
            at = at + length[:, None] + 1
        segment_ids = ((column < at) & (sum(length for _, length in passages) > 0)[:, None]).astype("int32")
        token_ids = np.where(segment_ids > 0, token_ids, self.pad_id).astype("int32")
        x = {"token_ids": token_ids, "segment_ids": segment_ids, "positions": restarted_positions(segment_ids)}
        return x | {"token_type_ids": types * segment_ids}

    def labelled(self, x, y, valid):
        """(x, y, w) with the token types left out where the model has none."""
        if not self.token_types:
            del x["token_type_ids"]
        return x, np.where(valid, y, 0).astype("int32"), valid.astype("float32")


@dataclasses.dataclass(frozen=True)
class NextSentence(Pair):
    """Tell whether the second passage continues the first: [cls] A [sep] B [sep], y = 0 if it does, 1 if not.

    The longest document among the first sequence_length - 3 tokens of a row is cut at a random end of a sentence into A
    and what follows it. With probability 1/2, B is that; else B is text from elsewhere in the row, twice as long: from
    the beginning of a sentence, in another document where the row has one, and no longer than what it replaces. Where
    there is nothing else, B continues A.

    Labels are those of `zoo.NextSentence`, for which this is. Tokens are not masked: BERT's sum with the loss of masked
    tokens needs a model with both heads.

    Args:
        token_types: whether x has token_type_ids, 0 for A and 1 for B; leave them out where the model has one type.

    x: token_ids, segment_ids (1, and 0 = padding), positions, token_type_ids, all (b, sequence_length); y, w: (b,),
    w = 0 for a row without two tokens to make a pair of.

    Source: Devlin et al. 2018, arXiv 1810.04805, section 3.1, task 2.

    >>> from zoo import Tokenizer, data
    >>> tokenizer = Tokenizer.train(["to be . or not to be ."], kind="wordpiece", vocabulary_size=40)
    >>> objective = data.NextSentence().bind(tokenizer, 14)
    >>> rows = tokenizer.batch(["to be. or not.", "to not. be or."], pad_to=objective.row_length)
    >>> x, y, w = objective(rows, np.random.default_rng(0))
    >>> x["token_type_ids"].shape, y.shape
    ((2, 14), (2,))
    """

    token_types: bool = True

    row_length = property(lambda self: 2 * (self.sequence_length - 3))

    def make(self, rows, rng):
        start, length, second = self.split(rows, rng, self.sequence_length - 3)
        rest, end = start + length - second, start + length
        segments, column = rows.segment_ids, np.arange(self.row_length)
        own = np.take_along_axis(segments, start[:, None], axis=1)
        elsewhere = (segments > 0) & ((column < start[:, None]) | (column >= end[:, None]))
        begins = np.ones_like(elsewhere)
        begins[:, 1:] = self._ends[rows.token_ids[:, :-1]] | (segments[:, 1:] != segments[:, :-1])
        other = elsewhere & (segments != own)
        found = draw((other & begins, other, elsewhere & begins, elsewhere), rng.random(self.row_length), second)
        random = (rng.random(1)[:, 0] < 0.5) & (found != second)

        stop = self._document_end(segments, found)
        stop = np.where(found < start, np.minimum(stop, start), stop)  # before A, where it is the same document
        begin, size = np.where(random, found, second), np.where(random, np.minimum(stop - found, rest), rest)
        valid = second > start
        x = self.framed(rows.token_ids, (start, (second - start) * valid), (begin, size * valid))
        return self.labelled(x, random, valid)

    @staticmethod
    def _document_end(segments, column):
        """(b,): the column behind the document that `column` (b,) is in."""
        here = np.take_along_axis(segments, column[:, None], axis=1)
        left = (np.arange(segments.shape[1]) > column[:, None]) & (segments != here)
        return np.where(left.any(axis=1), np.argmax(left, axis=1), segments.shape[1])


@dataclasses.dataclass(frozen=True)
class SentenceOrder(Pair):
    """Tell whether two passages are in their order: [cls] A [sep] B [sep], y = 0 if they are, 1 if they are swapped.

    The longest document of a row is cut at a random end of a sentence; with probability 1/2 its parts are swapped.
    `zoo.NextSentence` learns it.

    Args:
        token_types: whether x has token_type_ids, 0 for the first passage and 1 for the second.

    x: token_ids, segment_ids (1, and 0 = padding), positions, token_type_ids, all (b, sequence_length); y, w: (b,),
    w = 0 for a row without two tokens to make a pair of.

    Source: Lan et al. 2019 (ALBERT), arXiv 1909.11942, section 3.1.

    >>> from zoo import Tokenizer, data
    >>> tokenizer = Tokenizer.train(["to be . or not to be ."], kind="wordpiece", vocabulary_size=40)
    >>> objective = data.SentenceOrder().bind(tokenizer, 14)
    >>> rows = tokenizer.batch(["to be. or not.", "to not. be or."], pad_to=11, add_special_tokens=False)
    >>> x, y, w = objective(rows, np.random.default_rng(0))
    >>> tokenizer.decode(x["token_ids"]), y.tolist()
    (['to be. or not.', 'to not. be or.'], [0, 0])
    """

    token_types: bool = True

    row_length = property(lambda self: self.sequence_length - 3)

    def make(self, rows, rng):
        start, length, second = self.split(rows, rng, self.row_length)
        swapped, valid = rng.random(1)[:, 0] < 0.5, second > start
        parts = ((start, (second - start) * valid), (second, (start + length - second) * valid))
        first, last = (
            tuple(np.where(swapped, b, a) for a, b in zip(one, other)) for one, other in (parts, parts[::-1])
        )
        return self.labelled(self.framed(rows.token_ids, first, last), swapped, valid)


@dataclasses.dataclass(frozen=True)
class Contrastive(Pair):
    """Two views of a text that should have near vectors, [cls] text [sep] each, the others of the batch far ones.

    "same" gives the longest document of a row twice: dropout alone tells the two apart, so the model needs some.
    "neighbours" cuts it at a random end of a sentence: the passage up to there and the one from there on.

    `zoo.TextEmbedder` learns it with `loss=zoo.InBatchContrast()`: -log of exp(cos(h_i, h'_i) / T) over the sum of
    exp(cos(h_i, h'_j) / T) for all j of the batch.

    Args:
        views: "same" or "neighbours".

    x: token_ids, segment_ids (1, and 0 = padding), positions, all (b, 2, sequence_length); y: (b,), 1, the cosine that
    a pair should have; w: (b,), 0 for a row without text.

    Source: Gao et al. 2021 (SimCSE), arXiv 2104.08821, section 3; neighbours: Logeswaran & Lee 2018, arXiv 1803.02893.

    >>> from zoo import Tokenizer, data
    >>> tokenizer = Tokenizer.train(["to be . or not to be ."], kind="wordpiece", vocabulary_size=40)
    >>> objective = data.Contrastive("neighbours").bind(tokenizer, 8)
    >>> rows = tokenizer.batch(["to be. or not."], pad_to=12, add_special_tokens=False)
    >>> x, y, w = objective(rows, np.random.default_rng(0))
    >>> x["token_ids"].shape, tokenizer.decode(x["token_ids"][0])
    ((1, 2, 8), ['to be.', 'or not.'])
    """

    views: str = "same"

    token_types = False
    target_length = property(lambda self: self.sequence_length)  # of the second view
    row_length = property(lambda self: (self.sequence_length - 2) * (2 if self.views == "neighbours" else 1))

    def check(self):
        super().check()
        if self.views not in ("same", "neighbours"):
            raise ValueError(f"views={self.views!r} is neither 'same' nor 'neighbours'.")

    def make(self, rows, rng):
        room = self.sequence_length - 2
        start, length, second = self.split(rows, rng, self.row_length)
        if self.views == "same":
            valid = length > 0
            views = [(start, length)] * 2
        else:
            valid = second > start
            before, after = np.minimum(second - start, room), np.minimum(start + length - second, room)
            views = [(second - before, before), (second, after)]
        views = [self.framed(rows.token_ids, (at, size * valid)) for at, size in views]
        x = {key: np.stack([view[key] for view in views], axis=1) for key in views[0]}
        return self.labelled(x, valid, valid)
