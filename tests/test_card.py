"""Uploads to the Hub, and the card that goes with them, against the server of `tests.hub`."""

import re

import pytest

import zoo
from tests.hub import Hub
from tests.models import TINY
from zoo import card

PUSH = """
import sys
import numpy as np
import zoo
lm = zoo.CausalLM.from_preset(sys.argv[1])
try:
    print(lm.push_to_hub("owner/mine", base_model="gpt2", dtype="bfloat16", max_shard_size=20_000))
    again = zoo.CausalLM.from_preset("hf://owner/mine", dtype="float32")
    x = {"token_ids": np.array([[3, 1, 4, 1, 5]])}
    print(float(abs(np.asarray(lm(x)) - np.asarray(again(x))).max() / abs(np.asarray(lm(x))).max()))
    print(lm.tokenizer.encode("to be") == again.tokenizer.encode("to be"))
except ValueError as error:
    print("ValueError", error)
"""


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    path = tmp_path_factory.mktemp("card") / "preset"
    tokenizer = zoo.Tokenizer.train(["to be or not to be"], kind="char")
    zoo.CausalLM(zoo.GPTBackbone(**{**TINY, "num_layers": 2}), tokenizer).save_to_preset(path)
    return path


@pytest.fixture
def server():
    hub = Hub({})
    yield hub
    hub.close()


def front_matter(text):
    """The YAML between the dashes, for the few forms that the card uses."""
    lines = re.match(r"---\n(.*?)\n---\n", text, re.S)[1].split("\n")
    found, key = {}, None
    for line in lines:
        if line.startswith("- "):
            found[key].append(line[2:])
        else:
            key, _, value = line.partition(":")
            found[key] = value.strip() or []
    return found


def test_what_is_pushed_comes_back(preset, server, tmp_path):
    said = server.run(tmp_path, PUSH, preset, HF_TOKEN="hf_secret", KERAS_BACKEND="jax").splitlines()
    assert said[0].startswith(f"{server.address}/owner/mine/commit/")
    assert float(said[1]) < 0.02 and said[2] == "True"  # bfloat16 keeps 8 bits
    files = server.files["owner/mine", server.commits["owner/mine", "main"]]
    assert {"README.md", "config.json", "tokenizer.json", "model.safetensors.index.json"} <= files.keys()
    text = files["README.md"].decode()
    assert front_matter(text) == {"library_name": "keras", "tags": ["zoo", "gpt2"], "pipeline_tag": "text-generation",
                                  "license": "mit", "base_model": "openai-community/gpt2"}  # fmt: skip
    assert 'CausalLM.from_preset("hf://owner/mine")' in text and "import AutoTokenizer, GPT2LMHeadModel" in text


def test_without_a_token_the_reason_is_told(preset, server, tmp_path):
    said = server.run(tmp_path, PUSH, preset, KERAS_BACKEND="jax", HF_TOKEN="")
    assert said.startswith("ValueError owner/mine at http://127.0.0.1") and "401" in said


@pytest.mark.parametrize(("task", "backbone", "cls"), [
    ("CausalLM", "LlamaBackbone", "LlamaForCausalLM"), ("MaskedLM", "BERTBackbone", "BertForMaskedLM"),
    ("Seq2SeqLM", "T5Backbone", "T5ForConditionalGeneration"), ("TextClassifier", "BERTBackbone", "BertForSeq"),
    ("Backbone", "BERTBackbone", "BertModel"),
])  # fmt: skip
def test_the_code_on_a_card_runs(tmp_path, task, backbone, cls):
    """Every block of Python on a card, with the name of the repository replaced by the directory it came from."""
    extra = {"decoder_start_token_id": 0} if task == "Seq2SeqLM" else {}
    kind = {"CausalLM": "bpe", "Seq2SeqLM": "unigram"}.get(task, "wordpiece")
    tokenizer = zoo.Tokenizer.train(["a text, another, and more of it"] * 20, kind=kind, vocabulary_size=300)
    size = {"vocabulary_size": tokenizer.vocabulary_size, "max_sequence_length": 64}
    model = getattr(zoo, backbone)(**{**TINY, **size, **extra})
    if task == "Backbone":
        model.save_to_preset(tmp_path, tokenizer)
    else:
        settings = {"num_classes": 2} if task == "TextClassifier" else {}
        getattr(zoo, task)(model, tokenizer, **settings).save_to_preset(tmp_path)
    card.write(tmp_path, "owner/mine", backbone if task == "Backbone" else task, license="mit")
    text = (tmp_path / "README.md").read_text()
    assert cls in text and front_matter(text)["license"] == "mit" and "base_model" not in front_matter(text)
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(blocks) == 2
    for block in blocks:
        exec(block.replace("hf://owner/mine", str(tmp_path)).replace("owner/mine", str(tmp_path)), {})


def test_a_card_of_ones_own_stays(preset, tmp_path):
    (preset / "README.md").write_text("mine")
    card.write(preset, "owner/mine", "CausalLM")
    assert (preset / "README.md").read_text() == "mine"
    (preset / "README.md").unlink()
