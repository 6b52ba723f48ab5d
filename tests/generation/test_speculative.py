"""Speculative decoding: a draft changes the time that a text takes, and neither greedy texts nor distributions."""

import keras
import numpy as np
import pytest

import zoo
from tests.generation.test_text import PROMPTS, model
from tests.models import parameters, randomise, run
from zoo import samplers

pytestmark = [
    pytest.mark.backends,
    pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="minutes of XLA"),
]
GREEDY = {"max_new_tokens": 20, "details": True}


# Positions and windows end where drafts are still guessing.
SHAPE = {"max_sequence_length": 31, "position": "learned", "rotary_theta": None, "window": 4}


@pytest.fixture(scope="module")
def lm():
    return model(**SHAPE)


@pytest.fixture(scope="module")
def draft():
    """The same with some noise, so that it is often right and often wrong."""
    draft, rng = model(**SHAPE), np.random.default_rng(0)
    for v in draft.trainable_variables:
        v.assign(v + rng.normal(size=v.shape).astype("float32") * 0.05)
    return draft


@pytest.mark.parametrize("count", parameters([1, 3], [3]))
def test_greedy_is_the_same(count, lm, draft):
    expected = lm.generate(PROMPTS, **GREEDY)
    found = lm.generate(PROMPTS, **GREEDY, draft=draft, draft_tokens=count)
    for ours, plain in zip(found, expected):
        assert ours.text == plain.text and ours.token_ids == plain.token_ids
        np.testing.assert_allclose(ours.log_probabilities, plain.log_probabilities, rtol=1e-4, atol=1e-4)
    guessed, count_of = sum(f.guessed for f in found), sum(len(f.token_ids) for f in found)
    assert 0.2 * count_of < guessed < 0.9 * count_of
    with_itself = lm.generate(PROMPTS[0], **GREEDY, draft=lm, draft_tokens=count)
    assert with_itself.text == expected[0].text and with_itself.guessed == len(with_itself.token_ids) - 1
    assert "".join(lm.stream(PROMPTS[1], 20, draft=draft, draft_tokens=count)) == expected[1].text


@pytest.mark.uncompiled
def test_constraints_hold_at_each_place(lm, draft):
    for sampler in (samplers.Greedy(no_repeat_ngram=2, repetition_penalty=1.3, presence_penalty=0.5),
                    samplers.Greedy(min_new_tokens=7, first_token=9, last_token=11, logit_bias={5: 4.0})):  # fmt: skip
        arguments = {"max_new_tokens": 14, "sampler": sampler, "stop": [5]}
        assert lm.generate(PROMPTS, **arguments, draft=draft) == lm.generate(PROMPTS, **arguments)


@pytest.mark.uncompiled
def test_a_batch_gives_what_each_row_alone_gives(lm, draft):
    """Drawn texts depend on no other row, and not on how many tokens are guessed at a time."""
    arguments = {"max_new_tokens": 12, "sampler": samplers.TopP(0.9, temperature=2.0), "seed": 3, "draft": draft}
    expected = lm.generate(PROMPTS, **arguments)
    assert lm.generate(PROMPTS[0], **arguments, draft_tokens=2) == expected[0]
    assert lm.generate(PROMPTS, **arguments, draft_tokens=3, batch_size=2) == expected
    assert lm.generate(PROMPTS, **{**arguments, "seed": 4}) != expected


@pytest.mark.uncompiled
def test_an_encoder_decoder_with_a_draft():
    large, small = model("unigram", "Seq2SeqLM", num_layers=2), model("unigram", "Seq2SeqLM", seed=1)
    expected = large.generate(PROMPTS[:2], 12)
    assert large.generate(PROMPTS[:2], 12, draft=small) == expected
    assert large.generate(PROMPTS[:2], 12, draft=large) == expected


def test_frequencies_are_the_models():
    """Chi-squared tests of 4,000 texts of 3 tokens: whole texts, and how often guesses are kept."""
    size, draws = 5, 4000
    shape = {"vocabulary_size": size, "num_layers": 1, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 8,
             "eos_token_id": None}  # fmt: skip
    large, small = (randomise(zoo.CausalLM(zoo.LlamaBackbone(**shape)), seed, 0.7) for seed in (0, 1))
    sampler = samplers.TopK(4, temperature=1.5)
    prompts = {"token_ids": np.full((draws, 1), 2, "int32")}
    texts = large.generate(prompts, 3, sampler, echo=False, batch_size=500, draft=small, draft_tokens=2)
    every = np.stack(np.meshgrid(*[np.arange(size)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)

    def distribution(lm):
        x = np.concatenate([np.full((len(every), 1), 2), every], axis=1).astype("int32")
        logits = run(lm, {"token_ids": x})[:, :-1] / 1.5
        logits[logits <= np.sort(logits, axis=-1)[..., :1]] = -np.inf
        shares = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
        return np.take_along_axis(shares, every[..., None], axis=2)[..., 0].prod(axis=1)

    expected, other = distribution(large) * draws, distribution(small) * draws
    counts = np.bincount(texts @ np.array([size**2, size, 1]), minlength=size**3)
    assert not counts[expected == 0].any()

    def distance(expected):
        common = expected > 5
        return ((counts - expected)[common] ** 2 / expected[common]).sum(), common.sum()

    found, degrees = distance(expected)
    assert found < degrees + 6 * degrees**0.5  # beyond the 0.999 quantile of chi-squared
    assert distance(other)[0] > 10 * degrees  # which the draft's own texts do not pass


def test_refusals(lm, draft):
    other = model("char")
    for arguments, message in (
        ({"draft": other}, "The draft has vocabulary_size="),
        ({"draft": model(kind="bpe", task="Seq2SeqLM")}, "draft must be a CausalLM"),
        ({"draft": "gpt2"}, "draft must be a CausalLM"),
        ({"draft": draft, "draft_tokens": 0}, "draft_tokens must be an integer of at least 1"),
        ({"draft": draft, "sampler": samplers.Beam(2)}, "which Beam does not make"),
        ({"draft": draft, "sampler": samplers.Contrastive()}, "which Contrastive does not make"),
        ({"draft": draft, "sampler": samplers.Greedy(allowed_tokens=lambda _: None)}, "allowed_tokens is a function"),
    ):
        with pytest.raises(ValueError, match=message):
            lm.generate("A", 3, **arguments)
    same_size = zoo.Tokenizer.train(["another text " * 9, "äöü"], vocabulary_size=lm.tokenizer.vocabulary_size)
    with pytest.raises(ValueError, match="a draft must share the model's tokenizer"):
        lm.generate("A", 3, draft=zoo.CausalLM(draft.backbone, same_size))
