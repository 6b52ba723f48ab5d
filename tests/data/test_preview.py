"""preview: what it prints is the text of the batch, marked where the model is asked."""

import io
import re

import numpy as np
import pytest

from zoo import data
from zoo.data.rows import Rows
from zoo.tokenizers import Tokenizer

TEXT = "the cat sat on the mat . the dog ran to the cat ."


@pytest.fixture(scope="module")
def words():
    return Tokenizer.train([TEXT] * 5, kind="wordpiece", vocabulary_size=80)


def packed(tokenizer, length):
    one, two = (tokenizer.encode(text, add_special_tokens=False) for text in (TEXT, "the dog sat ."))
    ids = np.array([one + two + [0] * length], "int32")[:, :length]
    segments = np.array([[1] * len(one) + [2] * len(two) + [0] * length], "int32")[:, :length]
    return Rows(ids, segments, segments * 0)


def shown(tokenizer, objective, length=30, **options):
    objective.add_tokens(tokenizer, length)
    bound = objective.bind(tokenizer, length)
    batch = bound(packed(tokenizer, bound.row_length), np.random.default_rng(3))
    out = io.StringIO()
    text = data.preview(batch, tokenizer, file=out, **options)
    assert out.getvalue() == text + "\n"
    return dict(re.findall(r"^(\w[\w ]*): +(.*)$", text, re.MULTILINE)), text


def plain(line):
    return line.replace(" ┃ ", " ").split()


def test_masks_show_what_is_wanted_and_give_the_text_back(words):
    lines, text = shown(words, data.MaskedLM(rate=0.3))
    assert lines["row 0"] == "30 places, 2 documents, 40% padding"
    marks = re.findall(r"«(\S+) → (\S+)»", lines["input"])
    assert len(marks) == round(0.3 * len(plain(TEXT + " the dog sat .")))
    restored = re.sub(r"«\S+ → (\S+)»", r"\1", lines["input"])
    assert "".join(plain(restored)) == "".join(f"{TEXT} the dog sat .".split()) and lines["input"].count("┃") == 1
    assert "\033[" not in text


def test_colours_wrap_the_same_text(words):
    _, coloured = shown(words, data.MaskedLM(rate=0.3), color=True)
    _, bare = shown(words, data.MaskedLM(rate=0.3), color=False)
    assert re.sub(r"\033\[[\d;]*m", "", coloured) == re.sub("[«»]", "", bare)
    assert coloured.count("\033[31m") == bare.count("«") and coloured.count("\033[36;1m") == bare.count("┃")


def test_targets_of_decoders_and_encoder_decoders(words):
    lines, _ = shown(words, data.CausalLM())
    text = "".join(plain(lines["input"]))
    assert "".join(plain(lines["target"])) == text.removeprefix("the").replace(".thedogsat", ".dogsat")
    lines, _ = shown(words, data.PrefixLM())
    read, target = lines["reads"], lines["target"]
    assert target.endswith("[SEP]") and target.count("┃") == 1
    for reads, says in zip(read.split("┃"), target.split("┃"), strict=True):  # moved by one, behind the start token
        reads, says = ("".join(side.split()) for side in (reads, says))
        assert reads.startswith("[PAD]") and says.startswith(reads.removeprefix("[PAD]")) and len(reads) > 5


def test_labels_pairs_replacements_and_orders(words):
    lines, _ = shown(words, data.NextSentence(), 14)
    assert lines["label"] in ("0", "1") and lines["input"].count("[SEP]") == 2
    lines, _ = shown(words, data.Contrastive(), 14)
    assert lines["text 1"] == lines["text 2"] and lines["label"] == "1"
    lines, _ = shown(words, data.ReplacedTokenDetection(rate=0.3))
    assert 1 <= lines["input"].count("<") <= 5 and "target" not in lines
    lines, _ = shown(words, data.PermutationLM(longest=2))
    assert re.fullmatch(r"\[\d+(, \d+)*\]", lines["order"])


def test_a_loader_brings_its_tokenizer(words, capsys):
    loader = data.pretraining(data.texts([TEXT] * 40), words, data.MaskedLM(), 16, 4, progress=False)
    text = data.preview(loader, rows=3)
    assert capsys.readouterr().out == text + "\n" and "row 2:" in text and "row 3:" not in text
    with pytest.raises(ValueError, match="needs a tokenizer"):
        data.preview(loader.batch(0))
    with pytest.raises(ValueError, match="takes a loader or a batch"):
        data.preview(loader.batch(0)[0], words)
