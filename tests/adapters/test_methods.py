"""IA³, bottlenecks and prompts: what they compute, against changed kernels, numpy and a larger vocabulary; what they
train; their directories."""

import dataclasses
import math

import keras
import numpy as np
import pytest

import zoo
from tests.models import TINY, gradients, randomise, relative_error, run
from zoo import adapters
from zoo.adapters.attach import TOKENS, held
from zoo.checkpoint import read_json
from zoo.loading import weights

RNG = np.random.default_rng(0)
IDS = RNG.integers(3, 96, (3, 12)).astype("int32")
MASK = (np.arange(12)[None] < [[12], [7], [9]]).astype("int32")
TEXT = {"token_ids": IDS, "padding_mask": MASK}
SMALL = {**TINY, "num_layers": 1}


def llama(**fields):
    return randomise(zoo.CausalLM(zoo.LlamaBackbone(**SMALL | fields)))


def bloom(**fields):
    return randomise(zoo.CausalLM(zoo.BLOOMBackbone(**SMALL | fields)))


def masked(**fields):
    return randomise(zoo.MaskedLM(zoo.BERTBackbone(**SMALL | fields)))


def bart(**fields):
    return randomise(zoo.Seq2SeqLM(zoo.BARTBackbone(**SMALL | fields, decoder_start_token_id=0, embedding_scale=2.0)))


def classifier(**fields):
    backbone = zoo.BERTBackbone(**SMALL | fields, dropout=0.0)
    return randomise(zoo.TextClassifier(backbone, num_classes=3, head={"dropout": 0.0}))


def filled(model, seed=5):
    """Random values in the adapter in use."""
    rng = np.random.default_rng(seed)
    for adapter in held(model, "default").values():
        for v in adapter.variables:
            v.assign(rng.normal(size=v.shape).astype("float32"))


@pytest.mark.backends
def test_ia3_is_a_change_of_kernels_and_biases():
    """The classifier has biases, which are multiplied with the outputs."""
    model, plain = classifier(), classifier()
    before = run(model, TEXT)
    adapters.ia3(model)
    assert (run(model, TEXT) == before).all()
    filled(model)
    own = weights(plain)
    for name, adapter in held(model, "default").items():
        scale = keras.ops.convert_to_numpy(adapter.scale)
        changed = [name] if name.endswith("mlp/down/kernel") else [name, name.replace("kernel", "bias")]
        for one in changed:
            value = keras.ops.convert_to_numpy(own[one])
            own[one].assign(value * (scale[:, None] if len(changed) == 1 else scale))
    expected = run(plain, TEXT)
    assert relative_error(run(model, TEXT), expected) < 1e-4 < 1e-2 < relative_error(before, expected)
    adapters.merge(model)
    assert relative_error(run(model, TEXT), expected) < 1e-4 and adapters.names(model) == []


def test_a_bottleneck_is_a_small_feed_forward_behind_a_layer():
    model = llama()
    before = run(model, TEXT)
    adapters.bottleneck(model, size=5)
    assert (run(model, TEXT) == before).all() and len(held(model, "default")) == 2
    filled(model)
    adapter, x = held(model, "default")["decoder/block_0/attn/out/kernel"], RNG.normal(size=(2, 32)).astype("float32")
    down, down_bias, up, up_bias = map(keras.ops.convert_to_numpy, adapter.variables)
    low = x @ down + down_bias
    low = low * 0.5 * (1 + np.vectorize(math.erf)(low / 2**0.5))
    found = keras.ops.convert_to_numpy(adapter.around(lambda x: x, keras.ops.convert_to_tensor(x)))
    assert relative_error(found, x + low @ up + up_bias) < 1e-5
    assert relative_error(run(model, TEXT), before) > 0.01
    with pytest.raises(ValueError, match="A Bottleneck is no change of weights"):
        adapters.merge(model)


def with_tokens(make, model):
    """A model like one with a prompt, whose vectors are the last tokens of a larger vocabulary; `TEXT` with them."""
    vectors = keras.ops.convert_to_numpy(held(model, "default")[TOKENS].vectors)
    larger, count = make(vocabulary_size=96 + len(vectors)), len(vectors)
    for name, v in weights(larger).items():
        value = keras.ops.convert_to_numpy(weights(model)[name])
        if name == TOKENS:
            value = np.concatenate([value, vectors])
        v.assign(np.pad(value, [(0, b - a) for a, b in zip(value.shape, v.shape)]))
    lead = np.tile(np.arange(96, 96 + count, dtype="int32"), (3, 1))
    return larger, {"token_ids": np.concatenate([lead, IDS], 1),
                    "padding_mask": np.concatenate([np.ones_like(lead), MASK], 1)}  # fmt: skip


def inputs(model, text):
    """With decoder tokens for an encoder-decoder."""
    return {**text, "decoder_token_ids": IDS[:, ::-1].copy()} if isinstance(model, zoo.Seq2SeqLM) else text


