"""The loss without logits against float64 numpy, finite differences, and the same model trained on its logits."""

import keras
import numpy as np
import pytest
from keras import ops

import zoo
from tests.models import TINY, parameters, randomise
from zoo import backend, losses
from zoo.loading import weights

pytestmark = pytest.mark.backends
OPTIONS = [{}, {"bias": True}, {"softcap": 3.0}, {"z_loss": 0.01}, {"label_smoothing": 0.1},
           {"bias": True, "softcap": 2.0, "z_loss": 0.1, "label_smoothing": 0.2}]  # fmt: skip


def arrays(b=3, t=7, d=5, v=11):
    rng = np.random.default_rng(0)
    hidden, kernel, bias = rng.normal(size=(b, t, d)), rng.normal(size=(d, v)), rng.normal(size=(v,))
    labels, weight = rng.integers(0, v, (b, t)), (rng.random((b, t)) > 0.3) * rng.random((b, t))
    return [x.astype("float32") for x in (hidden, kernel, bias)], labels.astype("int32"), weight.astype("float32")


def reference(hidden, kernel, bias, labels, weight, softcap=None, z_loss=0.0, label_smoothing=0.0):
    """The definition, in float64."""
    logits = np.einsum("btd,dv->btv", hidden, kernel) + (0 if bias is None else bias)
    if softcap:
        logits = np.tanh(logits / softcap) * softcap
    log_z = np.log(np.exp(logits).sum(-1))
    target = np.take_along_axis(logits, labels[..., None], -1)[..., 0]
    each = log_z - (1 - label_smoothing) * target - label_smoothing * logits.mean(-1) + z_loss * log_z**2
    return (each * weight).sum()


def value_and_gradients(fn, values):
    name = keras.backend.backend()
    if name == "jax":
        import jax

        value, grads = jax.value_and_grad(fn, argnums=tuple(range(len(values))))(*values)
    elif name == "tensorflow":
        import tensorflow as tf

        values = [tf.convert_to_tensor(v) for v in values]
        with tf.GradientTape() as tape:
            tape.watch(values)
            value = fn(*values)
        grads = tape.gradient(value, values)
    else:
        values = [ops.convert_to_tensor(v).requires_grad_() for v in values]
        value = fn(*values)
        value.backward()
        value, grads = value.detach(), [v.grad for v in values]
    return float(value), [ops.convert_to_numpy(g) for g in grads]


@pytest.mark.parametrize("tokens", [3, 6, 1000])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_value_and_gradients(monkeypatch, options, tokens):
    """One slice, several, and a last one that is not full; gradients against central differences of the definition."""
    monkeypatch.setattr(losses, "CHUNK_TOKENS", tokens)
    monkeypatch.setattr(backend, "logits_at_once", lambda: 1)
    options = dict(options)
    (hidden, kernel, bias), labels, weight = arrays()
    values = [hidden, kernel] + ([bias] if options.pop("bias", False) else [])

    def ours(hidden, kernel, bias=None):
        y, w = ops.convert_to_tensor(labels), ops.convert_to_tensor(weight)
        return losses.chunked_cross_entropy(hidden, kernel, y, w, bias, **options)[0]

    value, grads = value_and_gradients(ours, values)
    exact = lambda *v: reference(v[0], v[1], v[2] if len(v) > 2 else None, labels, weight, **options)  # noqa: E731
    values = [v.astype("float64") for v in values]
    assert abs(value - exact(*values)) < 1e-5 * abs(exact(*values))
    rng, step = np.random.default_rng(1), 1e-5
    for i, grad in enumerate(grads):
        direction = rng.normal(size=grad.shape)
        ahead, behind = ([v + s * step * direction if i == j else v for j, v in enumerate(values)] for s in (1, -1))
        expected = (exact(*ahead) - exact(*behind)) / (2 * step)
        assert abs((grad * direction).sum() - expected) < 1e-4 * max(1.0, abs(expected))


