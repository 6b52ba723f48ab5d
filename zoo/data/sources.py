"""Where documents come from: files, directories, globs, iterables of strings or records, and `pydocs`.

A source iterates over documents (`str`) and has a `fingerprint`: the hash by which a token store made from it is known
again, or None where the documents can be read only once. It knows nothing of tokens, splits or models.
"""

import glob
import itertools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from zoo.data.files import BROKEN, READERS, Files, digest, kind
from zoo.data.prose import PyDocs

SPLITS = (None, "line", "blank")


def open(spec, split=None, field="text", broken="fail"):
    """The source that `spec` names.

    Args:
        spec: a source; `"pydocs"`; a file, a directory (all files in it that can be read, sorted) or a glob; a list or
            tuple of these; or any other iterable of strings or of records (dictionaries), such as a Hugging Face
            `datasets.Dataset`, taken as the documents themselves. Files are text (.txt, .text, .md, .rst), JSON lines
            (.jsonl, .ndjson), .csv and .tsv with a line of names, and .parquet; all but the last also with .gz or
            .zst behind it. Parquet and .zst need the extra `parquet`.
        split: how a text file falls into documents: None = one document a file, "line" = one a line, "blank" =
            paragraphs between blank lines.
        field: the key of the text in a record: of a JSON line, a table, a dataset.
        broken: what becomes of a line that is no JSON, or of a record without text: "fail" or "skip". Either way the
            file and the line are named (the first ten that are skipped).

    Returns: an iterable of documents with a `fingerprint`.

    Raises: ValueError for a name that is nothing, TypeError for what is no source. Files are read on iteration.

    >>> [text.split()[0] for text in open(iter(["To be", "or not"]))]
    ['To', 'or']
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is none of {', '.join(map(repr, SPLITS))}.")
    if broken not in BROKEN:
        raise ValueError(f"broken={broken!r} is none of {', '.join(map(repr, BROKEN))}.")
    if isinstance(spec, (Texts, Files, PyDocs, Chain)):
        return spec
    if isinstance(spec, (str, Path)):
        return PyDocs() if spec == "pydocs" else Files(_find(spec), split, field, broken)
    if isinstance(spec, (list, tuple)):
        return Chain([open(one, split, field, broken) for one in spec])
    if isinstance(spec, Mapping):
        raise TypeError(f"A {type(spec).__name__} of {sorted(spec)} is no source of text: choose one of its parts.")
    if isinstance(spec, Iterable) and not isinstance(spec, bytes):
        return Texts(spec, field)
    raise TypeError(f"{type(spec).__name__} is no source of text: give a file, a directory, 'pydocs' or strings.")


def texts(documents):
    """Documents given as strings: `texts(["To be", "or not"])`, where a bare list would be read as file names."""
    return Texts(documents)


class Texts:
    """An iterable of strings or of records. A list, tuple or `datasets.Dataset` has a fingerprint.

    Anything else may be readable only once: it has none.
    """

    def __init__(self, documents, field="text"):
        if isinstance(documents, str):
            raise TypeError("texts() takes an iterable of documents, not one string: texts([text]).")
        self.documents, self.field = documents, field

    @property
    def fingerprint(self):
        known = getattr(self.documents, "_fingerprint", None)  # what `datasets` itself names its cache by
        if known is not None:
            return digest([str(known).encode(), b"\0", self.field.encode()])
        if not isinstance(self.documents, (list, tuple)):
            return None
        return digest(part for text in self for part in itertools.chain(_encoded(text), [b"\0"]))

    def __iter__(self):
        for index, text in enumerate(self.documents):
            if isinstance(text, Mapping):
                if self.field not in text:
                    raise ValueError(f"Record {index} has no {self.field!r}, only {sorted(text)}: name it with field=.")
                text = text[self.field]
            if not isinstance(text, str):
                raise ValueError(f"Document {index} of the iterable is a {type(text).__name__}, not a string.")
            yield text


class Chain:
    """Several sources, one after the other."""

    def __init__(self, sources):
        self.sources = sources

    @property
    def fingerprint(self):
        parts = [source.fingerprint for source in self.sources]
        return None if None in parts else digest(part.encode() for part in parts)

    @property
    def skipped(self):
        """Broken lines skipped by the newest reading."""
        return sum(getattr(source, "skipped", 0) for source in self.sources)

    def __iter__(self):
        for source in self.sources:
            yield from source


def _find(spec):
    path = Path(spec)
    if os.path.isdir(path):  # unlike Path.is_dir, False for what cannot be a name
        paths = sorted(one for one in path.rglob("*") if kind(one) in READERS and one.is_file())
        if not paths:
            raise ValueError(f"{path} holds no {', '.join(READERS)} file: name the files or a glob.")
        return paths
    if os.path.isfile(path):
        return [path]
    paths = sorted(one for one in map(Path, glob.glob(str(spec), recursive=True)) if one.is_file())
    if not paths:
        raise ValueError(
            f"{str(spec)[:80]!r} is neither 'pydocs' nor an existing file, directory or glob; "
            "documents themselves are given as zoo.data.texts([...])."
        )
    return paths


def _encoded(text):
    """The bytes of a text, in slices: a long one is not in memory twice."""
    for start in range(0, len(text), 1 << 20):
        yield text[start : start + (1 << 20)].encode("utf-8", "surrogatepass")
