"""Counted arithmetic against what XLA counts in the compiled program, and against PaLM's formula."""

import keras
import numpy as np
import pytest

import zoo
from tests.models import TINY
from zoo import training
from zoo.training import flops

SIZES = {**TINY, "num_layers": 2, "hidden_dim": 128, "intermediate_dim": 512, "vocabulary_size": 512,
         "max_sequence_length": 64}  # fmt: skip


@pytest.mark.parametrize("name", ["GPTBackbone", "LlamaBackbone", "BERTBackbone", "T5Backbone", "ALBERTBackbone"])
def test_is_three_times_the_forward_pass_that_xla_counts(name):
    jax = pytest.importorskip("jax")
    task = {"BERTBackbone": "MaskedLM", "ALBERTBackbone": "MaskedLM", "T5Backbone": "Seq2SeqLM"}.get(name, "CausalLM")
    model = getattr(zoo, task)(getattr(zoo, name)(**SIZES))
    x, y = {"token_ids": np.ones((4, 64), "int32")}, np.ones((4, 64), "int32")
    if task == "MaskedLM":
        x["mask_positions"], y = np.ones((4, 9), "int32"), np.ones((4, 9), "int32")
    if task == "Seq2SeqLM":
        x["decoder_token_ids"], y = np.ones((4, 16), "int32"), np.ones((4, 16), "int32")

    def forward(values, x):
        with keras.StatelessScope(list(zip(model.variables, values))):
            return model(x)

    counted = jax.jit(forward).lower([v.value for v in model.variables], x).compile().cost_analysis()["flops"]
    found = training.step_flops(model, x, y)
    assert 0.75 < found / (3 * counted) <= 1.0  # XLA also counts norms, softmax and activations


def test_is_the_formula_of_palm():
    """6 N + 12 layers x heads x features x length a token, N without positions, norms and biases."""
    model = zoo.CausalLM(zoo.GPTBackbone(**SIZES))
    x = np.ones((2, 64), "int32")
    weights = 2 * (4 * 128 * 128 + 2 * 128 * 512) + 512 * 128
    assert training.step_flops(model, {"token_ids": x}, x) == 128 * (6 * weights + 12 * 2 * 128 * 64)


@pytest.mark.backends
def test_the_measured_peak_is_no_more_than_numpy_could_dream_of():
    peak = flops.measured_peak(size=256, tries=3)
    assert 1e8 < peak < 1e14
    assert training.device_peak() > 1e8


@pytest.mark.parametrize(("name", "peak"), [
    ("NVIDIA A100-SXM4-40GB", 312e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA H100 80GB HBM3", 989e12),
    ("NVIDIA L40S", 362e12), ("NVIDIA L4", 121e12), ("Tesla V100-SXM2-16GB", 125e12), ("TPU v5 lite", 197e12),
    ("TPU v4", 275e12), ("NVIDIA GeForce RTX 4090", 165e12), ("NVIDIA A10G", 70e12), ("Abacus", None),
])  # fmt: skip
def test_devices_are_known_by_name(name, peak, monkeypatch):
    monkeypatch.setattr(flops.backend, "device_name", lambda: name)
    assert training.device_peak() == peak
