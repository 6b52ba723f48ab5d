"""Text to batches: sources, a memory-mapped token store, packing, pretraining objectives, a loader. numpy, no keras.

`pretraining` is the way in; `pydocs` the text that is always there.
"""

from zoo.data import sources
from zoo.data.batches import Batches
from zoo.data.cleaning import Cleaning
from zoo.data.conversations import answered, answers_marked, instructions, preferences
from zoo.data.embedded import embedded
from zoo.data.examples import Examples, examples
from zoo.data.label_names import label_names
from zoo.data.labelled import labelled
from zoo.data.loader import Pretraining, pretraining
from zoo.data.mixture import MixedPretraining, mixed_pretraining
from zoo.data.objectives import (
    UL2,
    BARTDenoising,
    CausalLM,
    Contrastive,
    FillInTheMiddle,
    MaskedLM,
    Mixture,
    NextSentence,
    Objective,
    PermutationLM,
    PrefixLM,
    ReplacedTokenDetection,
    SentenceOrder,
    SpanCorruption,
)
from zoo.data.preparation import prepare
from zoo.data.preview import preview
from zoo.data.prose import pydocs
from zoo.data.report import length_histogram, summary
from zoo.data.sources import texts
from zoo.data.store import Store

__all__ = [
    "UL2",
    "BARTDenoising",
    "Batches",
    "CausalLM",
    "Cleaning",
    "Contrastive",
    "Examples",
    "FillInTheMiddle",
    "MaskedLM",
    "MixedPretraining",
    "Mixture",
    "NextSentence",
    "Objective",
    "PermutationLM",
    "PrefixLM",
    "Pretraining",
    "ReplacedTokenDetection",
    "SentenceOrder",
    "SpanCorruption",
    "Store",
    "answered",
    "answers_marked",
    "embedded",
    "examples",
    "instructions",
    "label_names",
    "labelled",
    "length_histogram",
    "mixed_pretraining",
    "preferences",
    "prepare",
    "pretraining",
    "preview",
    "pydocs",
    "sources",
    "summary",
    "texts",
]
