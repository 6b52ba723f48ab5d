"""Sources against files written here, and pydocs against the interpreter's own view of its modules."""

import csv
import gzip
import inspect
import json
import subprocess
import sys

import pytest

from zoo import data
from zoo.data import sources


def read(spec, **options):
    return list(sources.open(spec, **options))


def test_pydocs_are_the_docstrings_the_interpreter_shows():
    import argparse
    import json.decoder

    texts = list(data.pydocs())
    assert inspect.getdoc(argparse) in texts
    assert inspect.getdoc(json.decoder.JSONDecoder) in texts
    assert inspect.getdoc(json.decoder.JSONDecoder.raw_decode) in texts
    from pydoc_data.topics import topics

    assert inspect.cleandoc(topics["assignment"]) in texts


def test_pydocs_is_megabytes_of_distinct_prose_in_a_fixed_order():
    texts = list(data.pydocs())
    assert sum(map(len, texts)) > 3e6
    assert len(set(texts)) == len(texts)
    assert all(len(text.split()) >= 8 and text == text.strip() for text in texts)
    code = "from zoo import data; import hashlib; print(hashlib.md5(''.join(data.pydocs()).encode()).hexdigest())"
    import hashlib

    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == hashlib.md5("".join(texts).encode()).hexdigest()


def test_text_files_split_three_ways(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n\n\nthree\n", encoding="utf-8")
    path = str(tmp_path / "a.txt")
    assert read(path) == ["one\ntwo\n\n\nthree"]
    assert read(path, split="line") == ["one", "two", "three"]
    assert read(path, split="blank") == ["one\ntwo", "three"]


def test_directories_globs_lists_and_iterables(tmp_path):
    for name, text in (("b.txt", "b"), ("a.txt", "a"), ("c.md", "c"), ("skip.bin", "x")):
        (tmp_path / name).write_text(text)
    (tmp_path / "d.jsonl").write_text('{"text": "d"}\n\n{"text": "e"}\n')
    assert read(tmp_path) == ["a", "b", "c", "d", "e"]
    assert read(str(tmp_path / "*.txt")) == ["a", "b"]
    assert read([tmp_path / "c.md", data.texts(["x", "y"])]) == ["c", "x", "y"]
    assert read(word for word in ("p", "q")) == ["p", "q"]


def test_json_lines_name_their_field_and_their_faults(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"body": "été"}) + "\n", encoding="utf-8")
    assert read(path, field="body") == ["été"]
    with pytest.raises(ValueError, match=r"a.jsonl, line 1 has no text under 'text', only \['body'\]"):
        read(path)
    path.write_text('{"text": "a"}\n{"text": \n')
    with pytest.raises(ValueError, match=r"a.jsonl, line 2 is no JSON"):
        read(path)


def test_what_is_no_text_is_named(tmp_path):
    (tmp_path / "latin.txt").write_bytes("déjà".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin.txt is not UTF-8 text \(it holds the byte 0xe9\)"):
        read(tmp_path / "latin.txt")
    (tmp_path / "zero.txt").write_bytes(b"ab\0cd")
    with pytest.raises(ValueError, match=r"zero.txt holds a zero byte"):
        read(tmp_path / "zero.txt")
    with pytest.raises(ValueError, match=r"'missing.txt' is neither"):
        read("missing.txt")
    with pytest.raises(ValueError, match="neither 'pydocs' nor an existing file"):
        read(["To be or not to be " * 500])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"holds no .txt"):
        read(tmp_path / "empty")
    with pytest.raises(ValueError, match="split='word'"):
        read("pydocs", split="word")
    with pytest.raises(TypeError, match="int is no source"):
        read(3)
    with pytest.raises(ValueError, match="Document 1 of the iterable is a int"):
        read(iter(["a", 1]))


