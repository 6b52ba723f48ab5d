"""The token store: what is written is what was tokenized; anything else is refused."""

import json

import numpy as np
import pytest

from zoo import data


@pytest.fixture
def source(as_texts):
    return as_texts([[5, 6, 7], [], [8], [9, 10]])


def test_documents_come_back_and_empty_ones_do_not(source, numbers, tmp_path):
    store = data.prepare(source, numbers(), tmp_path / "store")
    assert [store.document(i).tolist() for i in range(len(store))] == [[5, 6, 7], [8], [9, 10]]
    assert store.tokens.dtype == "uint16" and not store.tokens.flags.writeable
    names = sorted(path.name for path in (tmp_path / "store").iterdir())
    assert names == ["keys.bin", "manifest.json", "offsets.bin", "tokens.bin"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]


def test_large_vocabularies_take_four_bytes(as_texts, numbers):
    store = data.prepare(as_texts([[65536, 1]]), numbers(65537))
    assert store.tokens.dtype == "uint32" and store.document(0).tolist() == [65536, 1]
    with pytest.raises(ValueError, match="from 1 to 65536, outside its vocabulary_size=65536"):
        data.prepare(as_texts([[65536, 1]]), numbers(65536))


def test_cache_is_used_and_repaired(source, numbers, cache):
    tokenizer = numbers()
    first = data.prepare(source, tokenizer)
    assert first.directory.is_relative_to(cache)
    stamp = (first.directory / "tokens.bin").stat().st_mtime_ns
    assert (data.prepare(source, tokenizer).directory / "tokens.bin").stat().st_mtime_ns == stamp
    other = data.prepare(source, numbers(500))
    assert other.directory != first.directory
    (first.directory / "tokens.bin").write_bytes(b"\0")
    assert data.prepare(source, tokenizer).document(0).tolist() == [5, 6, 7]
    assert len(list((cache / "tokens").iterdir())) == 2


def test_named_store_that_does_not_fit_is_refused(source, as_texts, numbers, tmp_path):
    place = tmp_path / "store"
    data.prepare(source, numbers(), place)
    assert len(data.prepare(source, numbers(), place)) == 3
    with pytest.raises(ValueError, match="stale: its tokenizer"):
        data.prepare(source, numbers(500), place)
    with pytest.raises(ValueError, match="stale: its inputs"):
        data.prepare(as_texts([[5]]), numbers(), place)
    with pytest.raises(ValueError, match="read only once cannot be compared"):
        data.prepare(data.texts(iter(["5"])), numbers(), place)
    tokens = place / "tokens.bin"
    tokens.write_bytes(tokens.read_bytes()[:-2])
    with pytest.raises(ValueError, match="10 bytes where its manifest counts 6 uint16"):
        data.Store(place)
    tokens.write_bytes(bytes(12))
    manifest = json.loads((place / "manifest.json").read_text())
    (place / "manifest.json").write_text(json.dumps(manifest | {"format": 0}))
    with pytest.raises(ValueError, match="another format"):
        data.Store(place)
    with pytest.raises(ValueError, match="holds no token store"):
        data.Store(tmp_path)


def test_nothing_is_left_half_written(numbers, tmp_path):
    def broken():
        yield "5 6"
        raise RuntimeError("the text ends here")

    with pytest.raises(RuntimeError):
        data.prepare(data.texts(broken()), numbers(), tmp_path / "store")
    with pytest.raises(ValueError, match="hold no text"):
        data.prepare(data.texts(["", "  "]), numbers(), tmp_path / "store")
    assert not list(tmp_path.glob("*store*")) and not list(tmp_path.glob(".store*"))


def test_text_read_once_is_stored_as_long_as_it_is_used(numbers):
    store = data.prepare(data.texts(iter(["5 6"])), numbers())
    place = store.directory
    assert store.document(0).tolist() == [5, 6] and place.exists()
    del store
    assert not place.exists()


def spans_of(part):
    return set(zip(*(array.tolist() for array in part)))


def documents_of(store, part):
    return {tuple(store.tokens[start:stop].tolist()) for start, stop in spans_of(part)}


def test_split_is_by_document_and_stays(as_texts, numbers, rng):
    documents = [rng.integers(44, 1000, 1 + i % 7).tolist() for i in range(2000)]
    documents = [list(one) for one in dict.fromkeys(map(tuple, documents))]
    store = data.prepare(as_texts(documents), numbers())
    training, held_out = store.split(0.1)
    assert abs(len(held_out[0]) / len(store) - 0.1) < 4 * np.sqrt(0.09 / len(store))
    assert not spans_of(training) & spans_of(held_out)
    assert spans_of(training) | spans_of(held_out) == spans_of(store.spans())
    assert spans_of(store.split(0.05)[1]) < spans_of(held_out) < spans_of(store.split(0.2)[1])
    assert len(store.split(0)[1][0]) == 0
    other = data.prepare(as_texts(documents[::-3]), numbers())  # fewer, in another order: each stays where it was
    assert documents_of(other, other.split(0.1)[1]) < documents_of(store, held_out)
    with pytest.raises(ValueError, match="validation_share=1"):
        store.split(1)


def test_equal_documents_are_on_one_side(as_texts, numbers, rng):
    documents = [[int(i)] for i in rng.integers(0, 300, 3000)]
    store = data.prepare(as_texts(documents), numbers())
    for share in (0.001, 0.1, 0.5, 0.999):
        training, held_out = (documents_of(store, part) for part in store.split(share))
        assert training and held_out and not training & held_out
    same = data.prepare(as_texts([[5, 6]] * 100), numbers())
    training, held_out = same.split(0.05)
    assert (len(training[0]), len(held_out[0])) == (100, 1) and held_out[1] - held_out[0] == 1


def test_one_long_document_holds_out_its_end(as_texts, numbers):
    store = data.prepare(as_texts([range(100), range(200, 205)]), numbers())
    training, held_out = store.split(0.2)
    assert spans_of(training) == {(0, 79), (100, 105)} and spans_of(held_out) == {(79, 100)}
    assert np.sum(training[1] - training[0]) + np.sum(held_out[1] - held_out[0]) == len(store.tokens)
