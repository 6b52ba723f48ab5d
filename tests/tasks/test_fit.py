"""Downstream tasks on raw text: training helps, shapes and labels hold, models reload, bad input is told."""

import keras
import numpy as np
import pytest

import zoo
from tests.models import parameters, run
from zoo.loading import weights
from zoo.tasks.token_classifier import TokenClassifier

pytestmark = pytest.mark.backends

GOOD = ["a fine film, warm and bright", "what a warm and fine story", "bright, fine and warm", "a warm film"]
BAD = ["a dull film, cold and grey", "what a cold and dull story", "grey, dull and cold", "a cold film"]
TEXTS, LABELS = GOOD + BAD, ["good"] * 4 + ["bad"] * 4
NUMBERS = [int(label == "good") for label in LABELS]
PAIRS = (TEXTS, TEXTS[1:4] + TEXTS[:1] + TEXTS[:4])  # good with good, bad with good
WORDS = [text.replace(",", " ,").split() for text in TEXTS]
MOODS = ("fine", "warm", "bright", "dull", "cold", "grey")
TAGS = [["MOOD" if word in MOODS else "O" for word in text] for text in WORDS]
QUESTIONS = (["what is it?"] * 8, TEXTS)
ANSWERS = [(text.index(word), text.index(word) + 4) for text, word in zip(TEXTS, ["warm"] * 4 + ["cold"] * 4)]
CHOICES = (["it is warm"] * 8, [pair[:: 1 if i % 2 else -1] for i, pair in enumerate(zip(GOOD * 2, BAD * 2))])
SEVERAL = "multi_label_classification"
SHAPE = {"num_layers": 1, "num_heads": 2, "hidden_dim": 32, "intermediate_dim": 32, "max_sequence_length": 48}


@pytest.fixture(scope="module")
def tokenizers():
    return {kind: zoo.Tokenizer.train([*TEXTS, "what is it? it is"], kind=kind, vocabulary_size=300, num_sentinels=0)
            for kind in ("wordpiece", "bpe", "unigram")}  # fmt: skip


def made(tokenizers, task, kind="wordpiece", backbone=zoo.BERTBackbone, config=(), **settings):
    tokenizer = tokenizers[kind]
    keras.utils.set_random_seed(0)
    body = backbone(vocabulary_size=tokenizer.vocabulary_size, dropout=0.0, **SHAPE, **dict(config))
    return task(body, tokenizer, **settings)


def t5_tokens(tokenizers):
    return {"eos_token_id": tokenizers["unigram"].eos_id, "pad_token_id": tokenizers["unigram"].pad_id}


CASES = {  # name -> (how it is made, x, y, shape of the predictions of x)
    "single": (lambda t: made(t, zoo.TextClassifier, labels=["bad", "good"]), TEXTS, LABELS, (8, 2)),
    "decoder": (lambda t: made(t, zoo.TextClassifier, "bpe", zoo.GPTBackbone, num_classes=2), TEXTS, NUMBERS, (8, 2)),
    "encoder_decoder": (lambda t: made(t, zoo.TextClassifier, "unigram", zoo.T5Backbone, t5_tokens(t), num_classes=2),
                        TEXTS, NUMBERS, (8, 2)),
    "several": (lambda t: made(t, zoo.TextClassifier, labels=["film", "warm"], problem_type=SEVERAL), TEXTS,
                [[word for word in ("film", "warm") if word in text] for text in TEXTS], (8, 2)),
    "regression": (lambda t: made(t, zoo.TextClassifier, num_classes=1), PAIRS, [1.0] * 4 + [-1.0] * 4, (8, 1)),
    "tokens": (lambda t: made(t, zoo.TokenClassifier, labels=["O", "MOOD"]), WORDS, TAGS, (8, None, 2)),
    "question": (lambda t: made(t, zoo.QuestionAnswerer), QUESTIONS, ANSWERS, (8, 2, None)),
    "choice": (lambda t: made(t, zoo.MultipleChoice), CHOICES, [1, 0] * 4, (8, 2)),
    "next": (lambda t: made(t, zoo.NextSentence), PAIRS, NUMBERS, (8, 2)),
    "replaced": (lambda t: made(t, zoo.ReplacedTokenDetector, backbone=zoo.ELECTRABackbone), TEXTS, None, (8, None)),
    "embedder": (lambda t: made(t, zoo.TextEmbedder, dense={"units": 8}), PAIRS, [1.0] * 4 + [-1.0] * 4, (8, 2, 8)),
}  # fmt: skip


