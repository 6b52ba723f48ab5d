"""Constraints: what changes or forbids tokens before one is chosen; the same for samplers and beams.

Those of `constrained` are pure functions of logits and tokens, inside compiled code. What depends on the number of the
step, or asks a function of the user's, becomes a mask on the host, in `mask`. It knows no distribution and no seed.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from keras import ops

BANNED, NEVER = -1e30, -2e30  # finite, so that the least bad token is there where all are banned


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constraints:
    """Changes to the logits, applied in this order.

    Args:
        logit_bias: dictionary, token id -> number added to its logit; -inf bans it.
        sequence_bias: dictionary, tuple of at least 2 ids -> number added to the logit of the last where the others are
            the tokens before it; -inf bans the sequence.
        repetition_penalty: above 1, makes tokens of prompt and text less likely: positive logits are divided by it,
            others multiplied (Keskar et al. 2019). 1 changes nothing.
        presence_penalty: subtracted once from the logits of tokens of the new text.
        no_repeat_ngram: no run of so many tokens occurs twice in prompt and text (Paulus et al. 2018).
        ending: (n, factor, stop ids): beyond n new tokens the logits x of stop tokens grow by
            |x| (factor ** (tokens beyond n) - 1).
        min_new_tokens: stop tokens are banned before so many.
        allowed_tokens: the ids that may come, or a function from a row's new ids (a list) to those that may come next,
            None for any. What is allowed wins over bans.
        first_token, last_token: the id that a text begins with, and the one at its greatest length.
        not_first: ids that a text does not begin with, behind the first_token where there is one.

    Raises:
        ValueError: numbers out of range, or nothing allowed.
    """

    logit_bias: Mapping | None = None
    sequence_bias: Mapping | None = None
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    no_repeat_ngram: int | None = None
    ending: tuple | None = None
    min_new_tokens: int = 0
    allowed_tokens: Sequence | Callable | None = None
    first_token: int | None = None
    last_token: int | None = None
    not_first: Sequence = ()

    def __post_init__(self):
        if not 0 < self.repetition_penalty < math.inf:
            raise ValueError(f"repetition_penalty must be above 0, got {self.repetition_penalty}; 1 changes nothing.")
        if not math.isfinite(self.presence_penalty):
            raise ValueError(f"presence_penalty must be a finite number, got {self.presence_penalty}.")
        if self.no_repeat_ngram is not None:
            whole("no_repeat_ngram", self.no_repeat_ngram, 1)
        whole("min_new_tokens", self.min_new_tokens, 0)
        for name in ("logit_bias", "sequence_bias"):
            bias = dict(getattr(self, name) or {})
            if bad := [value for value in bias.values() if math.isnan(value) or value == math.inf]:
                raise ValueError(f"{name} must hold numbers below infinity, got {bad[0]}.")
            object.__setattr__(self, name, tuple((key, max(value, BANNED)) for key, value in bias.items()) or None)
        if short := [ids for ids, _ in self.sequence_bias or () if len(ids) < 2]:
            raise ValueError(f"sequence_bias has {short[0]}: a single token belongs into logit_bias.")
        if self.ending is not None:
            start, factor, ids = self.ending
            whole("the first number of ending", start, 0)
            if not 0 < factor < math.inf:
                raise ValueError(f"The factor of ending must be above 0, got {factor}.")
            object.__setattr__(self, "ending", (start, float(factor), tuple(ids)))
        object.__setattr__(self, "not_first", tuple(map(int, self.not_first)))
        if self.allowed_tokens is not None and not callable(self.allowed_tokens):
            object.__setattr__(self, "allowed_tokens", tuple(int(i) for i in self.allowed_tokens))
            if not self.allowed_tokens:
                raise ValueError("allowed_tokens is empty: name at least one token, or leave it out.")

    @property
    def reads_tokens(self):
        """Whether `constrained` needs the tokens so far."""
        penalties = self.repetition_penalty != 1 or self.presence_penalty or self.no_repeat_ngram
        return bool(penalties or self.sequence_bias or self.ending)

    @property
    def in_programs(self):
        """The part of it that compiled programs depend on."""
        allowed = None if callable(self.allowed_tokens) else self.allowed_tokens
        return dataclasses.replace(self, allowed_tokens=allowed, min_new_tokens=0, first_token=None, last_token=None,
                                   not_first=())  # fmt: skip

    def check(self, vocabulary_size):
        """Raises a ValueError for ids that a model does not have."""
        allowed = () if callable(self.allowed_tokens) else self.allowed_tokens or ()
        forced = [i for i in (self.first_token, self.last_token) if i is not None]
        runs = [i for ids, _ in self.sequence_bias or () for i in ids]
        for name, ids in (("logit_bias", dict(self.logit_bias or ())), ("allowed_tokens", allowed),
                          ("first_token and last_token", forced), ("sequence_bias", runs),
                          ("not_first", self.not_first), ("ending", (self.ending or [()])[-1])):  # fmt: skip
            for i in ids:
                if not 0 <= i < vocabulary_size:
                    raise ValueError(f"{name} names the id {i}, the vocabulary has ids 0 to {vocabulary_size - 1}.")

    def constrained(self, logits, tokens=None, seen=None, begin=0, end=None, mask=None):
        """Logits after the constraints.

        Args:
            logits: (b, v).
            tokens: ids so far (b, s), needed if `reads_tokens`.
            seen: (b, s), 0 where `tokens` holds padding; all count by default.
            begin: slot of the first token of the new text; those before are the prompt's.
            end: slot behind the last token; s by default.
            mask: bool, broadcastable to (b, v), from `mask`.

        Returns:
            (b, v).
        """
        size = logits.shape[-1]
        if self.logit_bias:
            bias = np.zeros(size, "float32")
            for i, value in self.logit_bias:
                bias[i] = value
            logits = logits + ops.convert_to_tensor(bias)
        if self.reads_tokens:
            slots = ops.arange(tokens.shape[1], dtype="int32")[None]
            end = tokens.shape[1] if end is None else end
            held = (slots < end) & (ops.ones_like(tokens, dtype="bool") if seen is None else seen > 0)
            held, tokens = held & (tokens < size), ops.minimum(tokens, size - 1)  # virtual tokens say nothing
            for ids, value in self.sequence_bias or ():
                logits = ops.where(_follows(tokens, held, end, ids, size), logits + value, logits)
            if self.repetition_penalty != 1:
                p = self.repetition_penalty
                logits = ops.where(_occur(tokens, held, size), ops.where(logits < 0, logits * p, logits / p), logits)
            if self.presence_penalty:
                new = _occur(tokens, held & (slots >= begin), size)
                logits = ops.where(new, logits - self.presence_penalty, logits)
            if self.no_repeat_ngram:
                logits = ops.where(_completions(tokens, held, end, self.no_repeat_ngram, size), BANNED, logits)
            if self.ending:
                start, factor, ids = self.ending
                growth = ops.power(factor, ops.cast(ops.maximum(end - begin - start, 0), "float32")) - 1
                grows = ops.logical_and(one_hot(ids, size)[None], logits > BANNED)
                logits = ops.where(grows, logits + ops.abs(logits) * growth, logits)
        if self.allowed_tokens and not callable(self.allowed_tokens):
            logits = ops.where(one_hot(self.allowed_tokens, size)[None], logits, NEVER)
        return logits if mask is None else ops.where(mask, logits, NEVER)

    def mask(self, texts, vocabulary_size, stop_ids, max_new_tokens, stopped=()):
        """What the number of the step and the user's function forbid: bool (b, v), or None for nothing.

        Args:
            texts: the new ids of each row, a list of b lists of one length.
            vocabulary_size: v.
            stop_ids: ids that `min_new_tokens` bans.
            max_new_tokens: the greatest length.
            stopped: whether each row has ended, for which nobody asks any more.

        Raises:
            ValueError: the user's function allows nothing, or ids that are none.
        """
        count, ask = len(texts[0]), callable(self.allowed_tokens)
        if not self.masks(count, max_new_tokens):
            return None
        forced = self._forced(count, max_new_tokens)
        found = np.ones((len(texts), vocabulary_size), bool)
        if forced is not None:
            found[:] = one_hot([forced], vocabulary_size)
            return found
        for row, text in enumerate(texts):
            if ask and not (len(stopped) and stopped[row]):
                found[row] = self._asked(text, vocabulary_size)
        if count < self.min_new_tokens and stop_ids:
            found &= ~one_hot(stop_ids, vocabulary_size)
        return found & ~one_hot(self.not_first, vocabulary_size) if self._begins(count) else found

    def masks(self, count, max_new_tokens):
        """Whether `mask` has anything to say after `count` new tokens."""
        forced = self._forced(count, max_new_tokens) is not None
        return forced or count < self.min_new_tokens or callable(self.allowed_tokens) or self._begins(count)

    def _begins(self, count):
        return bool(self.not_first) and count == (self.first_token is not None)

    def _forced(self, count, max_new_tokens):
        if count + 1 == max_new_tokens and self.last_token is not None:
            return self.last_token
        return self.first_token if count == 0 else None

    def _asked(self, text, vocabulary_size):
        ids = self.allowed_tokens(list(text))
        if ids is None:
            return True
        ids = [int(i) for i in ids]
        if not ids or not 0 <= min(ids) <= max(ids) < vocabulary_size:
            raise ValueError(f"allowed_tokens({text}) gave {ids}: it must give ids from 0 to {vocabulary_size - 1}, at "
                             "least one, or None.")  # fmt: skip
        return one_hot(ids, vocabulary_size)


def whole(name, value, least):
    """Raises a ValueError unless `value` is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}.")


