"""Real weights that write: a Llama of 260,000 parameters, trained on TinyStories, continues the empty text."""

import re
import struct

import keras
import numpy as np
import pytest

import zoo

pytestmark = [
    pytest.mark.backends,
    pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="minutes of XLA"),
]
COUNT = 200
# What llama2.c's own test expects of these weights at temperature 0.
OPENING = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a "
    "big, red ball. She wanted to play with it, but it was too high."
)


@pytest.fixture(scope="module")
def stories(shared_data):
    return shared_data / "weights" / "stories260K"


@pytest.fixture(scope="module")
def written(stories):
    """The tokens after the first, <s>."""
    lm = zoo.CausalLM.from_preset(stories)
    return lm.generate({"token_ids": np.array([[1]])}, max_new_tokens=COUNT)[0, 1:].tolist()


def pieces(path):
    """The texts of the tokens, from llama2.c's file: the longest's length; of each its score, length and bytes."""
    data, at, found = path.read_bytes(), 4, []
    while at < len(data):
        size = struct.unpack_from("<fi", data, at)[1]
        found.append(data[at + 8 : at + 8 + size].decode("utf-8", "replace"))
        at += 8 + size
    return [re.sub("<0x(..)>", lambda byte: chr(int(byte[1], 16)), piece) for piece in found]


def test_greedy_continuation_equals_transformers(stories, written):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    theirs = transformers.LlamaForCausalLM.from_pretrained(stories)
    out = theirs.generate(torch.tensor([[1]]), max_new_tokens=COUNT, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert written == out[0, 1:].tolist() and len(written) == COUNT


def test_the_continuation_is_the_english_that_is_known(stories, written, shared_data):
    table = pieces(stories / "tok512.bin")
    assert len(table) == 512
    text = "".join(table[i] for i in written).strip()
    assert text.startswith(OPENING)
    book = (shared_data / "gutenberg" / "1023.txt").read_text(encoding="utf-8").lower()
    known = set(re.findall("[a-z]+", book)) | {"lily"}
    words = re.findall("[a-z]+", text.lower())[:-1]  # the last may be cut
    assert len(words) > 90 and len([word for word in words if word in known]) > 0.97 * len(words)
