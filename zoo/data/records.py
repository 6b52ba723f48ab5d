"""Files of labelled examples as records: dictionaries, each with the place it was read from.

CSV, TSV, JSON lines, JSON, CoNLL's columns, SQuAD's JSON, and Hugging Face `datasets`. A file that is empty, damaged or
without a column that is asked for is refused by name. It knows nothing of tasks, labels and tokens.
"""

import csv
import gzip
import io
import itertools
import json
import zlib
from pathlib import Path

from zoo.data.files import binary, kind

CONLL = (".conll", ".conllu", ".bio", ".iob", ".annotated")
DATASETS = "datasets:"


class Records(list):
    """Records in order. `source` says where from, `places[i]` where the record i begins."""

    def __init__(self, records, source, places):
        super().__init__(records)
        self.source, self.places = source, places

    def column(self, name):
        """The values of a column.

        Raises:
            ValueError: a column that is not there; it names those that are.
        """
        if name not in self[0]:
            raise ValueError(f"{self.source} has no column {name!r}, only {', '.join(map(repr, self[0]))}.")
        for record, place in zip(self, self.places):
            if name not in record:
                raise ValueError(f"{place} has no {name!r}, only {', '.join(map(repr, record))}.")
        return [record[name] for record in self]


def read(spec, numbered=False):
    """The records of a file or of a data set.

    Args:
        spec: a file by its suffix: .csv or .tsv; .jsonl or .ndjson; .json, a list of objects or SQuAD's format, whose
            records have `question`, `context` and `answers`; .conll, .conllu, .bio or .iob, a token a line and a blank
            line between sentences, whose columns are lists named by their numbers from 0; any of them with .gz or .zst
            behind it. Or `datasets:PATH[:CONFIG]/SPLIT`, such as `datasets:glue:sst2/train`, for the package
            `datasets`; PATH may be a directory that it saved or one of files.
        numbered: whether a CSV or TSV file has no line of names, so that its columns are "0", "1", ….

    Returns: `Records`.

    Raises:
        ValueError: no such file, an unknown suffix, an empty or a damaged file.
    """
    if str(spec).startswith(DATASETS):
        return _dataset(str(spec))
    path = Path(spec)
    suffix = kind(path)
    if not path.is_file():
        raise ValueError(f"There is no file {str(path)!r}.")
    readers = {".csv": _table, ".tsv": _table, ".jsonl": _json_lines, ".ndjson": _json_lines, ".json": _json}
    reader = readers.get(suffix, _conll if suffix in CONLL else None)
    if reader is None:
        known = ", ".join([*readers, *CONLL])
        raise ValueError(f"{path} is none of {known}: rename it for its format.")
    try:
        with binary(path) as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
            found = list(reader(path, text, numbered) if reader is _table else reader(path, text))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): convert it.") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is no whole gzip file ({error}): get it again.") from error
    if not found:
        raise ValueError(f"{path} is empty: it holds no example.")
    places, records = zip(*found)
    return Records(records, str(path), places)


def _table(path, lines, numbered):
    """CSV as in RFC 4180; TSV without quotes, so that a quotation mark is text."""
    csv.field_size_limit(2**31 - 1)
    dialect = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if kind(path) == ".tsv" else {"strict": True}
    rows = csv.reader(lines, **dialect)
    try:
        rows_found = [(rows.line_num, row) for row in rows if row]
    except csv.Error as error:
        raise ValueError(f"{path}, line {rows.line_num} is broken ({error}): correct it.") from error
    if not rows_found:
        return
    names = [str(i) for i in range(len(rows_found[0][1]))] if numbered else rows_found.pop(0)[1]
    for number, row in rows_found:
        if len(row) != len(names):
            raise ValueError(f"{path}, line {number} has {len(row)} columns, the first has {len(names)}: correct it.")
        yield f"{path}, line {number}", dict(zip(names, row))


def _json_lines(path, lines):
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield f"{path}, line {number}", _object(line, f"{path}, line {number}")


def _object(text, place):
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place} is no JSON ({error}): correct it.") from error
    if not isinstance(record, dict):
        raise ValueError(f"{place} holds a {type(record).__name__}, not an object with keys.")
    return record


def _json(path, lines):
    """A list of objects, or SQuAD's articles."""
    try:
        content = json.loads(lines.read())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no whole JSON ({error}): for an object a line, call it .jsonl.") from error
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        yield from _squad(path, content["data"])
    elif isinstance(content, list) and all(isinstance(record, dict) for record in content):
        yield from ((f"{path}, record {i}", record) for i, record in enumerate(content))
    else:
        raise ValueError(f"{path} is neither a list of objects nor SQuAD's {{'data': […]}}.")


def _squad(path, articles):
    """A record a question (Rajpurkar et al. 2016; version 2 with `is_impossible`, 2018)."""
    try:
        for paragraph in itertools.chain.from_iterable(article["paragraphs"] for article in articles):
            for qa in paragraph["qas"]:
                answers = [] if qa.get("is_impossible") else qa["answers"]
                record = {"id": qa["id"], "question": qa["question"], "context": paragraph["context"],
                          "answers": {"text": [answer["text"] for answer in answers],
                                      "answer_start": [answer["answer_start"] for answer in answers]}}  # fmt: skip
                yield f"{path}, question {qa['id']!r}", record
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is not in SQuAD's format: {error} is missing, or not of its type.") from error


def _conll(path, lines):
    """A record a sentence, its columns as lists (Tjong Kim Sang & De Meulder 2003)."""
    sentence, start, width = [], 0, None
    for number, line in enumerate(itertools.chain(lines, [""]), 1):
        columns = line.rstrip("\r\n").split("\t") if "\t" in line.strip() else line.split()
        if not columns or not line.strip() or columns[0] == "-DOCSTART-":
            if sentence:
                yield f"{path}, line {start}", {str(i): list(column) for i, column in enumerate(zip(*sentence))}
            sentence = []
        elif sentence or not line.startswith("# "):  # else a comment
            width = width or len(columns)
            if len(columns) != width:
                raise ValueError(f"{path}, line {number} has {len(columns)} columns, the first {width}: correct it.")
            start = start if sentence else number
            sentence.append(columns)


def _dataset(spec):
    try:
        import datasets
    except ImportError:
        raise ImportError(f"{spec} needs the package datasets: pip install datasets.") from None
    name, _, split = spec.removeprefix(DATASETS).rpartition("/")
    path, _, config = name.partition(":")
    if not path or not split:
        raise ValueError(f"{spec!r} names no split: write {DATASETS}PATH[:CONFIG]/SPLIT.")
    try:
        if Path(path, "dataset_dict.json").is_file():
            found = datasets.load_from_disk(path)[split]
        else:
            found = datasets.load_dataset(path, config or None, split=split)
    except (KeyError, ValueError, OSError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(f"{spec} cannot be read: {error}") from error
    names = {column: getattr(getattr(feature, "feature", feature), "names", None)
             for column, feature in found.features.items()}  # fmt: skip
    records = [{key: _named(value, names[key]) for key, value in record.items()} for record in found]
    if not records:
        raise ValueError(f"{spec} is empty: it holds no example.")
    return Records(records, spec, [f"{spec}, record {i}" for i in range(len(records))])


def _named(value, names):
    """Numbers of classes as their names; -1, which `datasets` puts where a label is not known, as None."""
    if names is None or value is None:
        return value
    return [_named(one, names) for one in value] if isinstance(value, list) else names[value] if value >= 0 else None
