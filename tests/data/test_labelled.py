"""Labelled sets: they read as the docstrings they are from, and no first line is in two splits."""

import collections
import re

import pytest

from zoo import data
from zoo.data.prose import docstrings

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def originals():
    return {text: module for module, _, text in docstrings()}


def rows(name):
    """(split, x, y) of a set; x of pairs as tuples."""
    found = data.labelled(name)
    for split in SPLITS:
        x, y = getattr(found, split)
        for one, label in zip(zip(*x) if isinstance(x, tuple) else x, y, strict=True):
            yield split, one, label


@pytest.mark.parametrize("name, first", [("modules", lambda x: x.split("\n")[0]), ("pairs", lambda x: x[0])])
def test_splits_share_no_first_line(name, first):
    of = collections.defaultdict(set)
    counts = collections.Counter()
    for split, x, _ in rows(name):
        of[" ".join(first(x).split())].add(split)
        counts[split] += 1
    assert all(len(splits) == 1 for splits in of.values())
    share = [counts[split] / counts.total() for split in SPLITS]
    assert share == pytest.approx([0.8, 0.1, 0.1], abs=0.03)


def test_modules_are_those_of_the_texts(originals):
    modules = data.labelled("modules")
    assert modules.labels == tuple(sorted(set(modules.train[1])))
    assert {"asyncio", "numpy", "keras"} <= set(modules.labels)
    assert set(modules.validation[1]) <= set(modules.labels)
    known = {("".join(text.split()), module.split(".")[0]) for text, module in originals.items()}
    for _, text, label in rows("modules"):
        assert ("".join(text.split()), label) in known


def test_summaries_and_bodies_make_the_docstring(originals):
    known = {"".join(text.split()) for text in originals}
    count = 0
    for _, body, line in rows("summaries"):
        assert "".join(f"{line}{body}".split()) in known and "\n" not in line and len(body.split()) >= 20
        count += 1
    assert count > 2000


def test_half_of_the_pairs_belong_together(originals):
    known = {"".join(text.split()) for text in originals}
    labels = []
    for _, (line, body), label in rows("pairs"):
        assert ("".join(f"{line}{body}".split()) in known) == label
        labels.append(label)
    assert sum(labels) / len(labels) == pytest.approx(0.5, abs=0.01)


def test_names_were_in_backquotes(originals):
    quoted = {name for text in originals for name in re.findall(r"`([^\s`]+)`", text)}
    tags = collections.Counter()
    for _, words, marks in rows("names"):
        assert len(words) == len(marks) and "NAME" in marks and not any("`" in word or " " in word for word in words)
        for word, mark in zip(words, marks):
            tags[mark] += 1
            assert mark == "O" or word in quoted
    assert 0.02 < tags["NAME"] / tags.total() < 0.3 and tags.total() > 20_000


def test_they_are_the_same_each_time_and_an_unknown_one_is_refused():
    assert data.labelled("summaries") == data.labelled("summaries")
    with pytest.raises(ValueError, match="no labelled set 'topics'; there are modules, summaries, pairs, names"):
        data.labelled("topics")
