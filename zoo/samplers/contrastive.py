"""Contrastive: what contrastive search needs to be told; `zoo.generation.contrastive` searches."""

import dataclasses

from zoo.samplers.constraints import Constraints, whole


@dataclasses.dataclass(frozen=True)
class Contrastive(Constraints):
    """Contrastive search (Su et al. 2022): of the likeliest tokens the one least like what was there, without chance.

    A candidate's score is (1 - alpha) times its probability, less alpha times the greatest cosine between its hidden
    state, the decoder's last, and those of the tokens before it.

    Args:
        k: candidates at each step. The model runs on all of them, so a token costs up to k times as much.
        alpha: weight of the likeness; 0 is greedy.
        constraints: see `Constraints`; what they forbid is no candidate.

    Raises:
        ValueError: numbers out of range.

    >>> import zoo
    >>> zoo.samplers.Contrastive(5, alpha=0.4).k
    5
    """

    k: int = 4
    alpha: float = 0.6

    def __post_init__(self):
        super().__post_init__()
        whole("k", self.k, 1)
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1], got {self.alpha}.")
