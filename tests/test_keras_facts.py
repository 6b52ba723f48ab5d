"""The traps of Keras 3.15 that the library steps around; each test fails without the remedy."""

import keras
import numpy as np
import pytest
from keras import ops

import zoo
from tests.models import TINY, gradients, randomise, relative_error, run
from zoo import backend
from zoo.loading import weights
from zoo.nn import attention

pytestmark = pytest.mark.backends


def gpt(**fields):
    plain = {"dropout": 0.0, "attention_dropout": 0.0}
    return zoo.CausalLM(zoo.GPTBackbone(**{**TINY, **plain, **fields}))


def rows(count=4, length=8, seed=0):
    return np.random.default_rng(seed).integers(1, 96, (count, length)).astype("int32")


def test_adam_moves_a_repeated_token_by_one_step():
    """Adam's first step is the learning rate, however often a token occurs: TensorFlow must sum its rows."""
    lm = randomise(gpt(tie_embeddings=False))
    lm.compile(keras.optimizers.Adam(1e-3, epsilon=1e-12, name="adam"))
    before = ops.convert_to_numpy(lm.backbone.token.embeddings)
    ids = np.array([[5, 5, 5, 7, 5, 9, 5, 5]] * 2, "int32")
    lm.fit({"token_ids": ids}, batch_size=2, verbose=0)
    moved = np.abs(ops.convert_to_numpy(lm.backbone.token.embeddings) - before)
    np.testing.assert_allclose(moved[[5, 7, 9]], 1e-3, rtol=0.02)
    assert not moved[[1, 2, 3]].any()


def test_the_loss_is_a_mean_over_valid_labels_alone():
    lm, ids = randomise(gpt()), rows()
    seen = np.ones_like(ids)
    seen[:, 4:] = 0
    found = lm.evaluate({"token_ids": ids, "padding_mask": seen}, verbose=0)[0]
    logits = run(lm, {"token_ids": ids[:, :4]})[:, :3].astype("float64")
    logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -np.take_along_axis(logp, ids[:, 1:4, None], -1).mean()
    assert abs(found - expected) < 1e-5


def test_a_saved_model_reloads_with_its_weights(tmp_path):
    lm, x = randomise(gpt()), {"token_ids": rows()}
    lm.fit(x, verbose=0)
    expected = run(lm, x)
    lm.save(tmp_path / "lm.keras")
    lm.save_weights(tmp_path / "lm.weights.h5")
    reloaded = keras.models.load_model(tmp_path / "lm.keras")
    np.testing.assert_array_equal(run(reloaded, x), expected)
    assert int(reloaded.optimizer.iterations.numpy() if hasattr(reloaded.optimizer.iterations, "numpy")
               else reloaded.optimizer.iterations) == 1  # fmt: skip
    fresh = zoo.CausalLM.from_config(lm.get_config())
    assert relative_error(run(fresh, x), expected) > 0.1
    with pytest.warns(UserWarning, match="optimizer"):  # a fresh optimizer has no state yet
        fresh.load_weights(tmp_path / "lm.weights.h5")
    np.testing.assert_array_equal(run(fresh, x), expected)


@pytest.mark.parametrize("name", ["GPTBackbone", "LlamaBackbone", "BERTBackbone", "RoBERTaBackbone", "T5Backbone",
                                  "BARTBackbone"])  # fmt: skip
def test_a_config_survives_and_paths_are_the_same_in_every_instance(name):
    first = getattr(zoo, name)(**TINY)
    second = type(first).from_config(first.get_config())
    assert second.config == first.config and second.name == first.name
    paths = [v.path for v in first.variables]
    assert paths == [v.path for v in second.variables] and len(set(paths)) == len(paths)


