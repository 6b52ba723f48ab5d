"""Files of documents: text, JSON lines, CSV, TSV and Parquet, plain or compressed, read one document at a time.

A file that is damaged or no text is refused by name; a broken line too, or it is skipped, named and counted. Memory
holds one document, never a file. It knows nothing of tokens, and not how files are found.
"""

import codecs
import csv
import gzip
import hashlib
import io
import json
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

READERS = {
    **dict.fromkeys((".txt", ".text", ".md", ".rst"), "_text"),
    **dict.fromkeys((".jsonl", ".ndjson"), "_json_lines"),
    **dict.fromkeys((".csv", ".tsv"), "_table"),
    ".parquet": "_parquet",
}
COMPRESSIONS = (".gz", ".zst")
BROKEN = ("fail", "skip")
LONGEST = 1 << 26  # characters: a text file's document that is longer becomes several, so that memory has a bound
NAMED = 10  # broken lines that are named; the rest is counted


class Files:
    """The documents of files, in order.

    Args:
        paths: the files; a suffix that is not known is text.
        split, field, broken: see `zoo.data.sources.open`.

    Attributes:
        skipped: broken lines skipped by the newest reading.
    """

    def __init__(self, paths, split=None, field="text", broken="fail"):
        self.paths, self.split, self.field, self.broken = [Path(path) for path in paths], split, field, broken
        self.skipped = 0

    @property
    def fingerprint(self):
        return digest(_parts(self.paths, [self.split, self.field, self.broken]))

    def __iter__(self) -> Iterator[str]:
        self.skipped = 0
        for path in self.paths:
            try:
                yield from getattr(self, READERS.get(kind(path), "_text"))(path)
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path} is not UTF-8 text (it holds the byte {error.object[error.start]:#04x}): "
                    "convert it to UTF-8 or leave it out."
                ) from error
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise ValueError(f"{path} is no whole gzip file ({error}): get it again or leave it out.") from error
            except OSError as error:
                raise ValueError(f"{path} cannot be read: {error.strerror or error}.") from error

    def _text(self, path):
        document, size = [], 0
        with binary(path) as stream:
            lines = io.TextIOWrapper(stream, encoding="utf-8-sig")
            while line := lines.readline(LONGEST):
                if "\0" in line:
                    raise ValueError(f"{path} holds a zero byte: it is binary, not text. Leave it out.")
                ends = self.split == "line" or (self.split == "blank" and not line.strip())
                if self.split is None or line.strip():
                    document.append(line)
                    size += len(line)
                if size >= LONGEST and not ends:
                    warnings.warn(f"{path} has a document of over {LONGEST:,} characters: it is cut.", stacklevel=2)
                if size >= LONGEST or ends:
                    yield from _nonblank(document)
                    document, size = [], 0
        yield from _nonblank(document)

    def _json_lines(self, path):
        with binary(path) as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    record = json.loads(line.removeprefix(codecs.BOM_UTF8).decode())
                except (ValueError, RecursionError) as error:
                    self._break(f"{path}, line {number} is no JSON ({error})", "correct or remove the line")
                    continue
                text = record.get(self.field) if isinstance(record, dict) else None
                if isinstance(text, str):
                    yield text
                else:
                    held = sorted(record) if isinstance(record, dict) else type(record).__name__
                    why = f"{path}, line {number} has no text under {self.field!r}, only {held}"
                    self._break(why, "name the key with field=")

    def _table(self, path):
        """CSV as in RFC 4180, TSV as IANA registered it: without quotes, so that a quotation mark is text."""
        csv.field_size_limit(2**31 - 1)  # the default forbids documents over 131,072 characters
        dialect = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if kind(path) == ".tsv" else {"strict": True}
        with binary(path) as stream:
            rows = csv.reader(io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""), **dialect)
            column = _column(path, next(rows, []), self.field)
            while True:
                try:
                    row = next(rows, None)
                except csv.Error as error:
                    self._break(f"{path}, line {rows.line_num} is broken ({error})", "correct or remove the line")
                    continue
                if row is None:
                    return
                if len(row) > column:
                    yield row[column]
                elif row:
                    why = f"{path}, line {rows.line_num} ends after {len(row)} columns, before {self.field!r}"
                    self._break(why, "correct or remove the line")

    def _parquet(self, path):
        pyarrow = _pyarrow(path)
        try:
            with pyarrow.parquet.ParquetFile(path) as table:
                _column(path, table.schema_arrow.names, self.field)
                row = 0
                for batch in table.iter_batches(256, columns=[self.field]):
                    for text in batch.column(0).to_pylist():
                        row += 1
                        if isinstance(text, str):
                            yield text
                        else:
                            why = f"{path}, row {row} holds a {type(text).__name__} under {self.field!r}, no text"
                            self._break(why, "name the column with field=")
        except pyarrow.ArrowInvalid as error:
            raise ValueError(f"{path} is no whole Parquet file ({error}): get it again or leave it out.") from error

    def _break(self, what, remedy):
        if self.broken == "fail":
            raise ValueError(f"{what}: {remedy}, or skip broken lines.")
        self.skipped += 1
        if self.skipped <= NAMED:
            more = "; further ones are only counted" * (self.skipped == NAMED)
            warnings.warn(f"{what}: skipped{more}.", stacklevel=3)


def kind(path):
    """The suffix that says how a file is read, that of a compression aside."""
    path = Path(path)
    return (path.with_suffix("") if path.suffix.lower() in COMPRESSIONS else path).suffix.lower()


def digest(parts):
    """The hash of pieces of bytes, as a fingerprint."""
    hashed = hashlib.blake2b(digest_size=16)
    for part in parts:
        hashed.update(part)
    return hashed.hexdigest()


def binary(path):
    """The bytes of a file, plain or compressed, as a stream."""
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rb")
    if path.suffix.lower() == ".zst":
        return io.BufferedReader(_pyarrow(path).input_stream(str(path), compression="zstd"))
    return path.open("rb")


def _pyarrow(path):
    try:
        import pyarrow.parquet  # here, for it is large and most text needs none of it
    except ImportError:
        raise ImportError(f"{path} needs pyarrow: pip install keras-zoo[parquet].") from None
    return pyarrow


def _column(path, names, field):
    if field not in names:
        raise ValueError(f"{path} has no column {field!r}, only {list(names)}: name the column with field=.")
    return names.index(field)


def _nonblank(lines):
    text = "".join(lines)
    if text.strip():
        yield text.rstrip("\n")


def _parts(paths, options):
    yield json.dumps(options).encode()
    for path in paths:
        yield b"\0file\0"
        with path.open("rb") as content:
            while block := content.read(1 << 20):
                yield block
