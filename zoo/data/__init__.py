"""Text to batches: sources, a memory-mapped token store, packing, pretraining objectives, a loader. numpy, no keras.

`pretraining` is the way in; `pydocs` the text that is always there.
"""

from zoo.data import sources
from zoo.data.loader import Pretraining, pretraining
from zoo.data.objectives import BARTDenoising, CausalLM, MaskedLM, Objective, SpanCorruption
from zoo.data.prose import pydocs
from zoo.data.sources import texts
from zoo.data.store import Store, prepare

__all__ = [
    "BARTDenoising",
    "CausalLM",
    "MaskedLM",
    "Objective",
    "Pretraining",
    "SpanCorruption",
    "Store",
    "prepare",
    "pretraining",
    "pydocs",
    "sources",
    "texts",
]