@pytest.mark.uncompiled
@pytest.mark.parametrize("make", [masked, bart])
def test_a_prompt_is_tokens_of_its_own(make):
    model = make()
    adapters.prompt(model, length=4, seed=1)
    filled(model)
    larger, text = with_tokens(make, model)
    both, found = run(larger, inputs(larger, text)), run(model, inputs(model, TEXT))
    expected = (both if make is bart else both[:, 4:])[..., :96]
    seen = np.ones_like(MASK) if make is bart else MASK
    assert relative_error(found[seen > 0], expected[seen > 0]) < 1e-5
    adapters.use(model, None)
    assert relative_error(run(model, inputs(model, TEXT))[seen > 0], expected[seen > 0]) > 0.01


@pytest.mark.backends
def test_a_prompt_trains_as_tokens_do():
    """A classifier, which reads the first of all tokens."""
    model, labels = classifier(), np.array([0, 1, 2])
    adapters.prompt(model, length=4)
    filled(model)
    larger, text = with_tokens(classifier, model)
    found, expected = (gradients(*one, labels, np.ones(3)) for one in ((model, TEXT), (larger, text)))
    head = {name for name in weights(model) if name.startswith("head/")}
    assert found.keys() == {"token/adapter_default/vectors"} | head
    assert relative_error(found["token/adapter_default/vectors"], expected[TOKENS][96:]) < 1e-4
    before = keras.ops.convert_to_numpy(held(model, "default")[TOKENS].vectors)
    model.compile(keras.optimizers.SGD(0.1))
    model.fit(TEXT, labels, verbose=0)
    assert np.all(before != keras.ops.convert_to_numpy(held(model, "default")[TOKENS].vectors))


@pytest.mark.uncompiled
def test_generation_reads_the_prompt():
    """Rows of different length, whose padding lies before the virtual tokens; penalties do not count these."""
    model = bloom()
    adapters.prompt(model, length=4)
    filled(model)
    larger, text = with_tokens(bloom, model)
    greedy, lead = zoo.samplers.Greedy(repetition_penalty=1.5), dict.fromkeys(range(96, 100), -np.inf)
    found = model.generate(TEXT, max_new_tokens=5, sampler=greedy, echo=False)
    expected = larger.generate(text, max_new_tokens=5, sampler=dataclasses.replace(greedy, logit_bias=lead), echo=False)
    assert (found == expected).all()


def test_heads_that_files_of_others_lack_are_saved_too(tmp_path):
    make = lambda: randomise(zoo.RelationClassifier(zoo.BERTBackbone(**SMALL), labels=["a", "b", "c"]))  # noqa: E731
    model, other = make(), make()
    adapters.lora(model)
    name = next(name for name, v in weights(model).items() if name.startswith("head/") and v.trainable)
    weights(model)[name].assign(RNG.normal(size=weights(model)[name].shape))
    adapters.save(model, tmp_path)
    adapters.load(other, tmp_path)
    assert (keras.ops.convert_to_numpy(weights(other)[name]) == keras.ops.convert_to_numpy(weights(model)[name])).all()


@pytest.mark.parametrize("method", ["ia3", "bottleneck", "prompt"])
def test_a_written_adapter_is_read_again(method, tmp_path):
    model, other = classifier(), classifier()
    getattr(adapters, method)(model)
    filled(model)
    weights(model)["head/out/kernel"].assign(RNG.normal(size=(32, 3)))
    expected = run(model, TEXT)
    adapters.save(model, tmp_path, base="somewhere")
    adapters.load(other, tmp_path, name="again")
    assert relative_error(run(other, TEXT), expected) < 1e-5 and adapters.names(other) == ["again"]
    kind = {"ia3": "IA3", "prompt": "PROMPT_TUNING"}.get(method)
    assert read_json(tmp_path / "adapter_config.json").get("peft_type") == kind


def test_what_is_refused(tmp_path):
    model = llama()
    for method in (adapters.ia3, adapters.bottleneck):
        with pytest.raises(ValueError, match="'queri' matches no kernel"):
            method(model, pattern="queri")
    with pytest.raises(ValueError, match="activation must be one of gelu, relu, silu, got 'tanh'"):
        adapters.bottleneck(model, activation="tanh")
    with pytest.raises(ValueError, match="length=32 leaves no room"):
        adapters.prompt(classifier(), length=32)
    adapters.prompt(model)
    with pytest.raises(ValueError, match="give padding_mask in place of segment_ids"):
        model({"token_ids": IDS, "segment_ids": MASK})
    with pytest.raises(ValueError, match="A draft does not guess for a model with a prompt"):
        model.generate(TEXT, draft=llama())
    with pytest.raises(ValueError, match=r"zoo\.adapters\.save"):
        model.save_to_preset(tmp_path / "preset")
    short = classifier()
    adapters.prompt(short, length=24)
    assert short.length_limit == 8
    with pytest.raises(ValueError, match="12 positions and the prompt 24, but the model has 32"):
        short(TEXT)
