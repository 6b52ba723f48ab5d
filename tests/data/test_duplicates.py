"""Near-duplicates against resemblance counted with sets, bands that are drawn, and text that was changed on purpose."""

import itertools
import re
import tracemalloc

import numpy as np
import pytest

from zoo.data import duplicates
from zoo.data.duplicates import Sketches, band_rows, jaccard, signatures

SENTENCE = re.compile(r"[.!?。！？．]")


def pairs(text):
    return set(itertools.pairwise(["", *re.findall(r"[^\W_]+", text.lower())]))


def resemblance(left, right):
    left, right = pairs(left), pairs(right)
    return len(left & right) / len(left | right)


def clusters(texts, directory, similarity=0.8, block=100):
    directory.mkdir(exist_ok=True)
    sketches = Sketches(directory, similarity)
    for start in range(0, len(texts), block):
        sketches.append(texts[start : start + block])
    return sketches.clusters()


def changed(texts, share, rng, split=str.split, join=" ".join):
    """The texts with a share of their words replaced by words that stand elsewhere in them."""
    words = sorted({word for text in texts for word in split(text)})
    for text in texts:
        parts = split(text)
        for place in rng.choice(len(parts), round(share * len(parts)), replace=False):
            parts[place] = words[rng.integers(len(words))]
        yield join(parts)


@pytest.fixture(scope="module")
def paragraphs(shared_data):
    lines = (shared_data / "wikitext-2" / "valid.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if len(line.split()) >= 50]


@pytest.fixture(scope="module")
def chinese(shared_data):
    lines = next((shared_data / "zh-classics").glob("*.txt")).read_text(encoding="utf-8").splitlines()
    return list(dict.fromkeys(line.strip() for line in lines if len(line) > 100))


def test_signatures_estimate_resemblance_without_bias(prose, rng):
    texts = [text for text in prose if len(text.split()) > 40][:300]
    other = list(changed(texts, 0.1, rng))
    true = np.array([resemblance(*pair) for pair in zip(texts, other)])
    found = np.mean(signatures(texts) == signatures(other), axis=1)
    spread = np.sqrt(true * (1 - true) / 128)
    assert 0.4 < true.mean() < 0.8
    assert abs(np.mean((found - true) / spread)) < 4 / np.sqrt(len(true))
    assert 0.8 < np.std((found - true) / spread) < 1.2


def test_the_formula_of_replaced_words(rng):
    """Words drawn from so many that none comes twice by chance."""
    for kept in (0.8, 0.9):
        left = rng.integers(10**9, size=20000)
        right = np.where(rng.random(20000) < kept, left, rng.integers(10**9, size=20000))
        found = resemblance(*(" ".join(map(str, one)) for one in (left, right)))
        assert found == pytest.approx(jaccard(kept), abs=0.01)


def test_bands_find_what_they_promise(rng):
    """Rates of meeting in a band, counted over drawn signatures whose columns agree with probability J."""
    for similarity in (0.7, 0.8, 0.85, 0.95):
        target = jaccard(similarity)
        rows = band_rows(target)
        agree = rng.random((4000, 128 // rows, rows)) < target
        assert np.mean(agree.all(axis=2).any(axis=1)) > 0.94
        wider = rng.random((4000, 128 // (rows + 1), rows + 1)) < target
        assert np.mean(wider.all(axis=2).any(axis=1)) < 0.95


@pytest.mark.parametrize("share", [0.05, 0.1])
def test_planted_near_duplicates_are_found_and_others_kept(paragraphs, rng, tmp_path, share):
    planted = list(changed(paragraphs, share, rng))
    label = clusters(paragraphs + planted, tmp_path)
    count = len(paragraphs)
    assert np.mean(label[count:] == np.arange(count)) > 0.95
    assert np.mean(label[:count] != np.arange(count)) < 0.001


def test_a_tenth_left_out_or_written_anew_in_one_place(paragraphs, tmp_path):
    shorter = [text[: int(0.9 * len(text))] for text in paragraphs[:500]]
    label = clusters(
        paragraphs + shorter + [a + b[-len(a) // 10 :] for a, b in zip(shorter, paragraphs[500:])], tmp_path
    )
    count = len(paragraphs)
    assert np.mean(label[count:] == np.tile(np.arange(500), 2)) > 0.99


def test_chinese_planted_near_duplicates(chinese, rng, tmp_path):
    planted = list(changed(chinese, 0.1, rng, list, "".join))
    label, count = clusters(chinese + planted, tmp_path), len(chinese)
    assert np.mean(label[count:] == label[:count]) > 0.95
    for i in np.flatnonzero(label[:count] != np.arange(count)):  # some sentences stand twice in that edition
        ours, first = (set(SENTENCE.split(chinese[j])) for j in (i, label[i]))
        assert len(ours & first) > 0.5 * min(len(ours), len(first))


def test_clusters_are_those_of_all_pairs(rng, tmp_path):
    """Chains of ever more changed texts: connected components of the pairs that resemble each other."""
    texts, words = [], [f"w{i}" for i in range(5000)]
    for _ in range(40):
        text = [words[i] for i in rng.integers(5000, size=200)]
        for _ in range(4):
            texts.append(" ".join(text))
            for place in rng.choice(200, 12, replace=False):
                text[place] = words[rng.integers(5000)]
    order = rng.permutation(len(texts))
    texts = [texts[i] for i in order]
    label = list(range(len(texts)))
    shingles = [pairs(text) for text in texts]
    for a, b in itertools.combinations(range(len(texts)), 2):
        left, right = shingles[a], shingles[b]
        if len(left & right) / len(left | right) > jaccard(0.8):
            low, high = sorted((label[a], label[b]))
            label = [low if one == high else one for one in label]
    found = clusters(texts, tmp_path, block=7)
    assert len(set(label)) == 40 and np.array_equal(found, label)


def test_many_copies_and_texts_without_words(tmp_path):
    texts = ["the same words again and again"] * 3000 + ["?!", "...", "", "—"] + ["and these are other words"] * 2
    label = clusters(texts, tmp_path, block=1000)
    assert (label[:3000] == 0).all() and label[3000:].tolist() == [3000, 3001, 3002, 3003, 3004, 3004]


def test_case_punctuation_and_blocks_do_not_matter(monkeypatch):
    texts = ["To be, or not to be: that is the question.", "to be or not to be that IS the\n question"]
    found = signatures(texts)
    assert np.array_equal(found[0], found[1])
    alone = np.concatenate([signatures([text]) for text in texts])
    assert np.array_equal(alone, found)
    long = " ".join(f"word{i}" for i in range(20000))
    whole = signatures([long, texts[0]])
    monkeypatch.setattr(duplicates, "PIECE", 1000)
    assert np.mean(signatures([long, texts[0]])[0] == whole[0]) > 0.9 and np.array_equal(signatures(texts), found)


def test_a_long_text_takes_little_memory():
    text = "some words that come again and again, " * 250_000
    tracemalloc.start()
    signatures([text])
    assert tracemalloc.get_traced_memory()[1] < 30e6  # as UTF-32 with 8-byte hashes it would be 120 MB
    tracemalloc.stop()


@pytest.mark.parametrize("similarity", [0.5, 1, 2])
def test_a_similarity_that_cannot_be_is_refused(similarity, tmp_path):
    with pytest.raises(ValueError, match=rf"similarity={similarity} must lie between 0.5 and 1"):
        Sketches(tmp_path, similarity)
