"""Samplers: from the logits of one step to the next token, or for `Beam` how to search; no model, no text."""

from zoo.samplers.beam import Beam
from zoo.samplers.constraints import Constraints
from zoo.samplers.sampler import Greedy, MinP, Sampler, Temperature, TopK, TopP, Typical

__all__ = ["Beam", "Constraints", "Greedy", "MinP", "Sampler", "Temperature", "TopK", "TopP", "Typical"]
