"""Labelled sets out of the prose that every installation carries, for fine-tuning without a download.

Four tasks on the documents of `zoo.data.prose`, in the shape that the tasks' `fit` takes. The splits are fixed: which
one a document is in follows from its first line alone. It knows nothing of tokens and models.
"""

import collections
import dataclasses
import functools
import hashlib
import re

from zoo.data.prose import docstrings

SPLITS = ("train", "validation", "test")
SMALLEST = 40  # documents that a module must have to be a class
_NAME = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*(?:\(\))?")
_WORD = re.compile(r"(?::[\w:]+:)?(`+)([^`]+)\1|([^\W_]\w*(?:[.'-]\w+)*|\w+)|([^\w\s`])")


@dataclasses.dataclass(frozen=True)
class Labelled:
    """A labelled set. `train`, `validation` and `test` are pairs (x, y) for `fit`; `labels` names the classes."""

    train: tuple
    validation: tuple
    test: tuple
    labels: tuple = ()


def labelled(name):
    """A labelled set made of the docstrings of Python, numpy and keras.

    Args:
        name: which set:
            "modules": x, docstrings; y, the package each is from, one of `labels` (classification).
            "summaries": x, docstrings without their first line; y, that line (summarisation).
            "pairs": x, (first lines, bodies); y, 1 where they belong together and 0 where the body is another's, each
                half of the time (pairs of texts).
            "names": x, paragraphs as lists of words; y, lists of "NAME" for words that were set in backquotes, as names
                of code are, and "O" for others (tagging). The backquotes are gone.

    Returns: a `Labelled`. About 80 % of the documents are in `train`, 10 % in each of the others, and documents with
        the same first line are in the same one. Sizes depend on the installed versions.

    Raises: ValueError for an unknown name.

    >>> from zoo import data
    >>> modules = data.labelled("modules")
    >>> texts, packages = modules.train
    >>> len(texts) == len(packages) > 5000, {"asyncio", "keras", "numpy"} <= set(modules.labels)
    (True, True)

    With a backbone and a tokenizer: `TextClassifier(backbone, tokenizer, labels=modules.labels).fit(*modules.train,
    validation_data=modules.validation)`.
    """
    if name not in _SETS:
        raise ValueError(f"There is no labelled set {name!r}; there are {', '.join(_SETS)}.")
    return _SETS[name]()


@functools.cache
def _documents():
    """(split, module, first line, body) of each document; the split is an index of SPLITS."""
    found = []
    for module, _, text in docstrings():
        first, _, body = text.partition("\n")
        tenth = hashlib.sha256(" ".join(first.split()).encode()).digest()[0] * 10 // 256
        found.append((max(0, 2 - tenth), module, first.strip(), body))
    return tuple(found)


def _in_splits(examples, labels=()):
    """`Labelled` of (split, x, y)."""
    parts = {split: ([], []) for split in SPLITS}
    for key, *example in examples:
        for column, value in zip(parts[SPLITS[key]], example):
            column.append(value)
    return Labelled(**parts, labels=labels)


def _modules():
    documents = [(key, f"{first}\n{body}".strip(), module.split(".")[0]) for key, module, first, body in _documents()]
    counts = collections.Counter(package for _, _, package in documents)
    labels = tuple(sorted(package for package, count in counts.items() if count >= SMALLEST))
    return _in_splits((one for one in documents if one[2] in labels), labels)


def _with_bodies():
    """(split, first line, body) of the documents that begin with a line of its own and have twenty words below it."""
    for key, _, first, body in _documents():
        if body.startswith("\n") and len(first.split()) >= 3 and len(body.split()) >= 20:
            yield key, first, body.strip("\n")


def _summaries():
    return _in_splits((key, body, first) for key, first, body in _with_bodies())


def _pairs():
    splits = collections.defaultdict(list)
    for key, first, body in _with_bodies():
        splits[key].append((first, body))
    examples = []
    for key, texts in splits.items():
        texts.sort(key=lambda text: hashlib.sha256(text[1].encode()).digest())  # so that neighbours are strangers
        for i, (first, body) in enumerate(texts):
            if i % 2:  # the body of the next text that begins otherwise
                body = next(other for line, other in texts[i + 1 :] + texts[:i] if line != first and other != body)
            examples.append((key, (first, body), 1 - i % 2))
    whole = _in_splits(examples, ("other", "own"))
    sides = {name: tuple(map(list, zip(*getattr(whole, name)[0]))) for name in SPLITS}
    return dataclasses.replace(whole, **{name: (x, getattr(whole, name)[1]) for name, x in sides.items()})


def _names():
    found = ((key, _tagged(part)) for key, _, first, body in _documents() for part in _paragraphs(f"{first}\n{body}"))
    return _in_splits(((key, *tagged) for key, tagged in found if tagged), ("O", "NAME"))


def _paragraphs(text):
    """Paragraphs of prose: no indented ones, no code, no tables."""
    for part in re.split(r"\n\s*\n", text):
        if not re.search(r"^(\s|>>>|\.\. |[-=]{3,}|.*::$)", part, re.MULTILINE):
            yield part


def _tagged(paragraph):
    """Words and tags; None without a name, and where something else than a name is in backquotes."""
    words, tags = [], []
    for match in _WORD.finditer(paragraph):
        quoted, plain = match[2], match[3] or match[4]
        if quoted is not None and not _NAME.fullmatch(quoted):
            return None
        words.append(quoted or plain)
        tags.append("O" if quoted is None else "NAME")
    return (words, tags) if "NAME" in tags and len(words) >= 5 else None


_SETS = {"modules": _modules, "summaries": _summaries, "pairs": _pairs, "names": _names}