# The other cases compile what the four are made of.
@pytest.mark.parametrize("name", parameters(CASES, CASES.keys() - {"decoder", "several", "regression", "next"}))
def test_fit_and_reload(name, tokenizers, tmp_path):
    make, x, y, shape = CASES[name]
    model = make(tokenizers)
    model.compile(keras.optimizers.Adam(0.005))
    y = () if y is None else (y,)
    losses = model.fit(x, *y, batch_size=8, epochs=30, verbose=0, shuffle=False).history["loss"]
    assert losses[-1] < 0.75 * losses[0], losses
    found = model.predict(x, batch_size=8, verbose=0)
    assert found.dtype == np.float32 and len(found.shape) == len(shape)
    assert all(wanted in (None, size) for wanted, size in zip(shape, found.shape))

    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(x, batch_size=8, verbose=0), found)
    if name == "single":  # how it was compiled is no matter of the task
        assert again.evaluate(x, *y, batch_size=8, verbose=0, return_dict=True)["loss"] < losses[0]

    model.save_to_preset(tmp_path / "preset")
    again = type(model).from_preset(tmp_path / "preset")
    theirs = {key: value for key, value in again.get_config().items() if key not in ("head", "backbone")}
    assert theirs == {key: model.get_config()[key] for key in theirs}
    assert weights(again).keys() == weights(model).keys()
    assert all(np.array_equal(v.numpy(), weights(model)[key].numpy()) for key, v in weights(again).items())


@pytest.fixture(scope="module")
def classifier(tokenizers):
    return made(tokenizers, zoo.TextClassifier, labels=["bad", "good"])


def test_one_text_and_the_dictionary(classifier):
    ids = classifier.inputs_of(TEXTS)
    np.testing.assert_array_equal(classifier.predict(ids, verbose=0), classifier.predict(TEXTS, verbose=0))
    assert classifier.predict(TEXTS[0], verbose=0).shape == (1, 2)
    [row] = classifier.classify(TEXTS[0])
    assert list(row) == ["bad", "good"] and sum(row.values()) == pytest.approx(1, abs=1e-6)
    first = classifier.evaluate(ids, np.array(NUMBERS), verbose=0, return_dict=True)
    assert first == classifier.evaluate(TEXTS, LABELS, verbose=0, return_dict=True)


def test_validation_data_and_weights_are_prepared_too(tokenizers):
    model = made(tokenizers, zoo.TextClassifier, labels=["bad", "good"])
    weight = np.array([1] * 4 + [0] * 4, "float32")
    done = model.fit(TEXTS, LABELS, sample_weight=weight, validation_data=(TEXTS, LABELS), verbose=0, batch_size=8)
    assert {"val_loss", "val_accuracy"} <= done.history.keys()
    before = model.evaluate(TEXTS[:4], LABELS[:4], verbose=0)
    assert model.evaluate(TEXTS, LABELS, sample_weight=weight, verbose=0) == pytest.approx(before, rel=1e-5)


def test_padding_has_no_part_in_a_tagger_s_loss(tokenizers):
    model = made(tokenizers, zoo.TokenClassifier, num_classes=3)
    x = model.inputs_of(WORDS)
    y = np.random.default_rng(0).integers(0, 3, x["token_ids"].shape)
    wider = {key: np.pad(value, ((0, 0), (0, 5))) for key, value in x.items()}
    expected = model.evaluate(x, y, verbose=0)
    assert model.evaluate(wider, np.pad(y, ((0, 0), (0, 5))), verbose=0) == pytest.approx(expected, rel=1e-5)


