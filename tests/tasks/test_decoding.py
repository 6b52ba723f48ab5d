"""What tasks make of their logits: answers of windows, entities of tags, choices; and the losses of embedders."""

import keras
import numpy as np
import pytest

import zoo
from tests.tasks.test_fit import made, tokenizers  # noqa: F401
from zoo.data import Batches

QUESTIONS = ["what is it?", "what is it?"]
LONG = " ".join(["a dull film, cold and grey"] * 12)
CONTEXTS = [LONG + ", what a warm and fine story", "a warm film"]
SPAN = (len(LONG) + 7, len(CONTEXTS[0]))


@pytest.fixture
def qa(tokenizers):  # noqa: F811
    return made(tokenizers, zoo.QuestionAnswerer, stride=10)


def logits_for(encodings, spans):
    """Logits (windows, 2, t) that are 9 at given (first, last) tokens of windows, 3 at token 0 and else 0."""
    logits = np.zeros((len(encodings), 2, max(len(e.ids) for e in encodings)), "float32")
    logits[:, :, 0] = 3
    for row, (first, last) in spans.items():
        logits[row, 0, first] = logits[row, 1, last] = 9
    return logits


def test_windows_are_those_of_transformers(qa, tokenizers, tmp_path):  # noqa: F811
    transformers = pytest.importorskip("transformers")
    tokenizers["wordpiece"].save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)(
        QUESTIONS, CONTEXTS, max_length=48, stride=10, truncation="only_second", return_overflowing_tokens=True,
        return_offsets_mapping=True, padding="longest", return_token_type_ids=True)  # fmt: skip
    x, encodings, owners = qa.windows(QUESTIONS, CONTEXTS)
    assert owners == theirs["overflow_to_sample_mapping"] and owners.count(0) > 2
    assert x["token_ids"].tolist() == theirs["input_ids"] and x["padding_mask"].tolist() == theirs["attention_mask"]
    assert x["token_type_ids"].tolist() == theirs["token_type_ids"]
    spans = [[tuple(place) for place in row[: len(e.ids)]] for row, e in zip(theirs["offset_mapping"], encodings)]
    assert spans == [e.offsets for e in encodings]


def test_an_answer_is_found_in_the_window_that_holds_it(qa):
    _, y, _ = qa.prepare((QUESTIONS, CONTEXTS), [SPAN, None])
    held = np.flatnonzero(y[:, 0])
    assert len(held) >= 1 and y[-1].tolist() == [0, 0]
    _, encodings, owners = qa.windows(QUESTIONS, CONTEXTS)
    logits = logits_for(encodings, {row: y[row] for row in held})
    long, short = qa.decode(CONTEXTS, logits, encodings, owners, no_answer=True)
    assert long == {"answer": CONTEXTS[0][slice(*SPAN)], "start": SPAN[0], "end": SPAN[1], "score": 18.0,
                    "no_answer_score": 6.0}  # fmt: skip
    assert short["answer"] == "" and short["score"] == short["no_answer_score"] == 6
    assert qa.decode(CONTEXTS, logits, encodings, owners)[1]["answer"] != ""
    assert qa.decode(CONTEXTS, logits, encodings, owners, no_answer=True, threshold=7)[1]["answer"] != ""


def test_n_best_are_those_of_all_pairs(qa):
    """Against the loop over all pairs of places; no answer is longer than asked for, nor ends before it begins."""
    _, encodings, owners = qa.windows(QUESTIONS, CONTEXTS)
    logits = np.random.default_rng(0).normal(size=(len(encodings), 2, 48))
    found = qa.decode(CONTEXTS, logits, encodings, owners, top_k=7, longest=4)[0]
    scores = {}
    for (start, end), e, owner in zip(logits, encodings, owners):
        places = [i for i, part in enumerate(e.sequence_ids) if part == 1] if owner == 0 else []
        for i in places:
            for j in range(i, min(i + 4, places[-1] + 1)):
                key = e.offsets[i][0], e.offsets[j][1]
                scores[key] = max(start[i] + end[j], scores.get(key, -99))
    best = sorted(scores, key=scores.get, reverse=True)[:7]
    assert [(one["start"], one["end"]) for one in found] == best
    assert [one["score"] for one in found] == pytest.approx([scores[key] for key in best])


