"""Samplers and constraints against `transformers`' processors, exact probabilities and brute force."""

import math

import numpy as np
import pytest
from keras import ops

from zoo import samplers
from zoo.samplers.constraints import BANNED

pytestmark = pytest.mark.backends
SIZE = 40


@pytest.fixture(scope="module")
def logits():
    return np.random.default_rng(0).normal(size=(6, SIZE)).astype("float32") * 2


@pytest.fixture(scope="module")
def tokens():
    return np.random.default_rng(1).integers(0, 6, (6, 24)).astype("int32")


def processed(processors, tokens, logits):
    torch = pytest.importorskip("torch")
    scores = torch.tensor(logits)
    for processor in processors:
        scores = processor(torch.tensor(tokens).long(), scores)
    return scores.numpy()


def equal(found, expected):
    """The same logits, and the same ids left out."""
    out = np.isinf(expected)
    np.testing.assert_array_equal(found <= BANNED, out)
    np.testing.assert_allclose(found[~out], expected[~out], rtol=1e-5, atol=1e-5)


def spread(sampler, logits):
    """The candidates of a sampler laid out over the vocabulary."""
    values, ids = sampler.candidates(ops.convert_to_tensor(logits))
    values = ops.convert_to_numpy(values)
    if ids is None:
        return values
    found = np.full(logits.shape, -np.inf, "float32")
    np.put_along_axis(found, ops.convert_to_numpy(ids), values, axis=1)
    return found


@pytest.mark.parametrize("name", ["TopK", "TopP", "MinP", "Typical", "Epsilon", "Eta", "all"])
def test_candidates_are_those_of_transformers(name, logits, tokens):
    hf = pytest.importorskip("transformers.generation.logits_process")
    warm = hf.TemperatureLogitsWarper(0.7)
    theirs = {
        "TopK": [hf.TopKLogitsWarper(7)], "TopP": [hf.TopPLogitsWarper(0.8)], "MinP": [hf.MinPLogitsWarper(0.1)],
        "Typical": [hf.TypicalLogitsWarper(0.6)], "Epsilon": [hf.EpsilonLogitsWarper(0.03)],
        "Eta": [hf.EtaLogitsWarper(0.04)],
    }  # fmt: skip
    theirs["all"] = [hf.TopKLogitsWarper(20), hf.TopPLogitsWarper(0.9), hf.MinPLogitsWarper(0.02),
                     hf.TypicalLogitsWarper(0.7)]  # fmt: skip
    ours = {
        "TopK": samplers.TopK(7, 0.7), "TopP": samplers.TopP(0.8, 0.7), "MinP": samplers.MinP(0.1, 0.7),
        "Typical": samplers.Typical(0.6, 0.7), "Epsilon": samplers.Sampler(0.7, epsilon_cutoff=0.03),
        "Eta": samplers.Sampler(0.7, eta_cutoff=0.04), "all": samplers.Sampler(0.7, 20, 0.9, 0.02, 0.7),
    }  # fmt: skip
    expected = processed([warm, *theirs[name]], tokens, logits)
    equal(spread(ours[name], logits), expected - logits.max(axis=1, keepdims=True) / 0.7)


def test_constraints_are_those_of_transformers(logits, tokens):
    hf = pytest.importorskip("transformers.generation.logits_process")
    pairs = [
        ({"repetition_penalty": 1.7}, [hf.RepetitionPenaltyLogitsProcessor(1.7)]),
        ({"no_repeat_ngram": 1}, [hf.NoRepeatNGramLogitsProcessor(1)]),
        ({"no_repeat_ngram": 3}, [hf.NoRepeatNGramLogitsProcessor(3)]),
        ({"no_repeat_ngram": 30}, [hf.NoRepeatNGramLogitsProcessor(30)]),
        ({"logit_bias": {3: 1.5, 9: -4.0}}, [hf.SequenceBiasLogitsProcessor([[[3], 1.5], [[9], -4.0]])]),
        (
            {"sequence_bias": {(9, 4): 2.0, (1, 2, 3): -1.0, (*range(30),): 9.0}},
            [hf.SequenceBiasLogitsProcessor([[[9, 4], 2.0], [[1, 2, 3], -1.0], [[*range(30)], 9.0]])],
        ),
        ({"sequence_bias": {(2, 8): -math.inf}}, [hf.NoBadWordsLogitsProcessor([[2, 8]])]),
        ({"ending": (6, 1.2, (3, 5))}, [hf.ExponentialDecayLengthPenalty((6, 1.2), [3, 5], 10)]),
        ({"ending": (20, 1.2, (3,))}, [hf.ExponentialDecayLengthPenalty((20, 1.2), 3, 10)]),
        ({"logit_bias": {7: -math.inf}}, [hf.SuppressTokensLogitsProcessor([7])]),
        ({"allowed_tokens": [2, 5]}, [hf.PrefixConstrainedLogitsProcessor(lambda *_: [2, 5], 1)]),
    ]
    for mine, theirs in pairs:
        past = {"tokens": ops.convert_to_tensor(tokens), "begin": 10}
        found = samplers.Greedy(**mine).constrained(ops.convert_to_tensor(logits), **past)
        equal(ops.convert_to_numpy(found), processed(theirs, tokens, logits))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_padding_and_empty_slots_do_not_count(n, logits, tokens):
    """The prompt lies behind padding, and slots after `end` hold what may come from anywhere."""
    sampler = samplers.Greedy(no_repeat_ngram=n, repetition_penalty=1.3, presence_penalty=0.5)
    tensor, pad, end, begin = ops.convert_to_tensor, 5, 19, 12
    seen = np.ones_like(tokens)
    seen[:, :pad] = 0
    found = sampler.constrained(tensor(logits), tensor(tokens), tensor(seen), begin, tensor(np.int32(end)))
    alone = sampler.constrained(tensor(logits), tensor(tokens[:, pad:end]), begin=begin - pad)
    np.testing.assert_array_equal(ops.convert_to_numpy(found), ops.convert_to_numpy(alone))
    new = np.array([np.isin(np.arange(SIZE), row[begin:end]) for row in tokens])
    plain = samplers.Greedy(repetition_penalty=1.3).constrained(tensor(logits), tensor(tokens[:, pad:end]))
    expected = ops.convert_to_numpy(plain) - 0.5 * new
    kept = ops.convert_to_numpy(found) > BANNED
    np.testing.assert_allclose(ops.convert_to_numpy(found)[kept], expected[kept], rtol=1e-6)


