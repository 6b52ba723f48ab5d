"""Bad input: one clear sentence that names the value and the remedy."""

import numpy as np
import pytest

import zoo
from tests.models import TINY


@pytest.fixture(scope="module")
def lm():
    return zoo.CausalLM(zoo.GPTBackbone(**TINY))


@pytest.mark.parametrize(("fields", "message"), [
    ({"hidden_dim": 30}, r"hidden_dim=30 is not divisible by num_heads=4: choose 32, or give head_dim"),
    ({"num_layers": 0}, "num_layers must be a positive integer, got 0"),
    ({"num_heads": 2.0}, "num_heads must be a positive integer, got 2.0"),
    ({"dropout": 1.5}, r"dropout must be in \[0, 1\), got 1.5"),
    ({"activation": "swoosh"}, "activation must be one of .*gelu.*, got 'swoosh'"),
    ({"num_key_value_heads": 3}, "num_heads=4 is not divisible by num_key_value_heads=3"),
    ({"hidden_size": 32}, "no field 'hidden_size'; did you mean"),
    ({"num_decoder_layers": 2}, "needs architecture='encoder_decoder'"),
])  # fmt: skip
def test_config(fields, message):
    with pytest.raises(ValueError, match=message):
        zoo.GPTBackbone(**{**TINY, **fields})


def test_a_missing_size_is_named():
    with pytest.raises(ValueError, match="Config needs hidden_dim, intermediate_dim"):
        zoo.GPTBackbone(vocabulary_size=10, num_layers=1, num_heads=1)


@pytest.mark.parametrize(("inputs", "message"), [
    (np.ones((1, 4), "int32"), "takes a dictionary"),
    ({"ids": np.ones((1, 4), "int32")}, "Unknown input 'ids'; a model takes token_ids"),
    ({"padding_mask": np.ones((1, 4), "int32")}, "'token_ids' is missing"),
    ({"token_ids": np.ones(4, "int32")}, r"shape \(batch, time\), got \(4,\)"),
    ({"token_ids": np.full((1, 4), 96)}, "token_ids holds 96, but the vocabulary has ids 0 to 95"),
    ({"token_ids": np.full((1, 4), -1)}, "token_ids holds -1"),
    ({"token_ids": np.ones((1, 4))}, "must hold integers, got float64"),
    ({"token_ids": np.ones((1, 33), "int32")}, "33 positions, but the model has 32: truncate"),
    ({"token_ids": np.ones((1, 4), "int32"), "segment_ids": np.ones((1, 3), "int32")}, r"segment_ids has shape \(1, 3"),
])  # fmt: skip
def test_batch(lm, inputs, message):
    with pytest.raises(ValueError, match=message):
        lm(inputs)


@pytest.mark.backends
def test_labels_of_the_wrong_shape(lm):
    x = {"token_ids": np.ones((2, 4), "int32")}
    with pytest.raises(ValueError, match=r"Labels have shape \(2, 3\), but CausalLM predicts \(2, 4\)"):
        lm.fit(x, np.ones((2, 3), "int32"), verbose=0)
    with pytest.raises(ValueError, match="Labels run from 1 to 96, the vocabulary from 0 to 95"):
        lm.fit(x, np.array([[1, 2, 3, 96]] * 2), verbose=0)


def test_text_without_a_tokenizer(lm):
    with pytest.raises(ValueError, match="CausalLM has no tokenizer"):
        lm.fit(["some text"], verbose=0)
    with pytest.raises(ValueError, match="CausalLM has no tokenizer"):
        lm.generate("some text")


def test_a_backbone_of_the_wrong_shape():
    with pytest.raises(ValueError, match="MaskedLM needs a backbone that is an encoder; GPTBackbone is an decoder"):
        zoo.MaskedLM(zoo.GPTBackbone(**TINY))


def test_a_preset_of_another_family(tmp_path):
    zoo.GPTBackbone(**TINY).save_to_preset(tmp_path)
    with pytest.raises(ValueError, match="is a gpt2 model: use GPTBackbone"):
        zoo.BERTBackbone.from_preset(tmp_path)
    with pytest.raises(ValueError, match="No preset 'nowhere'"):
        zoo.Backbone.from_preset("nowhere")


@pytest.mark.parametrize(("make", "message"), [
    (lambda: zoo.samplers.Temperature(-1), "temperature must be at least 0, got -1"),
    (lambda: zoo.samplers.TopK(0), "k must be an integer of at least 1, got 0"),
    (lambda: zoo.samplers.TopP(1.5), r"p must be in \(0, 1\], got 1.5"),
])  # fmt: skip
def test_samplers(make, message):
    with pytest.raises(ValueError, match=message):
        make()
