"""recipes/prepare.py from the command line: what it leaves and says, what it refuses, and training on its store."""

import gzip
import json

import pytest

from zoo import Tokenizer, data

TINY = ("--num_layers=1", "--num_heads=2", "--hidden_dim=16", "--sequence_length=32", "--batch_size=4", "--steps=2")


@pytest.fixture(scope="module")
def texts():
    return [text for _, _, text in data.prose.docstrings()[:300]]


@pytest.fixture(scope="module")
def prepared(recipe, texts, tmp_path_factory):
    """A store of JSON lines, one of them broken, and of a compressed text; and what was said."""
    place = tmp_path_factory.mktemp("prepared")
    lines = [json.dumps({"body": text}) for text in texts[:200]]
    (place / "a.jsonl").write_text("\n".join([*lines, lines[0], '{"body": ', "12"]), encoding="utf-8")
    (place / "b.txt.gz").write_bytes(gzip.compress(texts[250].encode()))
    flags = (f"--data={place / 'a.jsonl'}", f"--data={place}/*.gz", "--field=body", "--broken_lines=skip",
             "--vocabulary_size=600", "--validation_share=0.2", f"--output={place / 'store'}")  # fmt: skip
    return place, recipe("prepare", *flags), flags


def test_a_store_its_tokenizer_and_a_summary(prepared, texts):
    place, done, _ = prepared
    store, tokenizer = data.Store(place / "store"), Tokenizer.from_preset(place / "store" / "tokenizer")
    kept = [tokenizer.decode(store.document(i)) for i in range(len(store))]
    assert set(kept) <= {*texts[:200], texts[250]} and len(set(kept)) == len(kept) > 150
    held = store.manifest
    assert held["documents_read"] == 202 == len(store) + sum(held["dropped"].values())
    assert held["broken_lines"] == 2 and held["dropped"]["exact_duplicate"] == 1
    for line in ("202  documents read", "  1  exact duplicate", "  2  broken lines skipped", "tokens a word"):
        assert line in done.stdout
    for number in (202, 203):
        assert f"a.jsonl, line {number}" in done.stderr
    assert (place / "store" / "lengths.png").read_bytes().startswith(b"\x89PNG")
    assert "--validation_share=0.2" in (place / "store" / "prepare.cfg").read_text()


def test_again_it_is_opened_and_otherwise_refused(prepared, recipe):
    place, done, flags = prepared
    stamp = (place / "store" / "tokens.bin").stat().st_mtime_ns
    assert recipe("prepare", f"--flagfile={place / 'store' / 'prepare.cfg'}").stdout == done.stdout
    assert (place / "store" / "tokens.bin").stat().st_mtime_ns == stamp
    assert_refused(recipe("prepare", *flags, "--deduplicate=exact", check=False), "is stale: its options")


@pytest.mark.uncompiled
def test_training_on_the_store(prepared, recipe, tmp_path):
    store = prepared[0] / "store"
    said = recipe("pretrain", f"--data={store}", f"--output={tmp_path / 'run'}", *TINY).stdout
    assert f"{len(data.Store(store).tokens):,} tokens" in said
    config = (tmp_path / "run" / "run.cfg").read_text()
    assert f"--tokenizer={store / 'tokenizer'}" in config
    ours, theirs = (Tokenizer.from_preset(path) for path in (tmp_path / "run" / "preset", store / "tokenizer"))
    assert ours.fingerprint == theirs.fingerprint
    done = recipe("pretrain", f"--data={store}", "--tokenizer=char", f"--output={tmp_path / 'b'}", *TINY, check=False)
    assert_refused(done, "a store is trained on with its own tokenizer")


def assert_refused(done, message):
    assert done.returncode and message in done.stderr, done.stderr
    assert "Traceback" not in done.stdout + done.stderr


REFUSED = {
    "no output": (["--data=pydocs"], "--output is missing"),
    "missing file": (["--data=no/such/file"], "'no/such/file' is neither"),
    "two tokenizers": (["--preset=gpt2", "--tokenizer=char"], "leave --tokenizer out"),
    "deduplicate": (["--deduplicate=fuzzy"], "deduplicate"),
    "similarity": (["--similarity=0.2", "--tokenizer=byte"], "similarity=0.2 must lie between 0.5 and 1"),
    "share": (["--validation_share=1", "--tokenizer=byte"], "validation_share=1.0"),
    "broken line": (["--tokenizer=byte"], "broken.jsonl, line 2 is no JSON"),
}


@pytest.mark.parametrize(("flags", "message"), REFUSED.values(), ids=REFUSED)
def test_refuses_in_one_sentence(flags, message, recipe, tmp_path):
    (tmp_path / "broken.jsonl").write_text('{"text": "one"}\n{')
    if not any(flag.startswith("--data") for flag in flags):
        flags = [*flags, f"--data={tmp_path / 'broken.jsonl'}"]
    if message != "--output is missing":
        flags = [*flags, f"--output={tmp_path / 'store'}"]
    assert_refused(recipe("prepare", *flags, check=False), message)
    assert [path.name for path in tmp_path.iterdir()] == ["broken.jsonl"]
