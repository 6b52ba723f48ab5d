"""Pretraining objectives: frozen dataclasses that turn packed rows into (x, y, w). One file a kind; no keras."""

from zoo.data.objectives.base import Objective
from zoo.data.objectives.causal import CausalLM
from zoo.data.objectives.infilling import BARTDenoising
from zoo.data.objectives.masked import MaskedLM
from zoo.data.objectives.span_corruption import SpanCorruption

__all__ = ["BARTDenoising", "CausalLM", "MaskedLM", "Objective", "SpanCorruption"]
