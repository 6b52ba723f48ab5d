"""What all pretraining objectives share: binding to a tokenizer and a length, and the input of a decoder.

An objective turns rows and random numbers into (x, y, w), in numpy and for a whole batch at once. It knows no store, no
packing and no model; ids of special tokens come from the tokenizer it is bound to, never from constants.
"""

import dataclasses
import functools

import numpy as np

from zoo.data.rows import Frame, RowRandom, Rows, restarted_positions


@dataclasses.dataclass(frozen=True)
class Objective:
    """Base of the objectives: `bind` one to a tokenizer and a length, then call it.

    A new objective states `row_length` (raw tokens a row is packed with), `frame` (special tokens around documents)
    and `target_length` (decoder positions; 0 without a decoder), refuses bad settings in `check`, and makes the batch
    in `make(rows, random)`, where `random(count)` gives (b, count) uniform numbers. `count` may depend on lengths only,
    not on what is in the rows: then a row's numbers never depend on its neighbours.
    """

    tokenizer: object = dataclasses.field(default=None, kw_only=True, repr=False, compare=False)
    sequence_length: int | None = dataclasses.field(default=None, kw_only=True, repr=False)

    def bind(self, tokenizer, sequence_length):
        """This objective for that tokenizer and input length. Raises ValueError where the two cannot carry it."""
        if not isinstance(sequence_length, (int, np.integer)) or sequence_length < 2:
            raise ValueError(f"sequence_length={sequence_length!r} must be an integer of at least 2.")
        bound = dataclasses.replace(self, tokenizer=tokenizer, sequence_length=int(sequence_length))
        bound.check()
        return bound

    def __call__(self, rows, rng):
        """(x, y, w) of a batch.

        Args:
            rows: `Rows` (b, row_length), or a dictionary as `Tokenizer.batch` makes it.
            rng: a `RowRandom`, or a numpy Generator.
        """
        if self.tokenizer is None:
            raise ValueError(f"{self} is not bound: call it as objective.bind(tokenizer, sequence_length)(rows, rng).")
        if not isinstance(rows, Rows):
            rows = Rows.of(rows)
        count, length = rows.token_ids.shape
        if length != self.row_length:
            raise ValueError(f"{self} works on rows of {self.row_length} tokens, got {length}.")
        per_row = isinstance(rng, RowRandom)
        return self.make(rows, rng.random if per_row else lambda amount: rng.random((count, amount)))

    def make(self, rows, random):
        raise NotImplementedError

    def check(self):
        """Raises ValueError where the settings, the tokenizer or the length do not fit together."""

    row_length = property(lambda self: self.sequence_length)
    target_length = 0

    @property
    def frame(self):
        return Frame()

    @functools.cached_property
    def pad_id(self):
        return self.role("pad") or 0

    @functools.cached_property
    def is_special(self):
        """(vocabulary_size,) bool: the tokens no objective may mask."""
        table = np.zeros(self.tokenizer.vocabulary_size, bool)
        table[list(self.tokenizer.special_ids)] = True
        return table

    def role(self, *roles):
        """The id of the first of these roles (pad, bos, eos, mask, cls, sep) that the tokenizer fills, else None."""
        return next((value for role in roles if (value := getattr(self.tokenizer, f"{role}_id")) is not None), None)

    def need(self, *roles):
        """The same, or a ValueError."""
        if (value := self.role(*roles)) is None:
            raise ValueError(
                f"{type(self).__name__} needs a {' or '.join(roles)} token, and the tokenizer has none: "
                f"train it with special_tokens={{{roles[0]!r}: '<{roles[0]}>'}}, or name a preset that has one."
            )
        return value


def check_share(**shares):
    for name, value in shares.items():
        if not 0 < value < 1:
            raise ValueError(f"{name}={value} must lie strictly between 0 and 1.")


def decoder_inputs(targets, segment_ids, start):
    """Decoder side of x: targets (b, u) shifted right within each document, which begins with the id `start`."""
    token_ids = np.full_like(targets, start)
    token_ids[:, 1:] = np.where(segment_ids[:, 1:] == segment_ids[:, :-1], targets[:, :-1], start)
    return {
        "decoder_token_ids": token_ids,
        "decoder_segment_ids": segment_ids,
        "decoder_positions": restarted_positions(segment_ids),
    }