def test_text_rows_of_one_document_need_no_positions():
    """Segments alone restart the positions, so that a packed row cannot be wrong in silence."""
    lm, ids = randomise(gpt()), rows(1)
    segments = np.array([[1, 1, 1, 2, 2, 2, 2, 0]])
    positions = np.array([[0, 1, 2, 0, 1, 2, 3, 0]])
    a = run(lm, {"token_ids": ids, "segment_ids": segments})
    b = run(lm, {"token_ids": ids, "segment_ids": segments, "positions": positions})
    np.testing.assert_array_equal(a, b)
    assert relative_error(run(lm, {"token_ids": ids[:, 3:7]}), a[:, 3:7]) < 1e-5


@pytest.mark.parametrize("kind", ["decoder", *(pytest.param(kind, marks=pytest.mark.uncompiled)
                                              for kind in ("encoder", "encoder_decoder"))])  # fmt: skip
def test_gradients_of_a_packed_row_are_the_sum_of_its_documents(kind):
    if kind == "decoder":
        model = gpt()
    elif kind == "encoder":
        model = zoo.MaskedLM(zoo.BERTBackbone(**TINY, dropout=0.0))
    else:
        model = zoo.Seq2SeqLM(zoo.T5Backbone(**TINY, dropout=0.0, decoder_start_token_id=0))
    randomise(model)
    ids, labels, cut = rows(1, 10), rows(1, 10, seed=1), 4
    segments = np.array([[1] * cut + [2] * (10 - cut)], "int32")

    def part(a, b):
        x = {"token_ids": ids[:, a:b], "segment_ids": segments[:, a:b]}
        if kind == "encoder_decoder":
            x |= {"decoder_token_ids": labels[:, a:b], "decoder_segment_ids": segments[:, a:b]}
        return gradients(model, x, labels[:, a:b], np.ones((1, b - a)))

    whole, first, second = part(0, 10), part(0, cut), part(cut, 10)
    scale = max(np.abs(g).max() for g in whole.values())  # some, as those of key biases, are zero but for rounding
    for name in whole:
        np.testing.assert_allclose(whole[name], first[name] + second[name], rtol=1e-4, atol=1e-6 * scale, err_msg=name)


@pytest.mark.parametrize("name", ["GPTBackbone", "T5Backbone"])
def test_remat_and_scans_change_no_gradient_even_with_dropout(name):
    """The recomputed pass, and a loop over stacked blocks, draw the same masks, and nothing leaks out of the trace."""

    def grads(**how):
        keras.utils.set_random_seed(3)
        backbone = getattr(zoo, name)(**TINY, dropout=0.3, attention_dropout=0.3, decoder_start_token_id=0, **how)
        model = (zoo.CausalLM if name == "GPTBackbone" else zoo.Seq2SeqLM)(backbone)
        randomise(model)
        x = {"token_ids": rows(), "segment_ids": np.ones((4, 8), "int32")}
        if name == "T5Backbone":
            x["decoder_token_ids"] = rows(seed=2)
        return gradients(model, x, rows(seed=1), np.ones((4, 8)), training=True)

    plain, ways = grads(), [{"remat": True}]
    if keras.backend.backend() == "jax" and name == "GPTBackbone":  # both at once: tests/test_sharding.py
        ways.append({"scan_layers": True})
    scale = max(np.abs(g).max() for g in plain.values())
    for way in ways:
        again = grads(**way)
        for key in plain:
            np.testing.assert_allclose(again[key], plain[key], rtol=1e-4, atol=1e-6 * scale, err_msg=f"{way} {key}")


def test_dropout_differs_by_step_and_its_state_is_in_the_state_tree():
    lm, x = gpt(dropout=0.5), {"token_ids": rows()}
    a, b = (ops.convert_to_numpy(lm(x, training=True)) for _ in range(2))
    assert np.abs(a - b).max() > 1e-3
    names = [v.path for v in lm.variables if v.path.endswith("seed_generator_state")]
    assert len(set(names)) == len(names) == TINY["num_layers"] + 1
    assert "seeds" in str(lm.get_state_tree(value_format="numpy_array")["non_trainable_variables"])


def test_training_with_remat_and_dropout_runs_in_fit():
    lm = gpt(dropout=0.1, remat=True)
    lm.compile(keras.optimizers.Adam(1e-2, name="adam"))
    ids = np.tile(rows(1), (8, 1))
    losses = lm.fit({"token_ids": ids}, batch_size=4, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0] - 0.3