@pytest.mark.uncompiled
def test_answers_of_a_trained_model(tokenizers):  # noqa: F811
    model = made(tokenizers, zoo.QuestionAnswerer, stride=10)
    x, y, _ = model.prepare((QUESTIONS, CONTEXTS), [SPAN, (2, 6)])
    model.compile(keras.optimizers.Adam(0.005))
    model.fit(x, y, batch_size=8, epochs=60, verbose=0)
    assert model.answer(QUESTIONS[0], CONTEXTS[0])["answer"] == CONTEXTS[0][slice(*SPAN)]
    assert [one["answer"] for one in model.answer(QUESTIONS, CONTEXTS)][1] == "warm"


def test_a_question_without_room_is_refused(qa):
    with pytest.raises(ValueError, match="max_length=48 leaves 0 tokens of the second text"):
        qa.windows([LONG], ["a film"])


def test_entities(tokenizers):  # noqa: F811
    tagger = made(tokenizers, zoo.TokenClassifier, labels=["O", "B-MOOD", "I-MOOD"])
    tagger.tag = lambda texts, **_: [["B-MOOD", "I-MOOD", "O", "I-MOOD"][: len(words)] for words in texts]
    text = "warm, a dull film"
    assert tagger.entities(text) == [{"type": "MOOD", "start": 0, "end": 5, "text": "warm,"},
                                     {"type": "MOOD", "start": 8, "end": 12, "text": "dull"}]  # fmt: skip
    assert tagger.entities([["warm"], []]) == [[{"type": "MOOD", "start": 0, "end": 1, "text": "warm"}], []]


def test_choose(tokenizers):  # noqa: F811
    model = made(tokenizers, zoo.MultipleChoice)
    contexts, choices = ["a film", "a story"], [["warm", "dull", "cold"]] * 2
    logits = model.predict((contexts, choices), verbose=0)
    assert model.choose(contexts, choices) == logits.argmax(-1).tolist()
    assert model.choose(contexts[0], choices[0]) == logits[0].argmax()


@pytest.mark.backends
def test_losses_of_triples():
    """Against sentence-transformers' formulas, written out."""
    torch = pytest.importorskip("torch")
    vectors = np.random.default_rng(0).normal(size=(5, 3, 8)).astype("float32")
    a, p, n = (torch.tensor(vectors[:, i]) for i in range(3))
    expected = torch.nn.functional.triplet_margin_loss(a, p, n, margin=0.7, eps=0)
    found = zoo.TripletLoss(0.7)(np.zeros(5), keras.ops.convert_to_tensor(vectors))
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    cosines = torch.nn.functional.cosine_similarity(a[:, None], torch.cat([p, n])[None], dim=-1)
    expected = torch.nn.functional.cross_entropy(cosines / 0.05, torch.arange(5))
    found = zoo.InBatchContrast()(np.zeros(5), keras.ops.convert_to_tensor(vectors))
    assert float(found) == pytest.approx(float(expected), rel=1e-4)


def test_an_embedder_learns_from_triples(tokenizers):  # noqa: F811
    model = made(tokenizers, zoo.TextEmbedder)
    model.compile(keras.optimizers.Adam(0.01), loss=zoo.TripletLoss())
    triples = (
        ["a warm film", "a dull film"] * 4,
        ["a fine story", "a cold story"] * 4,
        ["a grey film", "a fine film"] * 4,
    )
    x, y, w = model.prepare(triples)
    batches = Batches(x, y, w, batch_size=8)
    losses = model.fit(batches.iterate(0, 20), steps_per_epoch=5, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
