"""Weights of 8 and 4 bits: what they compute, what they weigh, what they cost real text, and what is refused."""

import keras
import numpy as np
import pytest
from keras import ops

import zoo
from tests.models import TINY, randomise, relative_error, run

pytestmark = [
    pytest.mark.backends,
    pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="minutes of XLA"),
]
KINDS = {
    "gpt2": (zoo.CausalLM, zoo.GPTBackbone, {}),
    "llama": (zoo.CausalLM, zoo.LlamaBackbone, {"num_key_value_heads": 2}),
    "t5": (zoo.Seq2SeqLM, zoo.T5Backbone, {"decoder_start_token_id": 0, "eos_token_id": 95}),
}
IDS = np.random.default_rng(0).integers(3, 95, (2, 12)).astype("int32")


def task_of(name):
    task, backbone, fields = KINDS[name]
    return randomise(task(backbone(**TINY, **fields)))


def inputs_of(task):
    extra = {"decoder_token_ids": IDS[:, :5]} if isinstance(task, zoo.Seq2SeqLM) else {}
    return {"token_ids": IDS, **extra}


def rounded(task):
    """The same weights, each matrix rounded to 255 steps of its largest value a row of outputs, in numpy."""
    for v in task.variables:
        kept = v.path.endswith(("head/kernel", "relative_bias/embeddings"))
        if v.path.endswith(("/kernel", "/embeddings")) and not kept:
            axis = 0 if v.path.endswith("kernel") else 1
            x = ops.convert_to_numpy(v.value)
            scale = np.abs(x).max(axis=axis, keepdims=True) / 127
            v.assign(np.round(x / scale) * scale)
    return task


@pytest.mark.uncompiled
@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_int8_computes_with_rounded_weights(name, tmp_path):
    task, expected = task_of(name), run(rounded(task_of(name)), inputs_of(task_of(name)))
    plain = run(task, inputs_of(task))
    task.generate({"token_ids": IDS}, max_new_tokens=4)  # a program whose weights are about to go
    weight = sum(v.value.nbytes for v in task.variables)
    task.quantize("int8")
    assert relative_error(run(task, inputs_of(task)), expected) < 1e-4 < relative_error(plain, expected)
    assert sum(v.value.nbytes for v in task.variables) < (0.6 if name == "t5" else 0.4) * weight
    task.save(tmp_path / "task.keras")
    again = keras.models.load_model(tmp_path / "task.keras")
    np.testing.assert_array_equal(run(again, inputs_of(task)), run(task, inputs_of(task)))
    found = task.generate({"token_ids": IDS}, max_new_tokens=6)
    np.testing.assert_array_equal(again.generate({"token_ids": IDS}, max_new_tokens=6), found)
    rounded_task = rounded(task_of(name))
    np.testing.assert_array_equal(rounded_task.generate({"token_ids": IDS}, max_new_tokens=6), found)


def test_the_default_loss_of_a_tied_head(tmp_path):
    """`evaluate` decodes without ever making logits, from the head's kernel; `score` from the logits."""
    tokenizer = zoo.Tokenizer.train(["the cat sat on the mat"], kind="char")
    lm = zoo.CausalLM(zoo.GPTBackbone(**{**TINY, "vocabulary_size": tokenizer.vocabulary_size}), tokenizer)
    randomise(lm).quantize("int8", filters=["token", "mlp"])
    loss = lm.evaluate("the cat", verbose=0)[0]
    np.testing.assert_allclose(loss, -lm.score("the cat")[0].mean(), rtol=1e-5)
    lm.quantize("int4", filters="attn")
    lm.save(tmp_path / "lm.keras")
    again = keras.models.load_model(tmp_path / "lm.keras")
    np.testing.assert_array_equal(again.score("the cat")[0], lm.score("the cat")[0])


@pytest.mark.uncompiled
def test_perplexity_of_real_text(shared_data):
    """A model of children's stories, on what it writes itself at temperature 1."""
    path, bos = shared_data / "weights" / "stories260K", np.ones((8, 1), "int32")
    lm = zoo.CausalLM.from_preset(path)
    ids = lm.generate({"token_ids": bos}, 128, zoo.samplers.Temperature(), seed=5)

    def perplexity(mode=None):
        model = zoo.CausalLM.from_preset(path)
        if mode:
            model.quantize(mode)
        logits = run(model, {"token_ids": ids[:, :-1]}).astype("float64")
        logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        return np.exp(-np.take_along_axis(logs, ids[:, 1:, None], axis=2).mean())

    plain = perplexity()
    assert 2 < plain < 8
    assert perplexity("int8") / plain < 1.01


@pytest.mark.uncompiled
def test_refusals(tmp_path):
    lm = task_of("llama")
    for arguments, message in (
        ({"mode": "float8"}, "quantize takes mode='int8' or 'int4'"),
        ({"mode": "int8", "filters": "no_such_layer"}, "No layer to quantise"),
        ({"config": keras.quantizers.Int4QuantizationConfig(block_size=32)}, "quantize takes no config"),
    ):
        with pytest.raises(ValueError, match=message):
            lm.quantize(**arguments)
    with pytest.raises(ValueError, match=r"use dtype='float32', then model.quantize\('int8'\)"):
        zoo.LlamaBackbone(**TINY, dtype="int8_from_float32")
    lm.backbone.quantize("int8")
    with pytest.raises(ValueError, match="integers do not train"):
        lm.fit({"token_ids": IDS}, IDS)
    with pytest.raises(ValueError, match="is quantised, which presets are not"):
        lm.save_to_preset(tmp_path / "preset")
    assert not (tmp_path / "preset").exists()
    with pytest.raises(ValueError, match="all of them are quantised already"):
        lm.quantize("int8")
