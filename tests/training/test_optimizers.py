"""Weights treated by name, against AdamW and SGD written out in numpy, and the errors."""

import importlib

import keras
import numpy as np
import pytest
from keras import ops

import zoo
from tests.models import TINY
from zoo import sharding
from zoo.training import WarmupSchedule, by_pattern

pytestmark = pytest.mark.backends
on_torch = pytest.mark.skipif(keras.backend.backend() != "torch", reason="is of PyTorch alone")
B1, B2, EPS, DECAY, CLIP = 0.9, 0.95, 1e-8, 0.1, 0.7
SHAPES = {"m/a/kernel": (2, 3), "m/a/bias": (3,), "m/b/kernel": (3, 1), "m/b/bias": (1,)}
GRADIENTS = [{k: np.random.default_rng([i, len(k), k[2] == "a"]).normal(size=s).astype("float32")
              for k, s in SHAPES.items()} for i in range(5)]  # fmt: skip
RATE = WarmupSchedule(1e-2, 5, 2, "linear")
FACTORS = {"m/a/kernel": 0.25, "m/a/bias": 0.5, "m/b/kernel": 1.0, "m/b/bias": 2.0}


def two_layers():
    layers = [keras.Input((2,)), keras.layers.Dense(3, name="a"), keras.layers.Dense(1, name="b")]
    return keras.Sequential(layers, name="m")


def numpy_of(variable):
    return np.array(keras.ops.convert_to_numpy(variable.value))


def adamw(weights, clip):
    """Loshchilov & Hutter 2019, algorithm 2, with the global norm clipped and biases not decayed."""
    weights = {k: w.astype("float64") for k, w in weights.items()}
    m, v, norms = {k: 0.0 for k in weights}, {k: 0.0 for k in weights}, []
    for t, gradients in enumerate(GRADIENTS, start=1):
        norms.append(np.sqrt(sum((g.astype("float64") ** 2).sum() for g in gradients.values())))
        for k, g in gradients.items():
            g = g * min(1.0, clip / norms[-1])
            rate = float(RATE(t - 1)) * FACTORS[k]
            m[k], v[k] = B1 * m[k] + (1 - B1) * g, B2 * v[k] + (1 - B2) * g * g
            step = (m[k] / (1 - B1**t)) / (np.sqrt(v[k] / (1 - B2**t)) + EPS)
            weights[k] = weights[k] - rate * (step + DECAY * (k.endswith("kernel")) * weights[k])
    return weights, norms


def updates(model, optimizer):
    """Applies the gradients as Keras's trainers do; the norms that were recorded."""
    by_path, norms = {v.path: v for v in model.trainable_variables}, []
    for gradients in GRADIENTS:
        pairs = [(keras.ops.convert_to_tensor(gradients[path]), v) for path, v in by_path.items()]
        optimizer.apply_gradients(pairs)
        norms.append(float(numpy_of(optimizer.gradient_norm)))
    return {path: numpy_of(v) for path, v in by_path.items()}, norms


def test_equals_adamw_written_out():
    model = two_layers()
    before = {v.path: numpy_of(v) for v in model.variables}
    base = keras.optimizers.AdamW(RATE, beta_1=B1, beta_2=B2, epsilon=EPS, weight_decay=DECAY, global_clipnorm=CLIP)
    rates = {"^m/a/": 0.5, "a/kernel": 0.5, "b/bias$": 2.0}
    found, norms = updates(model, by_pattern(base, model, rates=rates))
    expected, expected_norms = adamw(before, CLIP)
    for path in SHAPES:
        np.testing.assert_allclose(found[path], expected[path], rtol=2e-5, atol=1e-7, err_msg=path)
    np.testing.assert_allclose(norms, expected_norms, rtol=1e-5)


def test_the_rate_may_be_set_and_is_reported():
    model = two_layers()
    before = {v.path: numpy_of(v) for v in model.variables}
    optimizer = by_pattern(keras.optimizers.SGD(0.1), model, rates={"^m/a/": 0.5})
    optimizer.build(model.trainable_variables)
    optimizer.learning_rate = 0.2
    found, _ = updates(model, optimizer)
    for path in SHAPES:
        rate, total = 0.2 * (0.5 if path[2] == "a" else 1.0), sum(g[path] for g in GRADIENTS)
        np.testing.assert_allclose(found[path], before[path] - rate * total, rtol=1e-5, atol=1e-6)
    assert float(keras.ops.convert_to_numpy(optimizer.learning_rate)) == pytest.approx(0.2)
    assert int(keras.ops.convert_to_numpy(optimizer.iterations.value)) == 5


def lm(name="GPTBackbone", **fields):
    return zoo.CausalLM(getattr(zoo, name)(**{**TINY, "dropout": 0.0, **fields}))