def test_half_precision_weights_are_not_trained_in_silence():
    lm = zoo.CausalLM(zoo.GPTBackbone(**TINY, dtype="bfloat16"))
    assert lm({"token_ids": rows()}).shape == (4, 8, 96)
    with pytest.raises(ValueError, match="mixed_bfloat16"):
        lm.fit({"token_ids": rows()}, verbose=0)


def test_mixed_precision_keeps_float32_where_it_counts():
    lm = zoo.CausalLM(zoo.LlamaBackbone(**TINY, dtype="mixed_bfloat16"))
    assert {keras.backend.standardize_dtype(v.dtype) for v in weights(lm).values()} == {"float32"}
    assert keras.backend.standardize_dtype(lm({"token_ids": rows()}).dtype) == "float32"
    hidden = lm.backbone({"token_ids": rows()})
    assert keras.backend.standardize_dtype(hidden.dtype) == "bfloat16"


def reference(q, k, v, scale, mask, bias, causal, softcap):
    """Attention in float64 numpy, heads repeated, one row at a time."""
    q, k, v = (np.asarray(x, "float64") for x in (q, k, v))
    groups = q.shape[2] // k.shape[2]
    k, v = np.repeat(k, groups, axis=2), np.repeat(v, groups, axis=2)
    scores = np.einsum("btnh,bsnh->bnts", q, k) * scale
    if softcap:
        scores = np.tanh(scores / softcap) * softcap
    scores = scores + (0 if bias is None else bias)
    seen = np.ones(scores.shape, bool) if mask is None else np.broadcast_to(mask, scores.shape).copy()
    if causal:
        seen &= np.tril(np.ones(scores.shape[-2:], bool))
    scores = np.where(seen, scores, -np.inf)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bnts,bsnh->btnh", p / p.sum(-1, keepdims=True), v)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("heads", [4, 2, 1])
@pytest.mark.parametrize("case", ["plain", "causal", "keys", "square", "keys causal", "bias", "bias square causal",
                                  "softcap causal", "long causal", "long keys causal",
                                  "long bias square softcap causal"])  # fmt: skip
def test_attention_equals_numpy(monkeypatch, fused, heads, case):
    """Every combination that some backend's fused operation lacks, on the fused and on the plain path."""
    if fused and keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow's operation is plain einsums, and never used")
    monkeypatch.setattr(backend, "fused_attention_pays", lambda: fused)
    monkeypatch.setattr(attention, "LONG", 4 if "long" in case else 256)
    rng = np.random.default_rng(0)
    q = rng.normal(size=(2, 6, 4, 8)).astype("float32")
    k, v = (rng.normal(size=(2, 6, heads, 8)).astype("float32") for _ in range(2))
    mask = None
    if "keys" in case:
        mask = np.array([[1, 1, 1, 1, 0, 0], [1] * 6], bool)[:, None, None]
    if "square" in case:
        segment = np.array([[1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 1, 2]])
        mask = (segment[:, :, None] == segment[:, None])[:, None]
    bias = rng.normal(size=(1, 4, 6, 6)).astype("float32") if "bias" in case else None
    causal, softcap = "causal" in case, 2.0 if "softcap" in case else None
    tensor = lambda x: None if x is None else ops.convert_to_tensor(x)  # noqa: E731
    found = attention.attend(tensor(q), tensor(k), tensor(v), 0.3, tensor(mask), tensor(bias), causal, softcap)
    expected = reference(q, k, v, 0.3, mask, bias, causal, softcap)
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-4, atol=1e-5)


def test_a_row_that_sees_nothing_stays_finite():
    lm, ids = randomise(gpt()), rows()
    x = {"token_ids": ids, "segment_ids": np.zeros_like(ids)}
    assert np.isfinite(run(lm, x)).all()
    grads = gradients(lm, x, ids, np.zeros(ids.shape))
    assert all(np.isfinite(g).all() for g in grads.values())
