"""Sources against files written here, and pydocs against the interpreter's own view of its modules."""

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
