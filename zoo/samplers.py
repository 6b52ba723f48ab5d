"""Samplers: from the logits of one step to the next token.

A sampler is data and a pure function of the logits and one uniform number a row; it holds no random state. The number
picks a token by inverting the cumulative distribution, so the seed lives outside compiled code and a draw can be
repeated anywhere.
"""

import dataclasses

from keras import ops

NEVER = -1e9


def _pick(logits, uniform):
    """Token ids (b,) at which the cumulative distribution of logits (b, v) passes uniform (b,) in [0, 1)."""
    cumulative = ops.cumsum(ops.softmax(logits, axis=-1), axis=-1)
    below = cumulative <= uniform[:, None] * cumulative[:, -1:]
    return ops.sum(ops.cast(below, "int32"), axis=-1)


@dataclasses.dataclass(frozen=True)
class Greedy:
    """The most probable token."""

    def __call__(self, logits, uniform):
        return ops.cast(ops.argmax(logits, axis=-1), "int32")


@dataclasses.dataclass(frozen=True)
class Temperature:
    """Samples from softmax(logits / temperature).

    Args:
        temperature: above 0; below 1 sharpens the distribution.

    >>> import zoo
    >>> zoo.samplers.Temperature(0.8)
    Temperature(temperature=0.8)
    """

    temperature: float = 1.0

    def __post_init__(self):
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}; use Greedy() for the limit at 0.")

    def __call__(self, logits, uniform):
        return _pick(logits / self.temperature, uniform)


@dataclasses.dataclass(frozen=True)
class TopK:
    """Samples among the k most probable tokens (Fan et al. 2018)."""

    k: int = 50
    temperature: float = 1.0

    def __post_init__(self):
        Temperature(self.temperature)
        if self.k < 1:
            raise ValueError(f"k must be at least 1, got {self.k}.")

    def __call__(self, logits, uniform):
        values, ids = ops.top_k(logits / self.temperature, min(self.k, logits.shape[-1]))
        return _choose(ids, _pick(values, uniform))


@dataclasses.dataclass(frozen=True)
class TopP:
    """Samples among the most probable tokens that together reach probability p (Holtzman et al. 2020)."""

    p: float = 0.9
    temperature: float = 1.0

    def __post_init__(self):
        Temperature(self.temperature)
        if not 0 < self.p <= 1:
            raise ValueError(f"p must be in (0, 1], got {self.p}.")

    def __call__(self, logits, uniform):
        values, ids = ops.top_k(logits / self.temperature, logits.shape[-1])
        probabilities = ops.softmax(values, axis=-1)
        before = ops.cumsum(probabilities, axis=-1) - probabilities
        return _choose(ids, _pick(ops.where(before < self.p, values, NEVER), uniform))


def _choose(ids, rank):
    return ops.cast(ops.take_along_axis(ids, rank[:, None], axis=1)[:, 0], "int32")
