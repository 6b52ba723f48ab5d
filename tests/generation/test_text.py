"""Generated text: pieces, stops, batches, log-probabilities, and generation_config.json."""

import itertools
import json

import keras
import numpy as np
import pytest

import zoo
from tests.models import parameters, randomise, run
from zoo import samplers

pytestmark = pytest.mark.backends
TEXTS = ["Return the value of a name – déjà vu, 東京 and 🙂.", "A list of names and values, äöü."] * 4
PROMPTS = ["Return", "A list of names", "", "déjà 東", "the value of a name is a"]


def model(kind="bpe", task="CausalLM", seed=0, **config):
    tokenizer = zoo.Tokenizer.train(TEXTS, kind=kind, vocabulary_size=400)
    backbone = {"CausalLM": zoo.LlamaBackbone, "Seq2SeqLM": zoo.T5Backbone}[task]
    size = {"vocabulary_size": tokenizer.vocabulary_size, "num_layers": 1, "num_heads": 2, "hidden_dim": 16,
            "intermediate_dim": 32, "eos_token_id": None}  # fmt: skip
    size |= {"decoder_start_token_id": 0, "pad_token_id": 0} if task == "Seq2SeqLM" else {}
    return randomise(getattr(zoo, task)(backbone(**{**size, **config}), tokenizer), seed, 1.0)


@pytest.fixture(scope="module")
def lm():
    return model()


@pytest.fixture(scope="module")
def plain(lm):
    """What 12 tokens at temperature 2 are for each prompt, in one batch."""
    return lm.generate(PROMPTS, 12, samplers.Temperature(2.0), seed=7, details=True)


def test_a_batch_gives_what_each_row_alone_gives(lm, plain):
    parts = lm.generate(PROMPTS, 12, samplers.Temperature(2.0), seed=7, batch_size=2)
    assert parts == [found.text for found in plain]
    assert lm.generate(PROMPTS[0], 12, samplers.Temperature(2.0), seed=7) == parts[0]
    assert lm.generate(PROMPTS[0], 12, samplers.Temperature(2.0), seed=8) != parts[0]
    alone = [lm.generate(prompt, 12) for prompt in PROMPTS]
    assert lm.generate(PROMPTS, 12) == alone == lm.generate(PROMPTS, 12, batch_size=2)


def test_log_probabilities_are_those_of_a_whole_pass(lm, plain):
    for prompt, found in zip(PROMPTS, plain):
        row = lm.tokenizer.encode(prompt) or [lm.tokenizer.bos_id]
        ids = np.array([row + found.token_ids], "int32")
        logits = run(lm, {"token_ids": ids})[0, len(row) - 1 : -1].astype("float64")
        logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        expected = logs[np.arange(len(found.token_ids)), found.token_ids]
        np.testing.assert_allclose(found.log_probabilities, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found.score, expected.sum(), rtol=1e-4)


def test_stops(lm, plain):
    """A text ends before a string that occurs in it, in any batch; before a token; and right away."""
    whole = [found.text[len(prompt) :] for prompt, found in zip(PROMPTS, plain)]
    words = [text[2:4] for text in whole]
    found = lm.generate(PROMPTS, 12, samplers.Temperature(2.0), stop=words, seed=7, echo=False, details=True)
    for result, text, full in zip(found, whole, plain):
        end = min(at for word in words if (at := text.find(word)) >= 0)
        assert result.text == text[:end]
        assert full.token_ids[: len(result.token_ids)] == result.token_ids
    ids = plain[1].token_ids
    arguments = {"max_new_tokens": 12, "sampler": samplers.Temperature(2.0)}
    numbered = lm.generate(PROMPTS[:2], **arguments, stop=ids[4], seed=7, details=True)[1]
    assert numbered.token_ids == ids[: ids.index(ids[4])]
    assert lm.generate(PROMPTS[0], 12, stop=lm.generate(PROMPTS[0], 1, echo=False)) == PROMPTS[0]


