"""How much arithmetic a training step is, and how much a device can do: for model-FLOPs utilisation.

Recomputation does not count, nor what XLA or the optimizer add, so the share compares runs of one model in whatever
way they compute it. It knows the paths of weights and what devices call themselves.
"""

import math
import re
import time

import numpy as np
from keras import ops

from zoo import backend, processes, sharding

# Dense matrix products in bfloat16 (float16 before Ampere), FLOP/s of what JAX or PyTorch call one device, from the
# vendors' data sheets. A core of TPU v2 and v3 is a device, half a chip.
PEAKS = {
    "TPU v2": 22.5e12, "TPU v3": 61.5e12, "TPU v4": 275e12, "TPU v5 lite": 197e12, "TPU v5e": 197e12, "TPU v5p": 459e12,
    "TPU v5": 459e12, "TPU v6 lite": 918e12, "TPU v6e": 918e12,
    "V100": 125e12, "T4": 65e12, "A10G": 70e12, "A10": 125e12, "A30": 165e12, "A40": 150e12, "A100": 312e12,
    "L4": 121e12, "L40S": 362e12, "RTX 3090": 71e12, "RTX 4090": 165e12, "H100 PCIe": 756e12, "H100": 989e12,
    "H200": 989e12, "B200": 2250e12,
}  # fmt: skip


def step_flops(model, x, y):
    """Floating-point operations of a forward and backward pass over one batch: 6 a weight and token that meet in a
    matrix product, 12 a pair of positions and feature of the heads in attention (Chowdhery et al. 2022, appendix B).

    Embeddings that are looked up are none; the vocabulary head counts at the positions that have labels. A causal
    mask saves nothing here, as in that paper.

    Args:
        model: a CausalLM, MaskedLM or Seq2SeqLM.
        x, y: the inputs and labels of a batch, arrays.
    """
    config, rows = model.config, x["token_ids"].shape[0]
    source, labels = x["token_ids"].shape[1], math.prod(y.shape)
    target = x["decoder_token_ids"].shape[1] if "decoder_token_ids" in x else source
    shared = config.num_layers / config.num_distinct_blocks if config.num_distinct_blocks else 1
    total = 0
    for v in model.trainable_variables + model.non_trainable_variables:
        if not v.path.endswith("/kernel") or len(v.shape) != 2:
            continue
        tokens = rows * (target if "/decoder/" in v.path else source)
        tokens = rows * source if re.search(r"/cross/(key|value)/", v.path) else tokens
        tokens = labels if "/head/" in v.path else tokens
        total += 6 * math.prod(v.shape) * tokens * (shared if "/block_" in v.path else 1)
    if config.tie_embeddings:
        total += 6 * config.vocabulary_size * config.resolved_embedding_dim * labels
    decoder, width = config.resolved_decoder_layers, config.num_heads * config.resolved_head_dim
    pairs = 0 if config.architecture == "decoder" else config.num_layers * source**2
    pairs += decoder * target**2 + (decoder * target * source if config.architecture == "encoder_decoder" else 0)
    return total + 12 * rows * pairs * width


def device_peak():
    """FLOP/s of matrix products on the devices in use: by name, measured in float32 on a CPU, None if unknown."""
    name = backend.device_name()
    if name is None:
        return processes.count() * measured_peak()
    found = [known for known in PEAKS if re.search(rf"\b{known}\b", name)]
    devices = sharding.current().num_devices if sharding.current() else 1
    return devices * PEAKS[max(found, key=len)] if found else None


def measured_peak(size=1024, tries=6):
    """FLOP/s of the best of a few square float32 matrix products, in float32."""
    a = ops.convert_to_tensor(np.random.default_rng(0).random((size, size), dtype="float32"))
    product = backend.compiled(lambda x: ops.sum(ops.matmul(x, x)), [])
    float(product(a))  # compiles
    best = math.inf
    for _ in range(tries):
        start = time.perf_counter()
        float(product(a))
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
