"""LabelWords against sums that are made by hand from the models' own outputs."""

import numpy as np
import pytest

import zoo
from tests.models import randomise

pytestmark = pytest.mark.uncompiled
TEXTS = ["a fine film", "a dull film to forget", "fine acting"]
TRAINING = [*TEXTS, "It was great.", "It was bad.", "great bad", "N/A …"] * 4


@pytest.fixture(scope="module")
def mlm():
    tokenizer = zoo.Tokenizer.train(TRAINING, kind="wordpiece", vocabulary_size=150)
    backbone = zoo.BERTBackbone(vocabulary_size=tokenizer.vocabulary_size, num_layers=1, num_heads=2, hidden_dim=16,
                                intermediate_dim=32, max_sequence_length=40)  # fmt: skip
    return randomise(zoo.MaskedLM(backbone, tokenizer), scale=0.4)


@pytest.fixture(scope="module")
def lm():
    tokenizer = zoo.Tokenizer.train(TRAINING, kind="bpe", vocabulary_size=300)
    backbone = zoo.GPTBackbone(vocabulary_size=tokenizer.vocabulary_size, num_layers=1, num_heads=2, hidden_dim=16,
                               intermediate_dim=32, max_sequence_length=120)  # fmt: skip
    return randomise(zoo.CausalLM(backbone, tokenizer), scale=0.4)


WORDS = {"good": "great", "poor": "bad"}


def test_words_at_a_mask(mlm):
    """The shares of the two words among what `fill_mask` finds at the mask of the whole prompt."""
    found = zoo.LabelWords(mlm, "{text} It was {label}.", WORDS, [("fine", "good")], separator=" ").classify(TEXTS)
    for text, shares in zip(TEXTS, found):
        (row,) = mlm.fill_mask(f"fine It was great. {text} It was [MASK].", top_k=1000)
        wanted = np.array([dict(row)["great"], dict(row)["bad"]])
        assert list(shares.values()) == pytest.approx(wanted / wanted.sum(), rel=1e-4)
    assert [*found[0]] == ["good", "poor"] and found[0] != found[1]


def test_words_after_a_prompt(lm):
    """The likelihood of the whole text over that of the prompt; a word may have several tokens."""
    words = {"good": "great", "poor": "bad acting"}
    found = zoo.LabelWords(lm, "{text}\nIt was {label}", words, [("fine", "good")]).classify(TEXTS, batch_size=2)
    for text, shares in zip(TEXTS, found):
        prompt = f"fine\nIt was great\n\n{text}\nIt was"
        bare = lm.score(prompt)[0].sum()
        logs = np.array([lm.score(f"{prompt} {word}")[0].sum() - bare for word in words.values()])
        wanted = np.exp(logs - logs.max())
        assert list(shares.values()) == pytest.approx(wanted / wanted.sum(), rel=1e-3)


@pytest.mark.parametrize("name", ["mlm", "lm"])
def test_calibration_takes_away_what_no_text_says(name, request):
    """Texts without content get equal shares on average, and the ratio of two texts' odds stays."""
    model = request.getfixturevalue(name)
    template = "{text} It was {label}." if name == "mlm" else "{text} It was {label}"
    plain, even = (zoo.LabelWords(model, template, WORDS, calibrate=c) for c in (False, True))
    odds = [[row["good"] / row["poor"] for row in labels.classify(TEXTS)] for labels in (plain, even)]
    assert odds[1][0] / odds[1][1] == pytest.approx(odds[0][0] / odds[0][1], rel=1e-3)
    free = np.array([list(row.values()) for row in plain.classify(["N/A", "", "…"])]).mean(axis=0)
    assert odds[1][0] == pytest.approx(odds[0][0] * free[1] / free[0], rel=1e-3)


def test_what_is_refused(mlm, lm):
    for model, template, words, examples, message in (
        (lm.backbone, "{text} {label}", WORDS, (), "needs a CausalLM or a MaskedLM"),
        (mlm, "{text}", WORDS, (), "holds {text} and {label} once each"),
        (lm, "{label}: {text}", WORDS, (), "must end with {label}"),
        (mlm, "{text} {label}", {"good": "great"}, (), "not one: ['good']"),
        (mlm, "{text} {label}", WORDS, [("a", "fair")], "not for 'fair'"),
        (mlm, "{text} {label}", {"good": "great", "poor": "xylophone"}, (), "The word 'xylophone' of 'poor' is"),
    ):
        with pytest.raises(ValueError) as error:
            zoo.LabelWords(model, template, words, examples)
        assert message in str(error.value)
    with pytest.raises(ValueError, match="the model 40 positions"):
        zoo.LabelWords(mlm, "{text} {label}", WORDS).classify("film " * 60)