def fit(model, **options):
    base = keras.optimizers.Adam(1e-3, epsilon=1e-12, name="adam")
    model.compile(by_pattern(base, model, **options), weighted_metrics=None)
    before = {v.path: numpy_of(v) for v in model.variables}
    ids = np.random.default_rng(0).integers(1, 96, (4, 8)).astype("int32")
    model.fit({"token_ids": ids}, batch_size=4, verbose=0)
    return {v.path: np.abs(numpy_of(v) - before[v.path]).max() for v in model.variables}


def test_a_step_of_adam_is_the_rate_of_the_layer():
    """And frozen weights stay; through `fit`, on a model of ours."""
    moved = fit(lm(num_layers=2), layer_decay=0.5, freeze=["block_1/mlp/"], rates={"final_norm": 3.0})
    for path, step in moved.items():
        block = [i for i in range(2) if f"block_{i}/" in path]
        depth = 2 - block[0] if block else 0 if "final_norm" in path else 3
        expected = 1e-3 * 0.5**depth * (3.0 if "final_norm" in path else 1.0)
        if "block_1/mlp/" in path or "seed" in path:
            assert step == 0 or "seed" in path
        elif not path.endswith("key/bias"):  # whose gradient is zero but for rounding
            assert step == pytest.approx(expected, rel=0.02), path


def test_survives_saving(tmp_path):
    model = lm()
    fit(model, rates={"token": 0.5}, layer_decay=0.9)
    model.save(tmp_path / "lm.keras")
    again = keras.models.load_model(tmp_path / "lm.keras")
    assert again.optimizer.get_config() == model.optimizer.get_config()
    for ours, theirs in zip(again.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(numpy_of(ours), numpy_of(theirs))


def test_the_first_bad_step_is_remembered():
    model = two_layers()
    optimizer = by_pattern(keras.optimizers.SGD(0.1, global_clipnorm=1.0), model)
    for spoilt in (1.0, np.inf, 1.0, np.nan):
        gradients = [keras.ops.full(v.shape, spoilt) for v in model.trainable_variables]
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    assert int(numpy_of(optimizer.first_bad)) == 2


REFUSED = [
    ({"freeze": ["atn/query"]}, r"'atn/query' matches no trainable weight; the nearest are .*attn/query"),
    ({"no_decay": ["gamma"]}, "'gamma' matches no"),
    ({"rates": {"blok": 0.5}}, "'blok' matches no"),
    ({"rates": {"token": 0}}, "above 0"),
    ({"freeze": ["."]}, "nothing to train"),
    ({"layer_decay": 1.5}, "layer_decay=1.5"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_refuses(options, message):
    model = lm()
    count = len(model.trainable_variables)
    with pytest.raises(ValueError, match=message):
        by_pattern(keras.optimizers.AdamW(1e-3), model, **options)
    assert len(model.trainable_variables) == count


def test_refuses_optimizers_that_cannot_be_composed():
    model = lm()
    excluding = keras.optimizers.AdamW(1e-3)
    excluding.exclude_from_weight_decay(var_names=["bias"])
    for optimizer, message in (
        (keras.optimizers.AdamW(1e-3, gradient_accumulation_steps=2), "accumulate"),
        (keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)), "wraps other optimizers"),
        (excluding, "no_decay"),
    ):
        with pytest.raises(ValueError, match=message):
            by_pattern(optimizer, model)


@on_torch
@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1, "clipnorm": 0.5, "epsilon": 1e-2}, {"amsgrad": True}])
@pytest.mark.parametrize("lying", ["as it is", "transposed", "in another"])
def test_the_fused_update_is_that_of_keras(options, lying):
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(6, 4)).astype("float32"), rng.normal(size=(5, 6, 4)).astype("float32")

    def after(prepare):
        variable, optimizer = keras.Variable(start), prepare(keras.optimizers.AdamW(1e-2, **options))
        if lying != "as it is":  # as weights that are views of files
            place = variable.value.new_zeros((6, 8)) if lying == "in another" else variable.value.new_zeros((4, 6)).t()
            place[:, :4] = variable.value.data
            variable.value.data = place[:, :4]
        for gradient in gradients:
            optimizer.apply([ops.convert_to_tensor(gradient)], [variable])
        return [ops.convert_to_numpy(v) for v in [variable, *optimizer.variables]]

    for found, expected in zip(after(sharding.prepared), after(lambda plain: plain), strict=True):
        # Keras takes 1 - beta ** t in float32: 3e-5 of a step of 1e-2.
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@on_torch
def test_keras_still_asks_for_the_update_that_is_fused(monkeypatch):
    calls = []
    module = importlib.import_module("torch.optim.adam")
    monkeypatch.setattr(module, "adam", lambda *args, **kwargs: calls.append(kwargs["fused"]))
    lm = zoo.CausalLM(zoo.GPTBackbone(**TINY))
    lm.compile("adamw")
    lm.fit({"token_ids": np.ones((2, 4), "int32")}, verbose=0)
    assert calls == [True]
