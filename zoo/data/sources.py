"""Where documents come from: files, JSON lines, directories, iterables of strings, and `pydocs`.

A source iterates over documents (`str`) and has a `fingerprint`: the hash by which a token store made from it is known
again, or None where the documents can be read only once. It knows nothing of tokens, splits or models.
"""

import glob
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from zoo.data.prose import PyDocs

JSON_SUFFIXES = (".jsonl", ".ndjson")
TEXT_SUFFIXES = (".txt", ".text", ".md", ".rst", *JSON_SUFFIXES)
SPLITS = (None, "line", "blank")


def open(spec, split=None, field="text"):
    """The source that `spec` names.

    Args:
        spec: a source; `"pydocs"`; a file, a directory (its .txt, .text, .md, .rst, .jsonl and .ndjson files, sorted)
            or a glob; a list or tuple of these; or any other iterable of strings, taken as the documents themselves.
        split: how a text file falls into documents: None = one document a file, "line" = one a line, "blank" =
            paragraphs between blank lines.
        field: the key of the text in a JSON line.

    Returns: an iterable of documents with a `fingerprint`.

    Raises: ValueError for a name that is nothing, TypeError for what is no source. Files are read on iteration.

    >>> [text.split()[0] for text in open(iter(["To be", "or not"]))]
    ['To', 'or']
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is none of {', '.join(map(repr, SPLITS))}.")
    if isinstance(spec, (Texts, Files, PyDocs, Chain)):
        return spec
    if isinstance(spec, (str, Path)):
        return PyDocs() if spec == "pydocs" else Files(_find(spec), split, field)
    if isinstance(spec, (list, tuple)):
        return Chain([open(one, split, field) for one in spec])
    if isinstance(spec, Iterable) and not isinstance(spec, (bytes, dict)):
        return Texts(spec)
    raise TypeError(f"{type(spec).__name__} is no source of text: give a file, a directory, 'pydocs' or strings.")


def texts(documents):
    """Documents given as strings: `texts(["To be", "or not"])`, where a bare list would be read as file names."""
    return Texts(documents)


class Texts:
    """An iterable of strings. A list or tuple has a fingerprint; anything else may be readable only once: none."""

    def __init__(self, documents):
        if isinstance(documents, str):
            raise TypeError("texts() takes an iterable of documents, not one string: texts([text]).")
        self.documents = documents

    @property
    def fingerprint(self):
        if not isinstance(self.documents, (list, tuple)):
            return None
        return _digest(part for text in self for part in (text.encode(), b"\0"))

    def __iter__(self):
        for index, text in enumerate(self.documents):
            if not isinstance(text, str):
                raise ValueError(f"Document {index} of the iterable is a {type(text).__name__}, not a string.")
            yield text


class Files:
    """Text and JSON-lines files, in UTF-8, one document at a time."""

    def __init__(self, paths, split=None, field="text"):
        self.paths, self.split, self.field = [Path(path) for path in paths], split, field

    @property
    def fingerprint(self):
        return _digest(_file_parts(self.paths, [self.split, self.field]))

    def __iter__(self) -> Iterator[str]:
        for path in self.paths:
            try:
                with path.open(encoding="utf-8-sig") as lines:
                    yield from self._json(path, lines) if path.suffix in JSON_SUFFIXES else self._text(path, lines)
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path} is not UTF-8 text (it holds the byte {error.object[error.start]:#04x}): "
                    "convert it to UTF-8 or leave it out."
                ) from error
            except OSError as error:
                raise ValueError(f"{path} cannot be read: {error.strerror}.") from error

    def _text(self, path, lines):
        paragraph = []
        for line in lines:
            if "\0" in line:
                raise ValueError(f"{path} holds a zero byte: it is binary, not text. Leave it out.")
            if self.split is None or line.strip():
                paragraph.append(line)
            if self.split == "line" or (self.split == "blank" and not line.strip()):
                yield from _nonblank(paragraph)
                paragraph = []
        yield from _nonblank(paragraph)

    def _json(self, path, lines):
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number} is no JSON ({error}): correct or remove the line.") from error
            text = record.get(self.field) if isinstance(record, dict) else None
            if not isinstance(text, str):
                held = sorted(record) if isinstance(record, dict) else type(record).__name__
                raise ValueError(
                    f"{path}, line {number} has no text under {self.field!r}, only {held}: name the key with field=."
                )
            yield text


class Chain:
    """Several sources, one after the other."""

    def __init__(self, sources):
        self.sources = sources

    @property
    def fingerprint(self):
        parts = [source.fingerprint for source in self.sources]
        return None if None in parts else _digest(part.encode() for part in parts)

    def __iter__(self):
        for source in self.sources:
            yield from source


def _find(spec):
    path = Path(spec)
    if os.path.isdir(path):  # unlike Path.is_dir, False for what cannot be a name
        paths = sorted(one for one in path.rglob("*") if one.suffix in TEXT_SUFFIXES and one.is_file())
        if not paths:
            raise ValueError(f"{path} holds no {', '.join(TEXT_SUFFIXES)} file: name the files or a glob.")
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


def _nonblank(lines):
    text = "".join(lines)
    if text.strip():
        yield text.rstrip("\n")


def _file_parts(paths, options):
    yield json.dumps(options).encode()
    for path in paths:
        yield b"\0file\0"
        with path.open("rb") as content:
            while block := content.read(1 << 20):
                yield block


def _digest(parts):
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