def test_a_word_s_label_stands_at_its_first_sub_word(tokenizers):
    for kind, backbone in (("wordpiece", zoo.BERTBackbone), ("bpe", zoo.GPTBackbone)):
        model = made(tokenizers, zoo.TokenClassifier, kind, backbone, labels=["O", "MOOD"])
        x, y, weight = model.prepare([["unbright", ",", "warm"], ["grey"]], [["MOOD", "O", "O"], ["MOOD"]])
        assert weight.sum(axis=1).tolist() == [3, 1] and (y * weight).sum(axis=1).tolist() == [1, 1]
        whole = model.tokenizer.tokenize("unbright")
        start = int(np.flatnonzero(weight[0])[0])
        held = [model.tokenizer.id_to_token(i) for i in x["token_ids"][0, start : start + len(whole)]]
        assert held == whole and weight[0, start + 1 : start + len(whole)].sum() == 0 and y[0, start] == 1
        [[*tags], [tag]] = model.tag([["unbright", ",", "warm"], ["grey"]])
        assert len(tags) == 3 and {*tags, tag} <= {"O", "MOOD"}


def test_an_answer_s_tokens_are_those_of_its_characters(tokenizers):
    model = made(tokenizers, zoo.QuestionAnswerer)
    x, y, _ = model.prepare(QUESTIONS, [*ANSWERS[:6], None, (0, len(TEXTS[7]))])
    for row, (start, end), (first, last) in zip(x["token_ids"], y[:6], ANSWERS[:6]):
        text = TEXTS[[tuple(r) for r in x["token_ids"]].index(tuple(row))][first:last]
        assert model.tokenizer.decode(row[start : end + 1]) == text
    assert y[6].tolist() == [0, 0]
    assert model.tokenizer.decode(x["token_ids"][7, y[7, 0] : y[7, 1] + 1]) == TEXTS[7]


@pytest.mark.uncompiled
def test_half_precision_gives_float32(tokenizers):
    backbone = zoo.BERTBackbone(vocabulary_size=50, dtype="bfloat16", **SHAPE)
    ids = {"token_ids": np.array([[2, 7, 9, 3]], "int32")}
    assert run(zoo.TextClassifier(backbone, num_classes=2), ids).dtype == np.float32
    vector = run(zoo.TextEmbedder(backbone, normalize=True), ids)
    assert vector.dtype == np.float32 and np.sum(vector**2) == pytest.approx(1, abs=1e-5)


def test_a_head_can_be_changed(tokenizers):
    model = made(tokenizers, zoo.TextClassifier, num_classes=2, head={"pool": "mean", "dropout": 0.5})
    again = zoo.TextClassifier.from_config(model.get_config())
    assert (again.spec.pool, again.spec.dropout) == ("mean", 0.5)
    with pytest.raises(ValueError, match="A head has no 'poll'; it has pool,"):
        made(tokenizers, zoo.TextClassifier, num_classes=2, head={"poll": "mean"})


@pytest.mark.parametrize(("x", "y", "message"), [
    (TEXTS, NUMBERS[:7], "^7 labels do not go with 8 texts"),
    (TEXTS, [0, 1, 2, 0, 1, 0, 1, 0], "^The label 2 is outside 0 to 1"),
    (TEXTS, [-1, *NUMBERS[1:]], "^The label -1 is outside 0 to 1"),
    (TEXTS, ["fair", *LABELS[1:]], "^The label 'fair' is none of 'bad', 'good'"),
    (TEXTS, [0.5] * 8, "whole numbers, got float64"),
    (TEXTS, [[0, 1]] * 8, r"Labels have shape \(8, 2\), the inputs need \(8,\)"),
    (TEXTS, None, "TextClassifier needs labels"),
    ((TEXTS, TEXTS[:3]), NUMBERS, "^8 first texts do not go with 3 second texts"),
    ({"token_ids": np.ones((2, 4), "int32")}, np.array([0, 1, 1]), "^3 labels do not go with 2 texts"),
    ({"token_ids": np.ones((1, 4), "int32"), "segment_ids": np.array([[1, 1, 2, 2]])}, np.array([0]), "packs several"),
])  # fmt: skip
def test_bad_labels(classifier, x, y, message):
    for method in (classifier.fit, classifier.evaluate):
        with pytest.raises(ValueError, match=message):
            method(x, y, verbose=0)


