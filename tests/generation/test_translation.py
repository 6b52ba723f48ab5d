"""Summaries and translations against `transformers`, whose `generate` is given the prefixes and tokens by hand."""

import json

import keras
import numpy as np
import pytest

import zoo
from tests.generation.test_text import TEXTS, model
from tests.models import randomise
from zoo import samplers

pytestmark = pytest.mark.uncompiled
TEXT = ["Return the value.", "A list of names and values."]
PARAMETERS = {
    "summarization": {"prefix": "summarize: ", "num_beams": 3, "length_penalty": 2.0, "max_length": 9, "min_length": 4,
                      "no_repeat_ngram_size": 2, "early_stopping": True},
    "translation_en_to_de": {"prefix": "translate English to German: ", "max_length": 8, "num_beams": 2},
}  # fmt: skip


def theirs_of(path, texts, **arguments):
    """The texts that their model generates from their tokenizer's ids."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.set_num_threads(1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    lm = transformers.AutoModelForSeq2SeqLM.from_pretrained(path).eval()
    if "src_lang" in arguments:
        tokenizer.src_lang = arguments.pop("src_lang")
    out = []
    for text in texts:
        ids = tokenizer(text, return_tensors="pt")
        out += lm.generate(input_ids=ids.input_ids, attention_mask=ids.attention_mask, do_sample=False, **arguments)
    return [tokenizer.decode(ids, skip_special_tokens=True) for ids in out]


def test_t5_is_asked_with_its_prefixes(tmp_path):
    lm = model("unigram", "Seq2SeqLM", seed=2, eos_token_id=1)
    lm = zoo.Seq2SeqLM(lm.backbone, lm.tokenizer, task_specific_params=PARAMETERS)
    lm.save_to_preset(tmp_path / "t5")
    assert json.loads((tmp_path / "t5" / "config.json").read_text())["task_specific_params"] == PARAMETERS
    for again in (zoo.Seq2SeqLM.from_preset(tmp_path / "t5"), lm):
        for found, key in ((again.summarize(TEXT), "summarization"),
                           (again.translate(TEXT, source="en", target="de"), "translation_en_to_de")):  # fmt: skip
            given = dict(PARAMETERS[key])
            prefix = given.pop("prefix")
            assert found == theirs_of(tmp_path / "t5", [prefix + text for text in TEXT], **given)
    assert lm.summarize(TEXT[0]) == lm.summarize(TEXT)[0]
    assert lm.summarize(TEXT[0], sampler=samplers.Greedy(), max_new_tokens=5) == lm.generate(
        f"summarize: {TEXT[0]}", 5, samplers.Greedy()
    )
    with pytest.raises(ValueError, match="No translation from 'en' to 'fr'; this model has source='en', target='de'"):
        lm.translate(TEXT, source="en", target="fr")
    lm.save(tmp_path / "lm.keras")
    assert keras.models.load_model(tmp_path / "lm.keras").task_specific_params == PARAMETERS


@pytest.fixture(scope="module", params=["MBartTokenizer", "MBart50Tokenizer"])
def mbart(request, tmp_path_factory):
    """A directory with a tiny mBART, its files as theirs write them; the language comes last, or first."""
    transformers = pytest.importorskip("transformers")
    path = tmp_path_factory.mktemp(request.param)
    pieces = [(f"▁{word}", -2.0) for word in " ".join(TEXTS).split()[:12]] + [
        (c, -4.0) for c in "▁abcdefghilmnorstuvz."
    ]
    specials = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    kind = getattr(transformers, request.param)
    vocabulary = list(dict((*specials, *pieces)).items())
    theirs = kind(vocab=vocabulary, src_lang="en_XX", tgt_lang="de_DE")
    theirs.save_pretrained(path)
    ours = zoo.Tokenizer.from_preset(path)
    backbone = zoo.MBARTBackbone(vocabulary_size=ours.vocabulary_size, num_layers=1, num_heads=2, hidden_dim=16,
                                 intermediate_dim=32, max_sequence_length=64, decoder_start_token_id=2,
                                 pad_token_id=1, bos_token_id=0, eos_token_id=2)  # fmt: skip
    randomise(zoo.Seq2SeqLM(backbone), 4, 1.0).save_to_preset(path / "model")
    theirs.save_pretrained(path / "model")
    return path / "model", request.param == "MBart50Tokenizer"


def test_mbart_is_asked_with_its_languages(mbart):
    path, first = mbart
    lm = zoo.Seq2SeqLM.from_preset(path)
    for source, target in (("en_XX", "de_DE"), ("fr_XX", "ro_RO")):
        key = "forced_bos_token_id" if first else "decoder_start_token_id"
        given = {"src_lang": source, key: lm.tokenizer.token_to_id(target), "max_new_tokens": 9}
        expected = theirs_of(path, TEXT, **given)
        assert lm.translate(TEXT, source=source, target=target, max_new_tokens=9) == expected
        greedy = samplers.Greedy()
        assert lm.translate(TEXT, source=source, target=target, max_new_tokens=9, sampler=greedy) == expected
    results = lm.translate(TEXT, source="fr_XX", target="ro_RO", max_new_tokens=3, details=True)
    assert all((lm.tokenizer.token_to_id("ro_RO") in found.token_ids) == first for found in results)
    with pytest.raises(ValueError, match=r"target='German' is no language of this model; it has .*de_DE"):
        lm.translate(TEXT, source="en_XX", target="German")
    with pytest.raises(ValueError, match="source=None is no language"):
        lm.translate(TEXT, target="de_DE")


def test_a_model_of_one_pair_is_asked_plainly():
    lm = model("unigram", "Seq2SeqLM")
    assert lm.translate(TEXT, max_new_tokens=6) == lm.generate(TEXT, 6) == lm.summarize(TEXT, max_new_tokens=6)
    with pytest.raises(ValueError, match="name no languages: leave source and target out"):
        lm.translate(TEXT, target="de")


def test_changes_to_generation_config_are_for_one_call():
    lm = model("unigram", "Seq2SeqLM")
    changes = {"num_beams": 2, "max_new_tokens": 5, "decoder_start_token_id": 7}
    ids = lm.tokenizer.batch(TEXT)
    beam = lm.generate({**ids, "decoder_token_ids": np.full((2, 1), 7)}, 5, samplers.Beam(2))
    np.testing.assert_array_equal(lm.generate(ids, generation_config=changes), beam)
    assert lm.generation_config is None
    with pytest.raises(ValueError, match=r"generation_config\.json: "):
        lm.generate(TEXT, generation_config={"num_beams": "two"})
