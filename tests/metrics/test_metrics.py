"""Each metric against the library or the published script that defines it, on hand-made and on random examples."""

import json

import numpy as np
import pytest

from zoo import metrics

RNG = np.random.default_rng(0)


def drawn(names, size=200, right=0.6):
    """(predictions, references) of names, alike more often than by chance."""
    true = RNG.choice(names, size)
    return np.where(RNG.random(size) < right, true, RNG.choice(names, size)).tolist(), true.tolist()


@pytest.mark.parametrize("names", [["a", "b", "c"], [0, 1], ["only"]], ids=["names", "numbers", "one"])
def test_classes_equal_scikit_learn(names):
    sklearn = pytest.importorskip("sklearn.metrics")
    said, true = drawn(names)
    if names == ["a", "b", "c"]:
        said[0] = "never true"
    assert metrics.accuracy(said, true) == pytest.approx(sklearn.accuracy_score(true, said))
    assert metrics.mcc(said, true) == pytest.approx(sklearn.matthews_corrcoef(true, said))
    for name in ("precision", "recall", "f1"):
        theirs = getattr(sklearn, f"{name}_score")
        for options in ({"average": "macro"}, {"average": "micro"}, {"average": "micro", "labels": names[:2]}):
            ours = getattr(metrics, name)(said, true, **options)
            assert ours == pytest.approx(theirs(true, said, zero_division=0, **options))
    assert (metrics.confusion_matrix(said, true)[1] == sklearn.confusion_matrix(true, said)).all()
    together = metrics.classification(said, true)
    assert together == {name: getattr(metrics, name)(said, true) for name in together}


def test_several_labels_equal_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    true = RNG.random((100, 4)) < [0.5, 0.3, 0.1, 0.0]
    said = true ^ (RNG.random((100, 4)) < [0.2, 0.2, 0.1, 0.0])
    ours = metrics.multi_label(said, true)
    assert ours["accuracy"] == pytest.approx(sklearn.accuracy_score(true, said))
    for average, columns in (("micro", slice(None)), ("macro", slice(3))):  # no example has the last label
        for name in ("precision", "recall", "f1"):
            theirs = getattr(sklearn, f"{name}_score")(true[:, columns], said[:, columns], average=average)
            assert ours[f"{average}_{name}"] == pytest.approx(theirs)
    by_name = [[[str(label) for label in np.flatnonzero(row)] for row in side] for side in (said, true)]
    assert metrics.multi_label(*by_name) == ours


def test_numbers_equal_scipy():
    stats = pytest.importorskip("scipy.stats")
    true = RNG.integers(0, 6, 100).astype(float)
    said = true + RNG.normal(size=100).round(1)
    ours = metrics.regression(said, true)
    assert ours["pearson"] == pytest.approx(stats.pearsonr(said, true)[0])
    assert ours["spearman"] == pytest.approx(stats.spearmanr(said, true)[0])
    assert ours["mse"] == pytest.approx(np.mean((said - true) ** 2))
    assert ours["mae"] == pytest.approx(np.mean(np.abs(said - true)))
    assert metrics.similarity(said, true) == {"pearson": ours["pearson"], "spearman": ours["spearman"]}
    assert np.isnan(metrics.pearson([1, 1], [1, 2]))


def test_calibration_by_hand():
    """Bins (0, ½], (½, 1]: 2 of 4 examples in each; |1 - 1.0| · ½ + |½ - 0.75| · ½, as equation 3 has it."""
    sure = np.array([[0.5, 0.5], [0.5, 0.5], [0.25, 0.75], [0.75, 0.25]])
    assert metrics.calibration_error(sure, [0, 0, 1, 1], bins=2) == pytest.approx(0.5 * 0.5 + 0.25 * 0.5)
    named = [{"no": float(a), "yes": float(b)} for a, b in sure]
    right = ["no", "no", "yes", "yes"]
    assert metrics.calibration_error(named, right, bins=2) == pytest.approx(0.375)


