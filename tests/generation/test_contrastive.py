"""Contrastive search against the paper's formula over `transformers`' hidden states, everything computed anew."""

import numpy as np
import pytest

import zoo
from tests.models import parameters
from tests.parity_cases import VOCABULARY, model_of
from zoo import samplers

pytestmark = pytest.mark.backends
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
COUNT = 12


@pytest.fixture(scope="module", params=parameters(["gpt2", "mistral", "t5"], ["mistral", "t5"]))
def pair(request, tmp_path_factory):
    """Their model, and ours read from its files."""
    torch.set_num_threads(1)
    theirs = model_of(request.param, num_layers=4, num_decoder_layers=3)  # in a shallower T5 it is greedy
    path = tmp_path_factory.mktemp("contrastive") / request.param
    theirs.save_pretrained(path)
    return theirs, (zoo.Seq2SeqLM if request.param == "t5" else zoo.CausalLM).from_preset(path)


@torch.no_grad()
def searched(theirs, prompt, source, k, alpha, banned=()):
    """Equation 5 of Su et al. 2022, without a cache: the new ids, and how often greedy would have done otherwise."""

    def states_and_logits(ids):
        ids = torch.tensor([ids])
        given = {"input_ids": ids} if source is None else {"input_ids": source, "decoder_input_ids": ids}
        out = theirs(**given, output_hidden_states=True)
        states = (out.hidden_states if source is None else out.decoder_hidden_states)[-1][0]
        return torch.nn.functional.normalize(states, dim=-1), out.logits[0, -1]

    ids, others = list(prompt), 0
    for _ in range(COUNT):
        context, logits = states_and_logits(ids)
        logits[list(banned)] = -torch.inf
        likeliest = logits.softmax(-1).topk(k)
        scores = []
        for p, v in zip(*likeliest):
            state = states_and_logits([*ids, int(v)])[0][-1]
            scores.append(float((1 - alpha) * p - alpha * (context @ state).max()))
        ids.append(int(likeliest[1][np.argmax(scores)]))
        others += int(np.argmax(scores) != 0)
        if ids[-1] == theirs.generation_config.eos_token_id:
            break
    return ids[len(prompt) :], others


@pytest.mark.parametrize("k_alpha", parameters([(4, 0.6), (6, 0.95)], [(4, 0.6)]), ids=str)
def test_equals_the_formula(pair, k_alpha):
    k, alpha = k_alpha
    theirs, task = pair
    rng, others = np.random.default_rng(1), 0
    rows = [rng.integers(3, VOCABULARY, size).tolist() for size in (9, 4)]
    ids, seen = np.zeros((2, 9), "int32"), np.zeros((2, 9), "int32")
    for i, row in enumerate(rows):
        ids[i, : len(row)], seen[i, : len(row)] = row, 1
    sampler = samplers.Contrastive(k, alpha, logit_bias={7: -np.inf})
    found = task.generate({"token_ids": ids, "padding_mask": seen}, COUNT, sampler, echo=False)
    for i, row in enumerate(rows):
        prompt, source = (row, None) if task.backbone.encoder is None else ([task.start_id], torch.tensor([row]))
        expected, other = searched(theirs, prompt, source, k, alpha, banned=[7])
        others += other
        assert found[i, : len(expected)].tolist() == expected
    assert others > 3  # it is not what greedy does


def test_generation_config_asks_for_it():
    from zoo.generation.settings import read

    said = {"penalty_alpha": 0.4, "top_k": 3, "eos_token_id": 2}
    assert read(said, False).sampler == samplers.Contrastive(3, 0.4)
    assert read({**said, "top_k": 1}, False).sampler == samplers.Greedy()
    assert read({**said, "do_sample": True}, False).sampler == samplers.TopK(3)
    lm = zoo.CausalLM(zoo.LlamaBackbone(vocabulary_size=50, num_layers=1, num_heads=2, hidden_dim=16,
                                        intermediate_dim=32), generation_config=said)  # fmt: skip
    prompt = {"token_ids": np.array([[3, 5, 8]])}
    np.testing.assert_array_equal(lm.generate(prompt, 9), lm.generate(prompt, 9, samplers.Contrastive(3, 0.4)))
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\]"):
        samplers.Contrastive(alpha=1.5)
