"""Preferences: log-likelihoods of answers, the loss against its closed form in PyTorch, and that it moves the model."""

import keras
import numpy as np
import pytest

import zoo
from tests.models import randomise, run
from zoo import data
from zoo.loading import weights

pytestmark = [
    pytest.mark.backends,
    pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="not tried on TensorFlow yet"),
]
TEXTS = (["is it so?", "is it not so, then?"] * 4, ["yes, it is"] * 8, ["no", "no, never"] * 4)


@pytest.fixture(scope="module")
def lm():
    tokenizer = zoo.Tokenizer.train([text for part in TEXTS for text in part], kind="bpe", vocabulary_size=280)
    backbone = zoo.LlamaBackbone(vocabulary_size=tokenizer.vocabulary_size, num_layers=1, num_heads=2, hidden_dim=16,
                                 intermediate_dim=32)  # fmt: skip
    return randomise(zoo.PreferenceLM(backbone, tokenizer), scale=0.2)


def test_log_likelihoods_are_those_of_the_answers(lm):
    x, reference, _ = lm.prepare(TEXTS)
    assert reference.shape == (8, 2) and x["answer_mask"].sum(axis=2).min() >= 2
    prompts = [lm.tokenizer.encode(text) for text in TEXTS[0] for _ in TEXTS[1:]]
    answers = [[*lm.tokenizer.encode(text, add_special_tokens=False), lm.tokenizer.eos_id]
               for both in zip(*TEXTS[1:]) for text in both]  # fmt: skip
    rows = [[*prompt, *answer] for prompt, answer in zip(prompts, answers)]
    whole = np.array([row + [0] * (max(map(len, rows)) - len(row)) for row in rows], "int32")
    logits = run(lm, {"token_ids": whole}).astype("float64")
    logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    expected = [logs[i, np.arange(len(prompt) - 1, len(row) - 1), answer].sum()
                for i, (prompt, answer, row) in enumerate(zip(prompts, answers, rows))]  # fmt: skip
    np.testing.assert_allclose(reference.ravel(), expected, atol=1e-4)


def test_the_loss_is_that_of_the_paper():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    policy, reference = (rng.normal(size=(6, 2)).astype("float32") * 9 for _ in range(2))
    p, r = (torch.tensor(values, dtype=torch.float64) for values in (policy, reference))
    margin = (p[:, 0] - r[:, 0]) - (p[:, 1] - r[:, 1])
    expected = -torch.nn.functional.logsigmoid(0.3 * margin).mean()
    found = zoo.PreferenceLoss(0.3)(keras.ops.convert_to_tensor(reference), keras.ops.convert_to_tensor(policy))
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    with pytest.raises(ValueError, match="beta must be above 0"):
        zoo.PreferenceLoss(0)


def test_tuning_prefers_and_presets_are_those_of_a_causal_lm(lm, tmp_path):
    before = {name: keras.ops.convert_to_numpy(v.value) for name, v in weights(lm).items()}
    lm.compile(keras.optimizers.Adam(0.003))
    x, y, _ = lm.prepare(TEXTS)
    first = lm.evaluate(x, y, verbose=0, return_dict=True)
    assert first["loss"] == pytest.approx(np.log(2), abs=1e-5) and first["accuracy"] < 0.6
    history = lm.fit(x, y, batch_size=8, epochs=8, verbose=0).history
    assert history["loss"][-1] < 0.9 * np.log(2) and history["accuracy"][-1] == 1
    assert any(not np.array_equal(before[name], keras.ops.convert_to_numpy(v.value)) for name, v in weights(lm).items())
    lm.save_to_preset(tmp_path)
    text = zoo.CausalLM.from_preset(tmp_path).generate("is it so?", max_new_tokens=3)
    assert text == zoo.PreferenceLM.from_preset(tmp_path).generate("is it so?", max_new_tokens=3)


def test_an_answer_that_is_cut_off_is_refused(lm):
    with pytest.raises(ValueError, match=r"Example 0 has no answer within max_length=3 tokens, and so have 8 of 8"):
        data.preferences(lm.tokenizer, *TEXTS, max_length=3)
    with pytest.raises(ValueError, match="There are 8, 8, 1 prompts, better and worse answers"):
        lm.prepare((*TEXTS[:2], ["no"]))