@pytest.mark.parametrize("kind", parameters(["bpe", "byte", "unigram", "char", "wordpiece"], ["bpe", "byte"]))
def test_a_stream_is_what_generate_returns(kind):
    """Random weights give characters cut in halves, and bytes that are none."""
    lm = model(kind, seed=3)
    for seed in range(4):
        given = {"max_new_tokens": 24, "sampler": samplers.Temperature(3.0), "seed": seed}
        expected = lm.generate("A list of", **given)
        pieces = list(lm.stream("A list of", **given))
        assert "".join(pieces) == expected
        stop = expected[12:14]
        assert "".join(lm.stream("A list of", **given, stop=[stop])) == lm.generate("A list of", **given, stop=stop)


def test_real_characters_come_whole():
    """Byte tokens of real text, forced one by one, make pieces of whole characters."""
    lm = model("byte")
    text = "déjà 東京 🙂 end"
    ids = lm.tokenizer.encode(text, add_special_tokens=False)
    forced = samplers.Greedy(allowed_tokens=lambda new: [ids[len(new)]])
    pieces = list(lm.stream("A", len(ids), forced, echo=False))
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces) and len(pieces) == len(text)


@pytest.mark.uncompiled
def test_a_callable_forces_labels(lm):
    labels = [lm.tokenizer.encode(text) for text in ("name", "value", "list")]
    end = lm.tokenizer.eos_id

    def allowed(new):
        rest = [label[len(new) :] for label in labels if label[: len(new)] == new]
        return [ids[0] if ids else end for ids in rest]

    for sampler in (samplers.Greedy, samplers.Temperature, lambda **x: samplers.Beam(3, **x)):
        found = lm.generate(PROMPTS, 12, sampler(allowed_tokens=allowed), echo=False)
        assert set(found) <= {"name", "value", "list"}


@pytest.mark.uncompiled
def test_penalties_change_the_text(lm):
    plain = lm.generate(PROMPTS, 24, details=True)
    found = lm.generate(PROMPTS, 24, samplers.Greedy(no_repeat_ngram=2), details=True)
    assert [f.text for f in found] != [p.text for p in plain]
    for prompt, result in zip(PROMPTS, found):
        row = (lm.tokenizer.encode(prompt) or [lm.tokenizer.bos_id]) + result.token_ids
        pairs = list(itertools.pairwise(row))
        begin = len(row) - len(result.token_ids) - 1
        assert all(pair not in pairs[:i] for i, pair in enumerate(pairs) if i >= begin)


def test_edges(lm):
    assert lm.generate(PROMPTS, 0) == PROMPTS
    assert lm.generate([]) == []
    assert "".join(lm.stream("A", 0)) == "A"
    assert lm.generate({"token_ids": np.zeros((0, 3), "int32")}, 4).shape[0] == 0
    short = model(max_sequence_length=8, position="learned", rotary_theta=None)
    with pytest.raises(ValueError, match="The prompt has 9 tokens, the model 8 positions"):
        short.generate("123456789", 4)
    with pytest.warns(UserWarning, match="Only 3 tokens can follow"):
        assert len(short.generate("123456", 9, details=True).token_ids) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens must be an integer of at least 0, got -1"),
        ({"max_new_tokens": 2.5}, "max_new_tokens must be an integer"),
        ({"seed": -1}, "seed must be an integer"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1"),
        ({"stop": [""]}, "stop must hold strings that are not empty"),
        ({"stop": [2.5]}, "stop must hold strings"),
        ({"stop": 4000}, "stop names the token id 4000"),
        ({"sampler": "greedy"}, "sampler must be one of zoo.samplers"),
        ({"sampler": samplers.Greedy(allowed_tokens=[4000])}, "allowed_tokens names the id 4000"),
        ({"prompts": {"token_ids": [[1, 2]], "padding_mask": [[0, 0]]}}, "Row 0 of the prompts holds no token"),
        ({"prompts": {"token_ids": [[1, 2]]}, "stop": "a"}, "need prompts as text"),
    ],
)
def test_nonsense_is_refused(arguments, message, lm):
    with pytest.raises(ValueError, match=message):
        lm.generate(**{"prompts": "A", "max_new_tokens": 2, **arguments})