BY_HAND = [  # predicted, true, found of the default reading, found of IOB2: (right, predicted, there)
    ("B-PER I-PER O B-LOC", "B-PER I-PER O B-LOC", (2, 2, 2), (2, 2, 2)),
    ("B-PER O O B-LOC", "B-PER I-PER O B-LOC", (1, 2, 2), (1, 2, 2)),  # a boundary
    ("B-PER I-PER O B-ORG", "B-PER I-PER O B-LOC", (1, 2, 2), (1, 2, 2)),  # a type
    ("I-PER I-PER O O", "B-PER I-PER O O", (1, 1, 1), (0, 0, 1)),  # begins with I
    ("B-PER I-LOC O O", "B-PER O O O", (1, 2, 1), (1, 1, 1)),  # another type goes on
    ("B-PER B-PER O O", "B-PER I-PER O O", (0, 2, 1), (0, 2, 1)),
    ("O O O O", "O O O O", (0, 0, 0), (0, 0, 0)),
]


def f1_of(right, predicted, there):
    return 2 * right / (predicted + there) if predicted + there else 0.0


@pytest.mark.parametrize("said, true, default, strict", BY_HAND)
def test_entities_by_hand(said, true, default, strict):
    said, true = [said.split()], [true.split()]
    assert metrics.entity_scores(said, true)["f1"] == pytest.approx(f1_of(*default))
    assert metrics.entity_scores(said, true, scheme="IOB2")["f1"] == pytest.approx(f1_of(*strict))


@pytest.mark.parametrize("scheme, prefixes", [("IOB2", "BI"), ("IOBES", "BIES"), ("BILOU", "BILU")])
def test_entities_equal_seqeval(scheme, prefixes):
    """On random tags, which break every rule of a scheme."""
    pytest.importorskip("seqeval")
    from seqeval import metrics as theirs
    from seqeval import scheme as schemes

    names = ["O", "O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in ("PER", "LOC", "X-Y"))]
    said, true = ([list(map(str, RNG.choice(names, 8))) for _ in range(60)] for _ in range(2))
    true[::2] = [list(tags) for tags in said[::2]]
    options = {"mode": "strict", "scheme": getattr(schemes, scheme), "zero_division": 0}
    for ours, given in ((scheme, options), (None, {"zero_division": 0})):
        if ours is None and scheme == "BILOU":
            continue  # the default reading of seqeval knows no L and U
        found = metrics.entity_scores(said, true, scheme=ours)
        for name in ("precision", "recall", "f1"):
            assert found[name] == pytest.approx(getattr(theirs, f"{name}_score")(true, said, **given))
        assert found["macro_f1"] == pytest.approx(theirs.f1_score(true, said, average="macro", **given))
        assert found["accuracy"] == pytest.approx(theirs.accuracy_score(true, said))


def test_tags_that_are_no_entities():
    said, true = [["N", "V"], ["N"]], [["N", "N"], ["N"]]
    assert metrics.tagging(said, true)["f1"] == metrics.tagging(said, true)["accuracy"] == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="two kinds: 'NOUN' beside 'B-PER'"):
        metrics.tagging([["B-PER", "O"]], [["NOUN", "O"]])
    with pytest.raises(ValueError, match="'E-PER' is not of the scheme IOB2"):
        metrics.tagging([["E-PER"]], [["B-PER"]], scheme="IOB2")
    with pytest.raises(ValueError, match="Sequence 1 has 2 predicted tags, but 1"):
        metrics.tagging([["O"], ["O", "O"]], [["O"], ["O"]])


ANSWERS = [  # prediction, references, exact match, f1, by the rules of SQuAD 2.0
    ("The Eiffel Tower.", ["eiffel tower"], 1, 1),
    ("in  Paris,\nFrance", ["Paris", "Paris France"], 0, 4 / 5),
    ("a an the", [""], 1, 1),
    ("", [], 1, 1),
    ("", ["Paris"], 0, 0),
    ("Paris", [], 0, 0),
    ("theatre of the absurd", ["theatre absurd"], 0, 4 / 5),
    ("don't", ["dont"], 1, 1),
    ("one one two", ["one two two"], 0, 2 / 3),
    ("U.S.", "us", 1, 1),
]


