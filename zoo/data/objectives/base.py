"""What all pretraining objectives share: binding to a tokenizer and a length, and the input of a decoder.

An objective turns rows and random numbers into (x, y, w), in numpy and for a whole batch at once. It knows no store, no
packing and no model; ids of special tokens come from the tokenizer it is bound to, never from constants.
"""

import dataclasses
import functools

import numpy as np

from zoo.data.rows import Frame, RowRandom, Rows, SharedRandom, restarted_positions


@dataclasses.dataclass(frozen=True)
class Objective:
    """Base of the objectives: `bind` one to a tokenizer and a length, then call it.

    A new objective states `row_length` (raw tokens a row is packed with), `frame` (special tokens around documents)
    and `target_length` (decoder positions; 0 without a decoder), refuses bad settings in `check`, and makes the batch
    in `make(rows, rng)`, where `rng.random(count)` gives (b, count) uniform numbers. `count` may depend on lengths
    only, not on what is in the rows: then a row's numbers never depend on its neighbours. The special tokens that it
    cannot do without are `roles`, `named_tokens` and `sentinel_count`.
    """

    roles = ()
    named_tokens = ()
    sentinel_count = 0
    target_length = 0

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
        return self.make(rows, rng if isinstance(rng, RowRandom) else SharedRandom(rng, count))

    def make(self, rows, rng):
        raise NotImplementedError

    def check(self):
        """Raises ValueError where the settings, the tokenizer or the length do not fit together."""

    def shortened(self, row_length):
        """This bound objective for rows of fewer raw tokens; its batches may be narrower then."""
        return self.bind(self.tokenizer, self.sequence_length - self.row_length + row_length)

    def informed(self, tokens):
        """This bound objective with what it takes from the tokens of the corpus (n,): nothing, for most."""
        return self

    def add_tokens(self, tokenizer, sequence_length):
        """Gives the tokenizer the special tokens that it lacks for this objective; returns how many these are.

        They get new ids at its end, so this comes before the model is built.

        >>> from zoo import Tokenizer, data
        >>> tokenizer = Tokenizer.train(["to be or not to be"], kind="char")
        >>> data.MaskedLM().add_tokens(tokenizer, 16), tokenizer.id_to_token(tokenizer.mask_id)
        (1, '<mask>')
        """
        wanted = dataclasses.replace(self, tokenizer=tokenizer, sequence_length=sequence_length)
        roles = {role: f"<{role}>" for role in wanted.roles if getattr(tokenizer, f"{role}_id") is None}
        named = [token for token in wanted.named_tokens if tokenizer.token_to_id(token) is None]
        held = len(tokenizer.sentinel_ids)
        sentinels = [f"<extra_id_{i}>" for i in reversed(range(held, wanted.sentinel_count))]
        return tokenizer.add_roles(roles) + tokenizer.add_tokens(named) + tokenizer.add_tokens(sentinels)

    row_length = property(lambda self: self.sequence_length)

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
                f"train it with special_tokens={{{roles[0]!r}: '<{roles[0]}>'}}, name a preset that has one, or add it "
                f"before the model is built with tokenizer.add_roles({{{roles[0]!r}: '<{roles[0]}>'}})."
            )
        return value

    def need_token(self, token):
        """The id of a token that has no role, or a ValueError."""
        if (value := self.tokenizer.token_to_id(token)) is None:
            raise ValueError(
                f"{type(self).__name__} needs the token {token!r}, and the tokenizer has none: add it with "
                f"tokenizer.add_tokens([{token!r}]) before the model is built, or name another."
            )
        return value

    def need_sentinels(self):
        """The ids of the sentinels, or a ValueError where they are too few."""
        count, held = self.sentinel_count, self.tokenizer.sentinel_ids
        if count > len(held):
            raise ValueError(
                f"{type(self).__name__} needs {count} sentinels at sequence_length={self.sequence_length}, the "
                f"tokenizer has {len(held)}: add them with tokenizer.add_sentinels({count}) before the model is built."
            )
        return np.asarray(held, "int32")


def check_share(**shares):
    for name, value in shares.items():
        if not 0 < value < 1:
            raise ValueError(f"{name}={value} must lie strictly between 0 and 1.")


def pack_left(keep, width, *arrays):
    """The places of `keep` (b, t) moved to the left of (b, width), in order; what does not fit is cut.

    Each of `arrays` is a pair: values (b, t), and what fills the places left over.
    """
    column = np.cumsum(keep, axis=1) - 1
    row, place = np.nonzero(keep & (column < width))
    moved = []
    for values, fill in arrays:
        moved.append(np.full((len(keep), width), fill, "int32"))
        moved[-1][row, column[row, place]] = values[row, place]
    return moved


def close(tokens, segments, last, end, pad, own=True):
    """Token and segment ids, both (b, t + 1), with `end` behind the last token, in the document `last` (b,).

    Tokens that are not `own` (b, t) keep their place, but count as padding.
    """
    b, t = tokens.shape
    token_ids, segment_ids = np.full((b, t + 1), pad, "int32"), np.zeros((b, t + 1), "int32")
    token_ids[:, :-1], segment_ids[:, :-1] = np.where(segments > 0, tokens, pad), np.where(own, segments, 0)
    place = np.arange(b), (segments > 0).sum(axis=1)
    token_ids[place], segment_ids[place] = np.where(last > 0, end, pad), last
    return token_ids, segment_ids


def decoder_inputs(targets, segment_ids, start):
    """Decoder side of x: targets (b, u) shifted right within each document, which begins with the id `start`."""
    token_ids = np.full_like(targets, start)
    token_ids[:, 1:] = np.where(segment_ids[:, 1:] == segment_ids[:, :-1], targets[:, :-1], start)
    return {
        "decoder_token_ids": token_ids,
        "decoder_segment_ids": segment_ids,
        "decoder_positions": restarted_positions(segment_ids),
    }
