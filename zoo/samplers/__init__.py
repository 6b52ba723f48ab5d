"""Samplers: from one step's logits to the next token, or how `Beam` and `Contrastive` search; no model, no text."""

from zoo.samplers.beam import Beam
from zoo.samplers.constraints import Constraints
from zoo.samplers.contrastive import Contrastive
from zoo.samplers.sampler import Greedy, MinP, Sampler, Temperature, TopK, TopP, Typical

__all__ = ["Beam", "Constraints", "Contrastive", "Greedy", "MinP", "Sampler", "Temperature", "TopK", "TopP", "Typical"]
