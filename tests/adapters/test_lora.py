"""LoRA on every backend: what it computes, what it trains, and that merged, switched and reloaded models compute the
same."""

import keras
import numpy as np
import pytest

import zoo
from tests.models import TINY, gradients, randomise, relative_error, run
from zoo import adapters
from zoo.adapters.attach import held, kernels
from zoo.loading import weights

IDS = np.random.default_rng(0).integers(3, 96, (3, 12)).astype("int32")
TEXT = {"token_ids": IDS}


def llama(**fields):
    return randomise(zoo.CausalLM(zoo.LlamaBackbone(**{**TINY, **fields})))


def classifier():
    return randomise(zoo.TextClassifier(zoo.BERTBackbone(**TINY, dropout=0.0), num_classes=3, head={"dropout": 0.0}))


def filled(model, name="default", seed=5):
    """Random values in B too, so that an adapter does something."""
    rng = np.random.default_rng(seed)
    for adapter in held(model, name).values():
        adapter.b.assign(rng.normal(size=adapter.b.shape).astype("float32"))


@pytest.mark.backends
def test_lora_adds_a_low_rank_product_and_merges_into_the_kernels():
    """Against the same model whose kernels are changed by hand."""
    model, plain = llama(), llama()
    before = run(model, TEXT)
    adapters.lora(model, rank=4, alpha=8, pattern="(query|value|down)/kernel")
    assert (run(model, TEXT) == before).all()  # B is 0
    filled(model)
    for name, adapter in held(model, "default").items():
        a, b = (keras.ops.convert_to_numpy(v) for v in (adapter.a, adapter.b))
        weights(plain)[name].assign(keras.ops.convert_to_numpy(weights(plain)[name]) + 2.0 * a @ b)
    expected, got = run(plain, TEXT), run(model, TEXT)
    assert relative_error(got, expected) < 1e-5 and relative_error(before, expected) > 1e-2
    adapters.use(model, None)
    assert (run(model, TEXT) == before).all()
    adapters.use(model, "default")
    adapters.merge(model)
    assert relative_error(run(model, TEXT), expected) < 1e-5
    assert adapters.names(model) == [] and weights(model).keys() == weights(plain).keys()
    assert all(v.trainable for v in weights(model).values())


@pytest.mark.backends
def test_only_the_adapter_is_trained_and_learns(capsys):
    texts, labels = IDS, np.array([0, 1, 2])
    model = classifier()
    old = {name: keras.ops.convert_to_numpy(v) for name, v in weights(model).items()}
    adapters.lora(model, rank=2, pattern="(query|value)/kernel")
    count = 2 * (32 * 2 + 2 * 32)
    assert f"trained: {count + 32 * 32 + 32 + 32 * 3 + 3:,} of" in capsys.readouterr().out
    model.compile(keras.optimizers.Adam(0.01))
    first, *_, last = model.fit({"token_ids": texts}, labels, epochs=12, verbose=0).history["loss"]
    assert last < 0.5 * first
    changed = {
        name for name, v in weights(model).items() if name in old and (keras.ops.convert_to_numpy(v) != old[name]).any()
    }
    assert changed == {name for name in old if name.startswith("head/")}
    assert all(np.any(keras.ops.convert_to_numpy(one.b)) for one in held(model, "default").values())


@pytest.mark.backends
def test_gradients_are_those_of_the_merged_product():
    """dA = scale · dW Bᵀ and dB = scale · Aᵀ dW, where dW is the kernel's gradient."""
    model, labels, weight = llama(), np.roll(IDS, -1, 1), np.ones(IDS.shape)
    adapters.lora(model, rank=3, alpha=6, pattern="block_0/mlp/up/kernel")
    filled(model)
    found = gradients(model, TEXT, labels, weight)
    ((name, adapter),) = held(model, "default").items()
    a, b = (keras.ops.convert_to_numpy(v) for v in (adapter.a, adapter.b))
    adapters.merge(model)
    whole = gradients(model, TEXT, labels, weight)[name]
    place = name.removesuffix("kernel") + "adapter_default/"
    assert found.keys() == {f"{place}a", f"{place}b"}
    assert relative_error(found[f"{place}a"], 2 * whole @ b.T) < 1e-4
    assert relative_error(found[f"{place}b"], 2 * a.T @ whole) < 1e-4


