"""The decode loop over long texts: against `transformers`, across the sizes of a cache, and what is compiled."""

import keras
import numpy as np
import pytest

import zoo
from tests.models import TINY, parameters, randomise, run
from tests.parity_cases import VOCABULARY, model_of
from zoo import samplers
from zoo.generation import loop

FAMILIES = ["gpt2", "bloom", "mistral", "gemma3", "t5", "bart"]  # tokens find each other in as many ways
WINDOWS = {"mistral": 150}  # which a cache outgrows after it has grown; that of Gemma 3 is shorter than the prompts


def tokens_of(task, prompts, *arguments, **kwargs):
    """New tokens of ragged prompts, through the dictionary of token ids."""
    ids, seen = (np.zeros((len(prompts), max(map(len, prompts))), "int32") for _ in range(2))
    for i, prompt in enumerate(prompts):
        ids[i, : len(prompt)], seen[i, : len(prompt)] = prompt, 1
    return task.generate({"token_ids": ids, "padding_mask": seen}, *arguments, echo=False, **kwargs)


@pytest.mark.backends
@pytest.mark.parametrize("name", parameters(FAMILIES, ["mistral", "gemma3", "t5"]))
def test_200_tokens_equal_transformers(name, tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    torch.set_num_threads(1)
    windows = {"sliding_window": WINDOWS[name]} if name in WINDOWS else {}
    theirs = model_of(name, max_position_embeddings=256, **windows)
    theirs.save_pretrained(tmp_path)
    rng = np.random.default_rng(1)
    prompts = [rng.integers(3, VOCABULARY, size).tolist() for size in (9, 3, 40)]
    width, never = 40, [0, 1, 2]
    padded = np.array([[0] * (width - len(row)) + row for row in prompts])
    mask = np.array([[0] * (width - len(row)) + [1] * len(row) for row in prompts])
    arguments = {"max_new_tokens": 200, "do_sample": False, "num_beams": 1, "suppress_tokens": never, "pad_token_id": 0}
    found = theirs.generate(torch.tensor(padded), attention_mask=torch.tensor(mask), **arguments).numpy()
    task = (zoo.Seq2SeqLM if theirs.config.is_encoder_decoder else zoo.CausalLM).from_preset(tmp_path)
    greedy = samplers.Greedy(logit_bias=dict.fromkeys(never, -np.inf))
    if theirs.config.is_encoder_decoder:
        ours = task.generate({"token_ids": padded.astype("int32"), "padding_mask": mask}, 200, greedy, echo=False)
    else:
        ours = tokens_of(task, prompts, 200, greedy)
    np.testing.assert_array_equal(ours, found[:, -200:])


@pytest.mark.backends
@pytest.mark.uncompiled
def test_windowed_layers_keep_their_window_alone(monkeypatch):
    """Bytes of keys and values after 300 tokens: two rows, 32 wide, in float32."""
    shape = {**TINY, "num_layers": 3, "max_sequence_length": 512, "window": 100, "window_pattern": (True, False)}
    lm, held = zoo.CausalLM(zoo.LlamaBackbone(**shape)), []
    decode = type(lm.backbone).decode

    def watched(self, token_ids, cache, *args):
        held.append([sum(x.nbytes for x in layer["self"]) for layer in cache])
        return decode(self, token_ids, cache, *args)

    monkeypatch.setattr(type(lm.backbone), "decode", watched)
    tokens_of(lm, [[3, 9, 14], [5]], 300)
    assert held[-1] == [slots * 2 * 2 * 32 * 4 for slots in (100, 384, 100)]


@pytest.mark.backends
@pytest.mark.uncompiled
@pytest.mark.parametrize("relative", ["alibi", "buckets_per_layer"])
def test_relative_positions_within_a_window(relative):
    """Each token is the likeliest of a whole pass."""
    shape = {**TINY, "rotary_theta": None, "relative": relative, "window": 6}
    lm = randomise(zoo.CausalLM(zoo.LlamaBackbone(**shape)), 0, 1.0)
    text = [3, 9, 14, *tokens_of(lm, [[3, 9, 14]], 25)[0]]
    logits = run(lm, {"token_ids": np.array([text[:-1]])})[0, 2:]
    assert len(set(text)) > 9 and logits.argmax(axis=-1).tolist() == text[3:]


@pytest.fixture(scope="module")
def lm():
    return randomise(zoo.CausalLM(zoo.LlamaBackbone(**{**TINY, "max_sequence_length": 256})), 0, 1.0)


@pytest.mark.backends
def test_a_bucket_compiles_once(lm, monkeypatch):
    """New lengths of prompts and texts in the same buckets trace nothing again."""
    traces, decode = [], type(lm.backbone).decode

    def counted(self, token_ids, cache, *args):
        traces.append((tuple(map(int, token_ids.shape)), int(cache[0]["self"][0].shape[2])))
        return decode(self, token_ids, cache, *args)

    monkeypatch.setattr(type(lm.backbone), "decode", counted)
    greedy = samplers.Greedy(logit_bias={5: 0.5})  # programs of its own
    tokens_of(lm, [[7] * 32], 100, greedy)
    if keras.backend.backend() == "torch":  # a prefill runs each time, a step is recorded once a size
        first = [shape for shape in traces if shape[0] == (1, 1)]
    else:
        first = list(traces)
    assert {slots for _, slots in first} == {64, 128, 192}
    traces.clear()
    for length, new in ((2, 3), (32, 90), (9, 12), (25, 101)):
        tokens_of(lm, [[7] * length], new, greedy)
    assert not [shape for shape in traces if keras.backend.backend() != "torch" or shape[0] == (1, 1)]


@pytest.mark.backends
def test_a_text_does_not_depend_on_how_it_is_made(lm):
    """Across sizes of the cache, in one batch or alone, a token or a few at a time, with and without a host mask."""
    prompts = [[3, 9, 14], list(range(3, 43)), [50]]
    for sampler in (samplers.Greedy(repetition_penalty=1.3), samplers.Temperature(0.8)):
        whole = tokens_of(lm, prompts, 60, sampler, seed=3)
        again = tokens_of(lm, prompts, 30, sampler, seed=3)
        np.testing.assert_array_equal(again, whole[:, :30])
        np.testing.assert_array_equal(tokens_of(lm, prompts[:1], 60, sampler, seed=3), whole[:1])
    greedy = samplers.Greedy(allowed_tokens=lambda new: None)
    np.testing.assert_array_equal(tokens_of(lm, prompts, 20, greedy), tokens_of(lm, prompts, 20))
    rows, numbers = [[3, 9, 14]], np.random.default_rng(0).random((40, 1), dtype="float32")
    made = [np.concatenate([tokens for tokens, _ in loop.decode(lm, rows, 40, samplers.Temperature(), numbers, [],
                                                                at_once=n)]) for n in (1, 3, 8)]  # fmt: skip
    assert made[0].tolist() == made[1].tolist() == made[2].tolist()


@pytest.mark.backends
def test_a_stop_ends_all_work(lm):
    """On the first token, and in the middle of a program."""
    plain = tokens_of(lm, [[3, 9, 14]], 30)[0].tolist()
    assert tokens_of(lm, [[3, 9, 14]], 30, stop=plain[0])[0].tolist() == plain[:1]
    last = next(i for i, token in enumerate(plain) if token not in plain[:i] and i > 2)
    assert tokens_of(lm, [[3, 9, 14]], 30, stop=plain[last])[0].tolist() == plain[: last + 1]


def test_a_thousand_ragged_prompts(lm):
    rng = np.random.default_rng(0)
    prompts = [rng.integers(3, 96, rng.integers(1, 60)).tolist() for _ in range(1000)]
    found = tokens_of(lm, prompts, 5, batch_size=128)
    assert found.shape == (1000, 5)
    for i in (0, 123, 999):
        np.testing.assert_array_equal(tokens_of(lm, prompts[i : i + 1], 5), found[i : i + 1])
