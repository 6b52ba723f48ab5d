"""Pretraining objectives: frozen dataclasses that turn packed rows into (x, y, w). One file a kind; no keras."""

from zoo.data.objectives.base import Objective
from zoo.data.objectives.causal import CausalLM
from zoo.data.objectives.fill_in_the_middle import FillInTheMiddle
from zoo.data.objectives.infilling import BARTDenoising
from zoo.data.objectives.masked import MaskedLM
from zoo.data.objectives.mixture import Mixture
from zoo.data.objectives.pairs import Contrastive, NextSentence, SentenceOrder
from zoo.data.objectives.permutation import PermutationLM
from zoo.data.objectives.prefix import PrefixLM
from zoo.data.objectives.replaced import ReplacedTokenDetection
from zoo.data.objectives.span_corruption import SpanCorruption
from zoo.data.objectives.ul2 import UL2

__all__ = [
    "UL2",
    "BARTDenoising",
    "CausalLM",
    "Contrastive",
    "FillInTheMiddle",
    "MaskedLM",
    "Mixture",
    "NextSentence",
    "Objective",
    "PermutationLM",
    "PrefixLM",
    "ReplacedTokenDetection",
    "SentenceOrder",
    "SpanCorruption",
]