@pytest.mark.parametrize("said, true, exact, f1", ANSWERS)
def test_answers_by_the_rules_of_squad(said, true, exact, f1):
    assert metrics.squad([said], [true]) == {"exact_match": 100 * exact, "f1": pytest.approx(100 * f1)}


def test_answers_equal_torchmetrics():
    theirs = pytest.importorskip("torchmetrics.functional.text")
    words = ["the", "cat", "A", "sat,", "on", "mat!", "(cat)"]
    said, true = ([" ".join(RNG.choice(words, 1 + i % 4)) for i in range(40)] for _ in range(2))
    wanted = theirs.squad(
        [{"id": str(i), "prediction_text": text} for i, text in enumerate(said)],
        [{"id": str(i), "answers": {"text": [text], "answer_start": [0]}} for i, text in enumerate(true)],
    )
    ours = metrics.squad(said, true)
    assert ours == {name: pytest.approx(float(value), abs=1e-4) for name, value in wanted.items()}


HYPOTHESES = ["The cat sat on the mat.", "A dog barked at night", "nothing alike", "Ein Satz."]
REFERENCES = ["The cat is on the mat.", "A dog barked all night.", "quite other words", "Ein Satz."]


def test_texts_equal_their_packages():
    sacrebleu, scorer = pytest.importorskip("sacrebleu"), pytest.importorskip("rouge_score.rouge_scorer")
    several = [[text, text.lower()] for text in REFERENCES[:3]] + [REFERENCES[3]]
    streams = [REFERENCES, [text.lower() for text in REFERENCES[:3]] + [None]]
    for true, lists in ((REFERENCES, [REFERENCES]), (several, streams)):
        wanted = sacrebleu.corpus_bleu(HYPOTHESES, lists).score, sacrebleu.corpus_chrf(HYPOTHESES, lists).score
        assert tuple(metrics.translation(HYPOTHESES, true).values()) == pytest.approx(wanted)
        assert metrics.bleu(HYPOTHESES, true) == pytest.approx(wanted[0])
        assert metrics.chrf(HYPOTHESES, true) == pytest.approx(wanted[1])
    options = {"tokenize": "char", "lowercase": True}
    wanted = sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES], **options).score
    assert metrics.bleu(HYPOTHESES, REFERENCES, **options) == pytest.approx(wanted)
    measure = scorer.RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True)
    found = [measure.score(true, said) for said, true in zip(HYPOTHESES, REFERENCES)]
    wanted = {name: pytest.approx(np.mean([one[name].fmeasure for one in found])) for name in found[0]}
    assert metrics.rouge(HYPOTHESES, REFERENCES, stem=True) == wanted


def test_rouge_refuses_what_it_cannot_read():
    pytest.importorskip("rouge_score")
    with pytest.raises(ValueError, match="words='space'"):
        metrics.rouge(["你好 世界"], ["你好 世界"])
    assert metrics.rouge(["你好 世界"], ["你好 天空"], words="space")["rouge1"] == pytest.approx(0.5)


def test_likelihoods_by_hand():
    scores, texts = [np.log([0.5, 0.25]), np.log([0.125])], ["añ", "b"]  # 3 bytes and 1
    found = metrics.language_modelling(scores, texts)
    assert found["perplexity"] == metrics.perplexity(scores) == pytest.approx(4)
    assert found["bits_per_byte"] == metrics.bits_per_byte(scores, texts) == pytest.approx(6 / 4)


