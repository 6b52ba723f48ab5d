"""Sampler: from the logits of one step to one next token a row.

It is data and a pure function of logits, tokens and one uniform number a row; it holds no random state. The number
picks a token by inverting the cumulative distribution, so the seed lives outside compiled code and a draw can be
repeated anywhere.
"""

import dataclasses
import math

from keras import ops

from zoo.samplers.constraints import NEVER, Constraints, whole


@dataclasses.dataclass(frozen=True)
class Sampler(Constraints):
    """Draws from the model's distribution, changed in this order: `Constraints`, temperature, top-k, top-p, min-p,
    typical, epsilon, eta.

    Args:
        temperature: of softmax(logits / temperature); below 1 sharpens; 0 takes the most probable token, whatever the
            fields below say.
        top_k: only the k most probable tokens (Fan et al. 2018).
        top_p: only the most probable tokens that together reach this probability (Holtzman et al. 2020).
        min_p: only tokens at least so probable as this share of the most probable one's (Nguyen et al. 2024).
        typical_p: only the tokens whose information is nearest to the entropy, until they reach this probability
            (Meister et al. 2023).
        epsilon_cutoff: only tokens at least so probable.
        eta_cutoff: only tokens at least so probable as this, or where the distribution is flat as its square root times
            exp(-entropy) (Hewitt et al. 2022).
        constraints: see `Constraints`.

    Raises:
        ValueError: numbers out of range.

    >>> import zoo
    >>> zoo.samplers.TopP(0.9, temperature=0.8) == zoo.samplers.Sampler(temperature=0.8, top_p=0.9)
    True
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    epsilon_cutoff: float | None = None
    eta_cutoff: float | None = None

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be at least 0, got {self.temperature}; 0 takes the likeliest token.")
        if self.top_k is not None:
            whole("top_k", self.top_k, 1)
        for name in ("top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"{name} must be in (0, 1], got {value}.")

    def __call__(self, logits, uniform, **past):
        """Token ids (b,) int32 from logits (b, v) and uniform numbers (b,) in [0, 1); `past` is `constrained`'s."""
        logits = self.constrained(logits, **past)
        if self.temperature == 0:
            return ops.cast(ops.argmax(logits, axis=-1), "int32")
        values, ids = self.candidates(logits)
        rank = pick(ops.softmax(values, axis=-1), uniform)
        return rank if ids is None else ops.cast(ops.take_along_axis(ids, rank[:, None], axis=1)[:, 0], "int32")

    def probabilities(self, logits, **past):
        """The distribution (b, v) that `__call__` draws from."""
        logits, size = self.constrained(logits, **past), logits.shape[-1]
        if self.temperature == 0:
            return ops.one_hot(ops.argmax(logits, axis=-1), size, dtype="float32")
        values, ids = self.candidates(logits)
        found = ops.softmax(values, axis=-1)
        if ids is None:
            return found
        rows = ops.arange(ids.shape[0], dtype="int32")[:, None] * size
        places = ops.reshape(rows + ops.cast(ids, "int32"), (-1,))
        found = ops.segment_sum(ops.reshape(found, (-1,)), places, num_segments=ids.shape[0] * size)
        return ops.reshape(found, (-1, size))

    def candidates(self, logits):
        """What is drawn from: logits (b, c) of c candidates, `NEVER` for those left out, and their ids (b, c).

        Without top-k, top-p and typical nothing is sorted: c is v, and ids are None.
        """
        values, ids, size = logits - ops.max(logits, axis=-1, keepdims=True), None, logits.shape[-1]
        values = values / self.temperature
        if self.top_k or (self.top_p or 1) < 1 or (self.typical_p or 1) < 1:
            values, ids = ops.top_k(values, min(self.top_k or size, size))
        if self.top_p is not None and self.top_p < 1:
            probabilities = ops.softmax(values, axis=-1)
            before = ops.cumsum(probabilities, axis=-1) - probabilities
            values = ops.where(before < self.top_p, values, NEVER)
        if self.min_p is not None:
            values = ops.where(values >= ops.max(values, axis=-1, keepdims=True) + math.log(self.min_p), values, NEVER)
        if self.typical_p is not None and self.typical_p < 1:
            values = ops.where(_typical(values, self.typical_p), values, NEVER)
        for cutoff, adapts in ((self.epsilon_cutoff, False), (self.eta_cutoff, True)):
            if cutoff is not None:
                values = ops.where(_probable(values, cutoff, adapts), values, NEVER)
        return values, ids


def Greedy(**constraints):
    """The most probable token."""
    return Sampler(temperature=0.0, **constraints)


def Temperature(temperature=1.0, **constraints):
    """Draws from softmax(logits / temperature)."""
    return Sampler(temperature=temperature, **constraints)


def TopK(k=50, temperature=1.0, **constraints):
    """Draws among the k most probable tokens."""
    return Sampler(top_k=k, temperature=temperature, **constraints)


def TopP(p=0.9, temperature=1.0, **constraints):
    """Draws among the most probable tokens that together reach probability p."""
    return Sampler(top_p=p, temperature=temperature, **constraints)


def MinP(p=0.05, temperature=1.0, **constraints):
    """Draws among the tokens at least p times as probable as the most probable one."""
    return Sampler(min_p=p, temperature=temperature, **constraints)


def Typical(p=0.95, temperature=1.0, **constraints):
    """Draws among the tokens of typical information that together reach probability p."""
    return Sampler(typical_p=p, temperature=temperature, **constraints)


def _distribution(values):
    """Logarithms of the probabilities (b, c), these, and their entropy (b, 1)."""
    logs = ops.log_softmax(values, axis=-1)
    probabilities = ops.exp(logs)
    entropy = -ops.sum(ops.where(probabilities > 0, probabilities * logs, 0.0), axis=-1, keepdims=True)
    return logs, probabilities, entropy


def _probable(values, cutoff, adapts):
    """Bool (b, c): the tokens whose probability reaches the cutoff, and the likeliest."""
    _, probabilities, entropy = _distribution(values)
    least = ops.minimum(cutoff, math.sqrt(cutoff) * ops.exp(-entropy)) if adapts else cutoff
    return (probabilities >= least) | (values >= ops.max(values, axis=-1, keepdims=True))


def _typical(values, mass):
    """Bool (b, c): the tokens nearest to the entropy that reach `mass`."""
    logs, probabilities, entropy = _distribution(values)
    distance = ops.abs(-logs - entropy)
    nearest, order = ops.top_k(-distance, values.shape[-1])
    total = ops.cumsum(ops.take_along_axis(probabilities, order, axis=-1), axis=-1)
    last = ops.minimum(ops.sum(ops.cast(total < mass, "int32"), axis=-1, keepdims=True), values.shape[-1] - 1)
    return distance <= -ops.take_along_axis(nearest, last, axis=-1)


def pick(weights, uniform):
    """Indices (b,) at which the running sum of weights (b, c) passes its total times uniform (b,) in [0, 1)."""
    cumulative = ops.cumsum(weights, axis=-1)
    total = cumulative[:, -1:]
    # A product may round up to the total: the second condition never leaves the last possible token behind.
    below = (cumulative <= uniform[:, None] * total) & (cumulative < total)
    return ops.sum(ops.cast(below, "int32"), axis=-1)