def one_hot(ids, size):
    """Bool (size,), True at `ids`."""
    found = np.zeros(size, bool)
    found[list(ids)] = True
    return found


def _occur(tokens, held, size):
    """Bool (b, size): which ids are among the tokens (b, s) where `held`."""
    rows = ops.arange(tokens.shape[0], dtype="int32")[:, None] * size
    counts = ops.segment_sum(ops.reshape(ops.cast(held, "int32"), (-1,)), ops.reshape(rows + tokens, (-1,)),
                             num_segments=tokens.shape[0] * size)  # fmt: skip
    return ops.reshape(counts, (-1, size)) > 0


def _follows(tokens, held, end, ids, size):
    """Bool (b, size): the last of `ids`, where the tokens (b, s) end in the others."""
    same, count = True, len(ids) - 1
    for k, i in enumerate(ids[:-1]):
        at = ops.maximum(end - count + k, 0)
        same = same & (ops.take(tokens, at, axis=1) == i) & ops.take(held, at, axis=1) & (end >= count)
    return same[:, None] & one_hot(ids[-1:], size)[None]


def _completions(tokens, held, end, n, size):
    """Bool (b, size): ids that would make the last n tokens a run that was there before."""
    slots = tokens.shape[1]
    if slots < n:
        return ops.zeros((tokens.shape[0], size), "bool")
    windows = slots - n + 1
    at, same = ops.maximum(end - n + 1, 0), held[:, n - 1 :]
    for k in range(n - 1):
        last = ops.take(tokens, ops.minimum(at + k, slots - 1), axis=1)
        same = same & held[:, k : k + windows] & (tokens[:, k : k + windows] == last[:, None])
    return _occur(tokens[:, n - 1 :], same, size)