def test_hits_are_the_weight_of_right_predictions():
    (hidden, kernel, _), labels, weight = arrays()
    right = (hidden @ kernel).argmax(-1) == labels
    _, hits = losses.chunked_cross_entropy(*map(ops.convert_to_tensor, (hidden, kernel, labels, weight)))
    assert abs(float(hits) - (right * weight).sum()) < 1e-5


@pytest.mark.parametrize("name", parameters(
    ["GPTBackbone", "LlamaBackbone", "BERTBackbone", "T5Backbone", "BARTBackbone"], ["LlamaBackbone", "BERTBackbone"]
))  # fmt: skip
def test_training_is_the_same_with_and_without_logits(name):
    """Same loss, same accuracy, same weights after three steps as the plain loss on logits; tied, untied and biased.

    What is evaluated is what the predictions are worth.
    """
    off = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "final_dropout": 0.0}
    ids = np.random.default_rng(2).integers(1, 96, (6, 10)).astype("int32")
    x, y, w = {"token_ids": ids}, np.roll(ids, -1, axis=1), (ids % 3 > 0).astype("float32")
    if name in ("T5Backbone", "BARTBackbone"):
        x["decoder_token_ids"] = ids[:, ::-1].copy()
    if name == "BERTBackbone":
        x["mask_positions"], y, w = np.tile(np.array([[1, 4, 5]], "int32"), (6, 1)), ids[:, [1, 4, 5]], w[:, :3]
    task = {"BERTBackbone": "MaskedLM", "T5Backbone": "Seq2SeqLM", "BARTBackbone": "Seq2SeqLM"}.get(name, "CausalLM")
    found = []
    for loss in ("auto", keras.losses.SparseCategoricalCrossentropy(True, reduction="mean_with_sample_weight")):
        model = randomise(getattr(zoo, task)(getattr(zoo, name)(**TINY, **off)))
        model.compile(keras.optimizers.SGD(0.1, name="sgd"), loss)
        history = model.fit(x, y, sample_weight=w, batch_size=2, shuffle=False, verbose=0).history
        found.append((history, {k: ops.convert_to_numpy(v.value) for k, v in weights(model).items()}))
        if loss == "auto":
            scores = model.evaluate(x, y, sample_weight=w, verbose=0, return_dict=True)
            logits = model.predict(x, verbose=0)
    (h1, w1), (h2, w2) = found
    for key in ("loss", "accuracy"):
        np.testing.assert_allclose(h1[key], h2[key], rtol=1e-5)
    for key in w1:
        np.testing.assert_allclose(w1[key], w2[key], rtol=1e-4, atol=1e-6, err_msg=key)
    loss = reference(logits, np.eye(96), None, y, w) / w.sum()
    np.testing.assert_allclose(scores["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(scores["accuracy"], ((logits.argmax(-1) == y) * w).sum() / w.sum(), rtol=1e-5)


def test_the_default_loss_survives_a_reload(tmp_path):
    model = zoo.CausalLM(zoo.GPTBackbone(**TINY))
    model.compile("sgd", z_loss=0.01)
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert again._hides_logits and again._loss_options == {"z_loss": 0.01, "label_smoothing": 0.0}


def test_lengths_that_are_not_known_when_a_step_is_traced():
    """Rows of another length each time, as padded texts are: the loss stays the plain one."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("only TensorFlow makes one program for several lengths")
    model = randomise(zoo.CausalLM(zoo.LlamaBackbone(**TINY)))
    model.compile(keras.optimizers.SGD(0.0))
    plain = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for t in (5, 9, 7):
        ids = np.random.default_rng(t).integers(1, TINY["vocabulary_size"], (3, t)).astype("int32")
        labels = np.roll(ids, -1, axis=1)
        expected = float(ops.convert_to_numpy(plain(labels, model({"token_ids": ids}))))
        found = model.fit({"token_ids": ids}, labels, batch_size=3, verbose=0).history["loss"][0]
        assert abs(found - expected) < 1e-5 * expected
