"""Text to batches: sources, a memory-mapped token store, packing, pretraining objectives, a loader. numpy, no keras.

>>> data = pretraining("pydocs", tokenizer, SpanCorruption(), sequence_length=512, batch_size=32)   # doctest: +SKIP
>>> x, y, w = data.batch(1000)                                                                      # doctest: +SKIP
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