def test_an_interval_covers_the_truth_as_often_as_it_says():
    """Of 100 samples of 60 throws of a coin of 0.7, the 90 % interval holds 0.7 nine times in ten, up to chance."""
    rng, held = np.random.default_rng(1), 0
    for _ in range(100):
        throws = (rng.random(60) < 0.7).astype(int)
        found = metrics.bootstrap(metrics.accuracy, throws, np.ones(60, int), samples=200, level=0.9)
        held += found.low <= 0.7 <= found.high
    assert 79 <= held <= 97  # in all but one of a thousand runs


def test_intervals():
    said, true = drawn(["a", "b"])
    found = metrics.bootstrap(metrics.classification, said, true, samples=50)
    assert found == metrics.bootstrap(metrics.classification, said, true, samples=50)
    assert found["f1"] != metrics.bootstrap(metrics.classification, said, true, samples=50, seed=1)["f1"]
    alone = metrics.bootstrap(metrics.accuracy, said, true, samples=50)
    by_hand = metrics.bootstrap(lambda a, b: np.mean([x == y for x, y in zip(a, b)]), said, true, samples=50)
    assert alone == found["accuracy"] == pytest.approx(by_hand)
    constant = metrics.measure("similarity", [1.0, 1.0], [1.0, 2.0], samples=5)
    assert json.loads(json.dumps(constant))["pearson"] == {"value": None, "low": None, "high": None}


EXAMPLES = {
    "classification": (["a", "b"], ["a", "a"]),
    "multi_label": ([["a"], []], [["a"], ["b"]]),
    "regression": ([1.0, 2.5], [1.0, 2.0]),
    "similarity": ([1.0, 2.5], [1.0, 2.0]),
    "tagging": ([["B-X", "O"], ["O"]], [["B-X", "O"], ["B-X"]]),
    "question_answering": (["a cat", ""], [["cat"], []]),
    "multiple_choice": ([0, 1], [0, 0]),
    "summarisation": (["a cat", "a dog"], ["the cat", "dogs"]),
    "translation": (["a cat", "a dog"], ["the cat", "dogs"]),
    "language_modelling": ([[-1.0], [-2.0]], ["a", "b"]),
}


@pytest.mark.parametrize("task", metrics.TASKS)
def test_every_task_is_measured(task):
    for package in {"summarisation": ["rouge_score"], "translation": ["sacrebleu"]}.get(task, []):
        pytest.importorskip(package)
    found = metrics.measure(task, *EXAMPLES[task], samples=20)
    assert found.pop("examples") == 2 and json.dumps(found)
    value = metrics.TASKS[task](*EXAMPLES[task])
    value = value if isinstance(value, dict) else {next(iter(found)): value}
    assert {name: one["value"] for name, one in found.items()} == pytest.approx(value)
    assert all(one["low"] <= one["value"] <= one["high"] for one in found.values())


def test_what_is_refused():
    with pytest.raises(ValueError, match="2 predictions do not go with 1 references"):
        metrics.accuracy(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="no predictions"):
        metrics.squad([], [])
    with pytest.raises(ValueError, match="names on one side and numbers"):
        metrics.accuracy(["1"], [1])
    with pytest.raises(ValueError, match="classification, multi_label"):
        metrics.measure("ner", ["O"], ["O"])
    with pytest.raises(ValueError, match="'c' is none of 'a', 'b'"):
        metrics.confusion_matrix(["a"], ["c"], labels=["a", "b"])


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu.metrics", None)
    with pytest.raises(ImportError, match=r"sacrebleu: pip install keras-zoo\[eval\]"):
        metrics.bleu(["a"], ["a"])


def test_pictures_are_written(tmp_path):
    said, true = drawn(["anger", "joy", "fear"])
    metrics.plot_confusion(tmp_path / "confusion.png", said, true, title="emotions")
    metrics.plot_reliability(tmp_path / "reliability.png", np.array([[0.7, 0.3]] * 10), [0] * 7 + [1] * 3)
    metrics.plot_scores(tmp_path / "scores.png", RNG.random(100), "F1")
    assert {path.name for path in tmp_path.iterdir()} == {"confusion.png", "reliability.png", "scores.png"}
    assert all(path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for path in tmp_path.iterdir())
