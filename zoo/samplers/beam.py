"""Beam: what a beam search needs to be told; `zoo.generation.beam` searches."""

import dataclasses
import math

from zoo.samplers.constraints import Constraints, whole


@dataclasses.dataclass(frozen=True)
class Beam(Constraints):
    """Searches for the most probable texts (Sutskever et al. 2014), with `Constraints` on log-probabilities.

    Args:
        size: texts that are kept at each step.
        length_penalty: a text's score is its log-probability over its number of tokens to this power.
        early_stopping: True ends when `size` texts have; False when no text on the way is better at its present length
            than the worst that has ended; "never" reckons with the greatest length, where the penalty is positive.
        num_returns: so many texts a prompt, best first; with more than 1 `generate` gives a list a prompt.
        renormalize: whether log-probabilities are normalised again after the constraints.
        constraints: see `Constraints`.

    Raises:
        ValueError: numbers out of range.

    >>> import zoo
    >>> zoo.samplers.Beam(4, length_penalty=2.0).num_returns
    1
    """

    size: int = 4
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    num_returns: int = 1
    renormalize: bool = False

    def __post_init__(self):
        super().__post_init__()
        whole("size", self.size, 1)
        whole("num_returns", self.num_returns, 1)
        if self.num_returns > self.size:
            raise ValueError(f"num_returns={self.num_returns} is more than the beam's size={self.size}.")
        if not math.isfinite(self.length_penalty):
            raise ValueError(f"length_penalty must be a finite number, got {self.length_penalty}.")
        if self.early_stopping not in (True, False, "never"):
            raise ValueError(f"early_stopping must be True, False or 'never', got {self.early_stopping!r}.")