@pytest.mark.backends
def test_adapters_are_switched_in_generation_and_prediction():
    """Programs that were compiled for one adapter are not used for another."""
    model, prompts = llama(), {"token_ids": IDS[:, :4]}
    plain, logits = model.generate(prompts, max_new_tokens=6), model.predict(TEXT, verbose=0)
    adapters.lora(model, name="one")
    filled(model, "one", seed=1)
    adapters.lora(model, rank=3, pattern="(key|up)/kernel", name="two")
    filled(model, "two", seed=2)
    found = {}
    for name in ("one", "two", None):
        adapters.use(model, name)
        found[name] = model.generate(prompts, max_new_tokens=6), model.predict(TEXT, verbose=0)
        assert relative_error(found[name][1], run(model, TEXT)) < 1e-5
    assert (found[None][0] == plain).all() and (found[None][1] == logits).all()
    assert relative_error(found["one"][1], found["two"][1]) > 0.01 and adapters.names(model) == ["one", "two"]
    assert (found["one"][0] != found["two"][0]).any()
    adapters.remove(model)
    assert (model.predict(TEXT, verbose=0) == logits).all() and adapters.names(model) == []


@pytest.mark.uncompiled
def test_recomputed_blocks_train_adapters_too():
    labels, weight = np.roll(IDS, -1, 1), np.ones(IDS.shape)
    found = []
    for remat in (False, True):
        model = llama(remat=remat)
        adapters.lora(model)
        filled(model)
        found.append(gradients(model, TEXT, labels, weight, training=True))
    assert found[0].keys() == found[1].keys()
    assert max(relative_error(found[1][name], found[0][name]) for name in found[0]) < 1e-4


@pytest.mark.uncompiled
def test_a_model_in_half_precision_trains_its_adapter():
    """Whose weights are float32, while training the model itself is refused."""
    model = zoo.CausalLM(zoo.LlamaBackbone(**TINY, dtype="bfloat16"))
    labels = np.roll(IDS, -1, 1)
    with pytest.raises(ValueError, match="half precision"):
        model.fit(TEXT, labels, verbose=0)
    adapters.lora(model, pattern="kernel")
    model.compile(keras.optimizers.Adam(0.02))
    losses = model.fit(TEXT, labels, epochs=25, verbose=0).history["loss"]
    assert losses[-1] < 0.9 * losses[0]
    assert {keras.backend.standardize_dtype(v.dtype) for v in model.trainable_variables} == {"float32"}


def test_biases_alone(capsys):
    model = classifier()
    adapters.bitfit(model)
    names = {name for name, v in weights(model).items() if v.trainable}
    assert names == {name for name in weights(model) if name.endswith("bias") or name.startswith("head/")}
    assert "trained: " in capsys.readouterr().out
    with pytest.raises(ValueError, match="matches no weight"):
        adapters.bitfit(llama())


@pytest.mark.uncompiled
def test_quantised_layers_have_adapters_too():
    model = llama()
    for layer in kernels(model).values():
        layer.quantize("int8", type_check=False)  # Keras's quantize leaves subclasses of its layers out
    before = model.predict(TEXT, verbose=0)
    adapters.lora(model)
    assert (model.predict(TEXT, verbose=0) == before).all()
    filled(model)
    assert relative_error(model.predict(TEXT, verbose=0), before) > 0.01
    with pytest.raises(ValueError, match="is quantised"):
        adapters.merge(model)


@pytest.mark.uncompiled
def test_what_is_refused(tmp_path):
    model = llama()
    with pytest.raises(ValueError, match="'queri' matches no kernel of a dense layer; there are decoder/block_N/"):
        adapters.lora(model, pattern="queri")
    with pytest.raises(ValueError, match="train='heads' matches no weight"):
        adapters.lora(llama(), train="heads")
    with pytest.raises(ValueError, match="rank must be a whole number above 0, got 0"):
        adapters.lora(model, rank=0)
    with pytest.raises(ValueError, match="uses no adapter"):
        adapters.merge(model)
    adapters.lora(model)
    with pytest.raises(ValueError, match="has an adapter 'default' already"):
        adapters.lora(model)
    with pytest.raises(ValueError, match="no adapter 'other'; it has default"):
        adapters.use(model, "other")
    with pytest.raises(ValueError, match=r"zoo\.adapters\.save"):
        model.save_to_preset(tmp_path / "preset")
    with pytest.raises(ValueError, match=r"zoo\.adapters\.save"):
        model.save(tmp_path / "model.keras")
    assert not (tmp_path / "preset").exists() and len(kernels(model)) == 7
