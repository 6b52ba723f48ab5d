"""Text and trained tokenizers that the tests of this folder share."""

import os
from pydoc_data.topics import topics

import pytest

from zoo.tokenizers import Tokenizer

KINDS = ("bpe", "wordpiece", "unigram", "char")
ODD = [  # ligatures, full-width and combined letters, emoji, white space of all sorts
    "",
    "  ",
    " a  b ",
    "ﬁne café №5 ½ \u200b x\u00a0y\tz",
    "a 🙂 b",
    "\u3000全角ＡＢＣ　空格",
    "x\ny\r\n z",
    "e\u0301 ǅ ß",
]


@pytest.fixture(scope="session")
def prose():
    """English documents that every Python carries."""
    return list(topics.values())[:45]


@pytest.fixture(scope="session")
def trained(prose):
    """A tokenizer of each kind."""
    return {kind: Tokenizer.train(prose, kind, 1500) for kind in KINDS}


@pytest.fixture(scope="session")
def lines(shared_data):
    """As many real lines as ZOO_TEST_LINES says, English and Chinese, and odd ones."""
    found, total = list(ODD), int(os.environ.get("ZOO_TEST_LINES", 200))
    for name, percent in (("wikitext-2/valid.txt", 30), ("gutenberg/2701-0.txt", 20), ("zh-classics/红楼梦.txt", 35),
                          ("chnsenticorp/ChnSentiCorp_htl_all.csv", 15)):  # fmt: skip
        text, count = (shared_data / name).read_text(encoding="utf-8").split("\n"), total * percent // 100
        text = [line for line in text if line.strip()]
        found += text[:: len(text) // count][:count]
    assert len(found) == total + len(ODD)
    return found
