"""A batch in slices is the same update as the batch at once, with the schedule in updates."""

import keras
import numpy as np
import pytest

import zoo
from tests.models import TINY, parameters, randomise
from zoo import training
from zoo.loading import weights

pytestmark = pytest.mark.backends
IDS = np.random.default_rng(2).integers(1, 96, (18, 10)).astype("int32")
# Slices of very different numbers of labels, one of none at all.
COUNTED = (np.random.default_rng(3).random((18, 10)) < (np.arange(18) % 3 / 2)[:, None]).astype("float32")


def batch(name):
    x, y, w = {"token_ids": IDS}, np.roll(IDS, -1, axis=1), COUNTED
    if name == "T5Backbone":
        x["decoder_token_ids"] = IDS[:, ::-1].copy()
    if name == "BERTBackbone":
        x["mask_positions"], y, w = np.tile(np.array([[1, 4, 5]], "int32"), (18, 1)), IDS[:, [1, 4, 5]], w[:, :3]
    return x, y, w


def run(name, accumulate, loss="auto", dropout=0.0):
    """History, weights and draws from the seeds after three updates of six rows."""
    rates = dict.fromkeys(("dropout", "attention_dropout", "activation_dropout", "final_dropout"), dropout)
    task = {"BERTBackbone": "MaskedLM", "T5Backbone": "Seq2SeqLM"}.get(name, "CausalLM")
    model = randomise(getattr(zoo, task)(getattr(zoo, name)(**TINY, **rates)))
    schedule = training.WarmupSchedule(0.1, 3, 1, "linear")
    model.compile(keras.optimizers.SGD(schedule, momentum=0.9, name="sgd"), loss, accumulate=accumulate)
    x, y, w = batch(name)
    history = model.fit(x, y, sample_weight=w, batch_size=6, shuffle=False, verbose=0).history
    assert int(keras.ops.convert_to_numpy(model.optimizer.iterations.value)) == 3
    draws = [int(keras.ops.convert_to_numpy(v.value)[1]) for v in model.variables if v.path.endswith("_state")]
    return history, {k: keras.ops.convert_to_numpy(v.value) for k, v in weights(model).items()}, draws


@pytest.mark.parametrize("case", parameters(
    [("GPTBackbone", "auto"), ("BERTBackbone", "auto"), ("T5Backbone", "auto"), ("GPTBackbone", "own")],
    [("BERTBackbone", "auto"), ("GPTBackbone", "own")],
), ids="-".join)  # fmt: skip
def test_equals_the_whole_batch(case):
    name, loss = case
    if loss == "own":
        loss = keras.losses.SparseCategoricalCrossentropy(True, reduction="mean_with_sample_weight")
    (h1, w1, _), (h3, w3, _) = run(name, 1, loss), run(name, 3, loss)
    for key in ("loss", "accuracy"):
        np.testing.assert_allclose(h3[key], h1[key], rtol=1e-6)
    for key in w1:
        np.testing.assert_allclose(w3[key], w1[key], rtol=0, atol=1e-6, err_msg=key)


def test_each_slice_draws_its_own_dropout():
    once, thrice = run("GPTBackbone", 1, dropout=0.5)[2], run("GPTBackbone", 3, dropout=0.5)[2]
    assert all(once) and thrice == [3 * draws for draws in once]


def test_survives_saving_and_refuses(tmp_path):
    model = zoo.CausalLM(zoo.GPTBackbone(**TINY))
    model.compile("sgd", accumulate=4)
    model.save(tmp_path / "m.keras")
    assert keras.models.load_model(tmp_path / "m.keras").slices == 4
    with pytest.raises(ValueError, match="accumulate=4 does not divide a batch of 6 rows"):
        model.fit({"token_ids": IDS}, batch_size=6, verbose=0)
    with pytest.raises(ValueError, match="accumulate=0"):
        model.compile("sgd", accumulate=0)