@pytest.mark.uncompiled
def test_a_beam_streams_in_one_piece(lm):
    beam = samplers.Beam(3)
    assert list(lm.stream("A", 5, beam)) == [lm.generate("A", 5, beam)]
    with pytest.raises(ValueError, match="A stream is one text"):
        list(lm.stream("A", sampler=samplers.Beam(num_returns=2)))


def test_scores_are_those_of_transformers(lm, tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    texts = ["Return the value", "A list of names and values", "déjà"]
    lm.save_to_preset(tmp_path / "decoder")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "decoder").eval()
    for text, found in zip(texts, lm.score(texts, batch_size=2)):
        ids = torch.tensor([lm.tokenizer.encode(text)])
        logs = theirs(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[:, 0]
        np.testing.assert_allclose(found, logs.detach().numpy(), rtol=1e-4, atol=1e-4)
    both = model("unigram", "Seq2SeqLM")
    both.save_to_preset(tmp_path / "both")
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "both").eval()
    for source, target, found in zip(texts, texts[::-1], both.score(texts, texts[::-1], batch_size=2)):
        source, target = (torch.tensor([both.tokenizer.encode(text)]) for text in (source, target))
        logs = theirs(input_ids=source, labels=target).logits.log_softmax(-1)[0].gather(1, target[0][:, None])[:, 0]
        np.testing.assert_allclose(found, logs.detach().numpy(), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="1 sources do not go with 2 targets"):
        both.score("a", ["b", "c"])


@pytest.mark.uncompiled
def test_several_returns_of_a_beam(lm):
    found = lm.generate(PROMPTS[:2], 5, samplers.Beam(4, num_returns=3), details=True)
    assert [len(texts) for texts in found] == [3, 3]
    for texts in found:
        assert sorted(texts, key=lambda text: -text.score) == texts
        for text in texts:
            np.testing.assert_allclose(np.mean(text.log_probabilities), text.score, rtol=1e-4)
    assert lm.generate(PROMPTS[0], 5, samplers.Beam(4, num_returns=3)) == [text.text for text in found[0]]


@pytest.mark.uncompiled
def test_generation_config_is_honoured_and_kept(tmp_path):
    lm = model("unigram", "Seq2SeqLM")
    said = {"num_beams": 3, "length_penalty": 2.0, "no_repeat_ngram_size": 2, "max_length": 9, "eos_token_id": [1, 7],
            "forced_bos_token_id": 11, "forced_eos_token_id": 1, "bad_words_ids": [[12]], "min_length": 3}  # fmt: skip
    lm.save_to_preset(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps(said))
    again = zoo.Seq2SeqLM.from_preset(tmp_path)
    beam = samplers.Beam(3, length_penalty=2.0, no_repeat_ngram=2, first_token=11, last_token=1, min_new_tokens=2,
                         logit_bias={12: -np.inf})  # fmt: skip
    found = again.generate(TEXTS[:2], details=True)
    assert all(result.token_ids[0] == 11 and len(result.token_ids) <= 8 for result in found)
    assert [f.text for f in found] == lm.generate(TEXTS[:2], 8, beam, stop=7)
    again.save_to_preset(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "generation_config.json").read_text()) == said
    again.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").generation_config == said
    lm.save_to_preset(tmp_path)
    assert not (tmp_path / "generation_config.json").exists()


def test_generation_config_of_samplers(tmp_path):
    from zoo.generation.settings import read

    said = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.1,
            "eos_token_id": 2, "max_new_tokens": 5, "guidance_scale": 1.5}  # fmt: skip
    settings = read(said, False)
    assert settings.sampler == samplers.Sampler(0.6, 20, 0.9, repetition_penalty=1.1)
    assert (settings.max_new_tokens, settings.stop_ids, settings.ignored) == (5, (2,), ("guidance_scale",))
    lm = model(seed=1)
    warned = zoo.CausalLM(lm.backbone, lm.tokenizer, generation_config=said)
    with pytest.warns(UserWarning, match="generation_config.json sets guidance_scale"):
        assert len(warned.generate("A", details=True).token_ids) <= 5
    for wrong in ({"temperature": -1, "do_sample": True}, {"top_k": "a", "do_sample": True}, {"bad_words_ids": 3}):
        with pytest.raises(ValueError, match=r"generation_config\.json: "):
            read(wrong, False)