@pytest.mark.parametrize(("settings", "message"), [
    ({}, "TextClassifier needs num_classes, or labels"), ({"num_classes": 0}, "positive integer, got 0"),
    ({"num_classes": 2, "labels": ["a", "b", "c"]}, "num_classes=2 does not go with 3 labels"),
    ({"labels": ["a", "a"]}, "labels must be different strings"), ({"num_classes": 2, "problem_type": "x"}, "one of"),
    ({"num_classes": 1, "problem_type": "single_label_classification"}, "One class leaves nothing to tell apart"),
])  # fmt: skip
def test_bad_settings(tokenizers, settings, message):
    with pytest.raises(ValueError, match=message):
        made(tokenizers, zoo.TextClassifier, **settings)


def test_bad_input_of_the_other_tasks(tokenizers):
    tagger = made(tokenizers, zoo.TokenClassifier, labels=["O", "MOOD"])
    for x, y, message in (
        ([["a", "film"]], [["O"]], "^Text 0 has 2 words, but 1 labels"), (WORDS, TAGS[:2], "^2 lists of labels do"),
        ([["a"]], [["X"]], "The label 'X' is none of"), ([["a"]], [[2]], "The label 2 is outside 0 to 1"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            tagger.fit(x, y, verbose=0)
    qa = made(tokenizers, zoo.QuestionAnswerer)
    for answers, message in (([(0, 99)] * 8, r"^Answer 0 is at characters \(0, 99\) of a context with 28"),
                             ([(0, 2)], "^1 answers do not go with 8 contexts")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            qa.fit(QUESTIONS, answers, verbose=0)
    choice = made(tokenizers, zoo.MultipleChoice)
    with pytest.raises(ValueError, match="lists with 1, 2 choices"):
        choice.predict((["a", "b"], [["x"], ["x", "y"]]))
    with pytest.raises(ValueError, match=r"must have shape \(batch, choices, time\), got \(1, 4\)"):
        choice({"token_ids": np.ones((1, 4), "int32")})
    with pytest.raises(ValueError, match=r"^The label 2 is outside 0 to 1"):
        choice.fit(CHOICES, [2] * 8, verbose=0)
    with pytest.raises(ValueError, match="TokenClassifier needs a backbone that is an encoder or decoder"):
        made(tokenizers, TokenClassifier, "unigram", zoo.T5Backbone, {"pad_token_id": 0}, num_classes=2)
    t5 = made(tokenizers, zoo.TextClassifier, "unigram", zoo.T5Backbone, t5_tokens(tokenizers), num_classes=2)
    with pytest.raises(ValueError, match="Row 0 of token_ids does not hold the end of text"):
        t5.predict({"token_ids": np.full((1, 4), 9, "int32")})


@pytest.mark.parametrize(("backbone", "fields"), [
    (zoo.BERTBackbone, {}), (zoo.LlamaBackbone, {"num_key_value_heads": 1}), (zoo.ModernBERTBackbone, {"window": 3}),
    (zoo.T5Backbone, {"eos_token_id": 1, "decoder_start_token_id": 0}), (zoo.DeBERTaV3Backbone, {}),
    (zoo.BLOOMBackbone, {}),
], ids=lambda p: getattr(p, "family", None))  # fmt: skip
def test_texts_of_one_length_after_another(backbone, fields):
    """A program traced for some length does not stand in the way of the next, whatever positions are made of."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("only TensorFlow makes one program for several lengths")
    body = backbone(vocabulary_size=30, **{**SHAPE, **fields})
    model, rng = zoo.TextClassifier(body, num_classes=2), np.random.default_rng(0)
    for t in (7, 12, 9):
        ids = rng.integers(2, 30, (3, t)).astype("int32")
        ids[:, -1] = 1
        x = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
        np.testing.assert_allclose(model.predict(x, verbose=0), run(model, x), atol=1e-5)