def test_frequencies_match_the_distribution():
    """A chi-squared test of 20,000 draws; the 0.999 quantile of chi-squared with n degrees is below n + 6 sqrt(n)."""
    rng, draws = np.random.default_rng(5), 20_000
    logits = rng.normal(size=12).astype("float32") * 1.5
    uniform = rng.random(draws, dtype="float32")
    wide = ops.convert_to_tensor(np.broadcast_to(logits, (draws, 12)))
    for sampler in (samplers.Temperature(0.8), samplers.TopK(5, 1.3), samplers.TopP(0.8), samplers.MinP(0.1),
                    samplers.Typical(0.7), samplers.Temperature(2.0, allowed_tokens=[1, 4, 7])):  # fmt: skip
        values = ops.convert_to_numpy(sampler.constrained(ops.convert_to_tensor(logits[None])))
        values = spread(sampler, values)[0].astype("float64")
        expected = np.exp(values - values.max()) / np.exp(values - values.max()).sum()
        counts = np.bincount(ops.convert_to_numpy(sampler(wide, ops.convert_to_tensor(uniform))), minlength=12)
        held = expected > 0
        assert not counts[~held].any()
        chi = ((counts[held] - draws * expected[held]) ** 2 / (draws * expected[held])).sum()
        degrees = held.sum() - 1
        assert chi < degrees + 6 * math.sqrt(degrees)


def test_the_largest_uniform_number_picks_a_possible_token():
    logits = np.random.default_rng(2).normal(size=(500, SIZE)).astype("float32")
    logits[:, 30:] = -1e9
    uniform = np.full(500, 1 - 2.0**-24, "float32")
    found = ops.convert_to_numpy(samplers.Temperature()(ops.convert_to_tensor(logits), ops.convert_to_tensor(uniform)))
    assert found.max() < 30


def test_masks_of_steps():
    sampler = samplers.Greedy(first_token=3, last_token=2, min_new_tokens=2,
                              allowed_tokens=lambda ids: [5, 2] if ids[-1] == 4 else None)  # fmt: skip
    texts = [[], []], [[3], [4]], [[3, 1], [3, 4]], [[3, 1, 1], [3, 1, 4]]
    found = [sampler.mask(text, 6, [2], 4) for text in texts]
    allowed = [[np.flatnonzero(row).tolist() for row in mask] for mask in found]
    assert allowed == [[[3], [3]], [[0, 1, 3, 4, 5], [5]], [[0, 1, 2, 3, 4, 5], [2, 5]], [[2], [2]]]
    assert samplers.Greedy(min_new_tokens=1).mask([[1]], 6, [2], 4) is None


def test_what_is_allowed_wins_over_bans():
    sampler = samplers.Greedy(allowed_tokens=[4], no_repeat_ngram=1, logit_bias={4: -math.inf})
    tokens = ops.convert_to_tensor(np.array([[4, 1]], "int32"))
    found = sampler(ops.convert_to_tensor(np.zeros((1, 8), "float32")), None, tokens=tokens)
    assert ops.convert_to_numpy(found).tolist() == [4]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: samplers.Temperature(-1), "temperature must be at least 0, got -1"),
        (lambda: samplers.Temperature(math.nan), "temperature"),
        (lambda: samplers.TopK(0), "top_k must be an integer of at least 1, got 0"),
        (lambda: samplers.TopK(2.5), "top_k must be an integer"),
        (lambda: samplers.TopP(0), "top_p must be in"),
        (lambda: samplers.TopP(1.1), "top_p must be in"),
        (lambda: samplers.MinP(2), "min_p must be in"),
        (lambda: samplers.Typical(-0.1), "typical_p must be in"),
        (lambda: samplers.Greedy(repetition_penalty=0), "repetition_penalty must be above 0"),
        (lambda: samplers.Greedy(presence_penalty=math.nan), "presence_penalty must be a finite"),
        (lambda: samplers.Greedy(no_repeat_ngram=0), "no_repeat_ngram must be an integer"),
        (lambda: samplers.Greedy(logit_bias={1: math.inf}), "logit_bias must hold numbers below infinity"),
        (lambda: samplers.Greedy(allowed_tokens=[]), "allowed_tokens is empty"),
        (lambda: samplers.Greedy(allowed_tokens=[50]).check(SIZE), "allowed_tokens names the id 50"),
        (lambda: samplers.Greedy(logit_bias={-1: 1.0}).check(SIZE), "logit_bias names the id -1"),
        (lambda: samplers.Greedy(allowed_tokens=lambda _: []).mask([[1]], 6, [], 9), r"allowed_tokens\(\[1\]\) gave"),
        (lambda: samplers.Beam(0), "size must be an integer"),
        (lambda: samplers.Beam(2, num_returns=3), "num_returns=3 is more"),
        (lambda: samplers.Beam(2, length_penalty=math.inf), "length_penalty must be a finite"),
        (lambda: samplers.Beam(2, early_stopping="soon"), "early_stopping must be"),
    ],
)
def test_nonsense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
