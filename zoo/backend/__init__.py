"""What differs between JAX, TensorFlow and PyTorch, each difference behind one function with one contract.

The only room, beside the engines of training and distribution, that imports a backend, and then only the one in use.
"""

from zoo.backend.devices import device_name, fused_attention_pays, jax_platform, logits_at_once, targeting
from zoo.backend.gradients import recomputed, remat, scanned, with_gradients
from zoo.backend.memory import Blank, give, is_uninitialised, spread, uninitialised
from zoo.backend.products import (
    add_product,
    cross_entropy,
    dropout,
    fuse,
    fused_attention,
    global_norm,
    product,
    scaled,
    softmax,
    write,
)
from zoo.backend.programs import compiled, compiles, feed, no_gradients, repeated, scan

__all__ = ["Blank", "add_product", "compiled", "compiles", "cross_entropy", "device_name", "dropout", "feed", "fuse",
           "fused_attention", "fused_attention_pays", "give", "global_norm", "is_uninitialised", "jax_platform",
           "logits_at_once", "no_gradients", "product", "recomputed", "remat", "repeated", "scaled", "scan", "scanned",
           "softmax", "spread", "targeting", "uninitialised", "with_gradients", "write"]  # fmt: skip