def test_broken_lines_are_named_and_skipped_when_asked(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [
        b'{"text": "a"}',
        b'{"text": ',
        b'{"text": "\xe9"}',
        b'{"body": "b"}',
        b"3",
        b"[" * 100_000,
        b'{"text": "z"}',
    ]
    path.write_bytes(b"\n".join(lines))
    source = sources.open([path], broken="skip")
    with pytest.warns(UserWarning) as named:
        assert list(source) == ["a", "z"]
    said = [str(one.message) for one in named]
    assert source.skipped == 5 and [f"a.jsonl, line {n} " in text for n, text in zip(range(2, 7), said)] == [True] * 5
    path.write_bytes(b"{\n" * 1000 + b'{"text": "z"}')
    with pytest.warns(UserWarning) as named:
        assert list(source) == ["z"]
    assert source.skipped == 1000 and len(named) == 10 and "only counted" in str(named[-1].message)
    with pytest.raises(ValueError, match="broken='ignore'"):
        sources.open(path, broken="ignore")


def test_tables(tmp_path):
    hard = ["plain", 'a "quoted", one', "two\nlines", "été\ttab", "x" * 200_000]
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "text"], *enumerate(hard)])
    assert read(tmp_path / "a.csv") == hard
    (tmp_path / "b.tsv").write_text('id\ttext\n1\t"To be\n2\tor "not"\n3\n\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"b.tsv, line 4 ends after 1 columns, before 'text'"):
        read(tmp_path / "b.tsv")
    with pytest.warns(UserWarning, match="line 4"):
        assert read(tmp_path / "b.tsv", broken="skip") == ['"To be', 'or "not"']
    with pytest.raises(ValueError, match=r"a.csv has no column 'body', only \['id', 'text'\]"):
        read(tmp_path / "a.csv", field="body")
    (tmp_path / "c.csv").write_text('text\nfine\n"open\n')
    with pytest.raises(ValueError, match=r"c.csv, line 3 is broken \(unexpected end of data\)"):
        read(tmp_path / "c.csv")


def test_real_tables(shared_data):
    rows = (shared_data / "sst2" / "train.tsv").read_text(encoding="utf-8").splitlines()
    header = rows[0].split("\t")[0]  # the file has no names: its first sentence stands in for one
    assert read(shared_data / "sst2" / "train.tsv", field=header) == [row.split("\t")[0] for row in rows[1:]]
    german = gzip.decompress((shared_data / "multi30k" / "val.de.gz").read_bytes()).decode().splitlines()
    assert read(shared_data / "multi30k" / "val.de.gz", split="line") == german


def test_compressed_files_and_those_cut_short(tmp_path, rng):
    text = "\n".join(rng.bytes(40).hex() for _ in range(5000))
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "b"}'))
    assert read(tmp_path) == [text, "b"]
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text.encode())[:-5000])
    with pytest.raises(ValueError, match=r"a.txt.gz is no whole gzip file"):
        read(tmp_path / "a.txt.gz")
    (tmp_path / "a.txt.gz").write_text(text)
    with pytest.raises(ValueError, match=r"a.txt.gz is no whole gzip file"):
        read(tmp_path / "a.txt.gz")


def test_parquet_and_zst(tmp_path, rng):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    words = [f"word {i}" for i in range(2000)]
    parquet.write_table(pyarrow.table({"body": words, "id": range(2000)}), tmp_path / "a.parquet")
    assert read(tmp_path, field="body") == words
    with pytest.raises(ValueError, match=r"a.parquet has no column 'text', only \['body', 'id'\]"):
        read(tmp_path)
    with pytest.raises(ValueError, match=r"a.parquet, row 1 holds a int under 'id'"):
        read(tmp_path, field="id")
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"a.parquet is no whole Parquet file"):
        read(tmp_path, field="body")
    path, text = tmp_path / "b.txt.zst", "\n".join(rng.bytes(40).hex() for _ in range(5000))
    with pyarrow.CompressedOutputStream(str(path), "zstd") as file:
        file.write(text.encode())
    assert read(path, split="line") == text.split("\n")
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(ValueError, match=r"b.txt.zst cannot be read: Truncated"):
        read(path)


def test_what_needs_pyarrow_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    for name in ("a.parquet", "a.txt.zst"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(ImportError, match=rf"{name} needs pyarrow: pip install keras-zoo\[parquet\]"):
            read(tmp_path / name)


def test_records_of_an_iterable(rng):
    class Dataset(list):
        _fingerprint = "0123abcd"

    records = Dataset({"body": text, "id": i} for i, text in enumerate("abc"))
    assert read(iter(records), field="body") == ["a", "b", "c"]
    assert sources.Texts(records, "body").fingerprint != sources.Texts(records, "id").fingerprint
    with pytest.raises(ValueError, match=r"Record 0 has no 'text', only \['body', 'id'\]"):
        read(iter(records))
    with pytest.raises(TypeError, match=r"A dict of \['test', 'train'\] is no source of text: choose one"):
        read({"train": records, "test": records})


def test_a_text_beyond_the_bound_is_cut_at_lines(tmp_path, monkeypatch):
    from zoo.data import files

    monkeypatch.setattr(files, "LONGEST", 100)
    text = "".join(f"line {i}\n" for i in range(50)) + "x" * 250
    (tmp_path / "a.txt").write_text(text)
    with pytest.warns(UserWarning, match=r"a.txt has a document of over 100 characters: it is cut"):
        parts = read(tmp_path / "a.txt")
    assert max(map(len, parts)) < 210 and "".join(parts).replace("\n", "") == text.replace("\n", "")


def test_fingerprints_follow_content_and_options(tmp_path):
    (tmp_path / "a.txt").write_text("same")
    (tmp_path / "b.txt").write_text("same")
    (tmp_path / "c.txt").write_text("Same")
    of = lambda name, **options: sources.open(tmp_path / name, **options).fingerprint  # noqa: E731
    assert of("a.txt") == of("b.txt") != of("c.txt")
    assert of("a.txt") != of("a.txt", split="line")
    assert data.texts(["ab", "c"]).fingerprint != data.texts(["a", "bc"]).fingerprint
    assert data.texts(iter(["a"])).fingerprint is None
    assert sources.open(["pydocs", iter(["a"])]).fingerprint is None
