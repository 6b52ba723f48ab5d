"""Beam search against `transformers` and against the search of all texts."""

import itertools

import numpy as np
import pytest

import zoo
from tests.models import parameters, run
from tests.parity_cases import VOCABULARY, model_of
from zoo import samplers

pytestmark = pytest.mark.backends
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.fixture(scope="module", params=parameters(["bart", "t5", "mistral"], ["t5", "mistral"]))
def pair(request, tmp_path_factory):
    """Their model with livelier weights, so that texts end at different lengths, and ours."""
    torch.set_num_threads(1)
    theirs = model_of(request.param)
    with torch.no_grad():
        for weight in theirs.parameters():
            if weight.ndim > 1:
                weight.mul_(2.0 if request.param != "t5" else 1.0)
    path = tmp_path_factory.mktemp("beam") / request.param
    theirs.save_pretrained(path)
    return theirs, (zoo.CausalLM if request.param == "mistral" else zoo.Seq2SeqLM).from_preset(path)


def compared(pair, count, theirs_kwargs, beam):
    theirs, task = pair
    ids = np.random.default_rng(3).integers(3, VOCABULARY, (3, 7)).astype("int32")
    out = theirs.generate(torch.tensor(ids).long(), attention_mask=torch.ones(3, 7).long(), max_new_tokens=count,
                          do_sample=False, output_scores=True, return_dict_in_generate=True, pad_token_id=0,
                          num_beams=beam.size, num_return_sequences=beam.num_returns, **theirs_kwargs)  # fmt: skip
    begin = 7 if task.config.architecture == "decoder" else 1
    from zoo.generation.beam import search

    rows = [list(map(int, row)) for row in ids] if begin == 7 else [[task.start_id]] * 3
    stop = theirs.generation_config.eos_token_id
    found = search(task, rows, count, beam, [stop], None if begin == 7 else {"token_ids": ids})
    found = [text for best in found for text in best]
    for text, row in zip(found, out.sequences.numpy()[:, begin:]):
        ends = np.flatnonzero(row == stop)
        row = row[: ends[0] + 1] if len(ends) else row[:count]
        assert text.ids == row[: len(text.ids)].tolist() and not row[len(text.ids) :].any()
    np.testing.assert_allclose([text.score for text in found], out.sequences_scores.numpy(), rtol=2e-5)
    dictionary = task.generate({"token_ids": ids}, count, beam)
    assert dictionary.shape[0] == 3 * beam.num_returns


def test_equals_transformers(pair):
    compared(pair, 14, {}, samplers.Beam(4, num_returns=3))
    compared(pair, 14, {"length_penalty": -0.5, "no_repeat_ngram_size": 2, "repetition_penalty": 1.3},
             samplers.Beam(4, length_penalty=-0.5, no_repeat_ngram=2, repetition_penalty=1.3))  # fmt: skip


@pytest.mark.uncompiled
def test_equals_transformers_with_the_rest(pair):
    compared(pair, 14, {"length_penalty": 2.0, "early_stopping": True},
             samplers.Beam(3, length_penalty=2.0, early_stopping=True, num_returns=2))  # fmt: skip
    compared(pair, 9, {"early_stopping": "never", "min_new_tokens": 4, "bad_words_ids": [[5], [9]]},
             samplers.Beam(2, early_stopping="never", min_new_tokens=4,
                           logit_bias={5: -np.inf, 9: -np.inf}))  # fmt: skip
    compared(pair, 1, {}, samplers.Beam(2))


def test_a_wide_beam_finds_the_best_text(pair):
    """Of 3 tokens out of 4, all 64 texts are compared by one whole pass."""
    _, task = pair
    allowed, prompt = [3, 10, 20, 30], [7, 8]
    texts = np.array(list(itertools.product(allowed, repeat=3)), "int32")
    start = prompt if task.config.architecture == "decoder" else [task.start_id]
    x = np.concatenate([np.tile(start, (len(texts), 1)), texts], axis=1).astype("int32")
    source = np.tile([[4, 5, 6]], (len(texts), 1)).astype("int32")
    inputs = {"token_ids": x} if len(start) == 2 else {"token_ids": source, "decoder_token_ids": x}
    logits = run(task, inputs)[:, len(start) - 1 : -1].astype("float64")
    logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    scores = np.take_along_axis(logs, texts[..., None], axis=2).sum(axis=(1, 2))
    prompts = {"token_ids": np.array([prompt])} if len(start) == 2 else {"token_ids": source[:1]}
    found = task.generate(prompts, 3, samplers.Beam(16, allowed_tokens=allowed), echo=False)
    assert found[0].tolist() == texts[scores.argmax()].tolist()
