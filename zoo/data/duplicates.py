"""Which documents say again what an earlier one said: the same text, or nearly the same words in the same order.

Near-duplicates are found by MinHash and banding, in memory that does not depend on the length of the documents. It
knows texts and their numbers, no file format, no token and no split.
"""

from pathlib import Path

import numpy as np

from zoo.data.characters import ALONE, DIGIT, LETTER, batches, codepoints, kinds

PERMUTATIONS = 128
PIECE = 1 << 18  # characters looked at together
LEADERS = 64  # documents of one bucket that the others in it are compared with
_EMPTY = np.uint32(2**32 - 1)
_MULTIPLIERS, _OFFSETS = np.random.default_rng(1997).integers(0, 2**32, (2, PERMUTATIONS), dtype="uint32")
_MULTIPLIERS |= np.uint32(1)  # odd, so that x -> a x + b permutes the 32-bit numbers
_BASE = np.uint64(0x9E3779B97F4A7C15)
_INVERSE = np.uint64(pow(int(_BASE), -1, 2**64))


def jaccard(similarity):
    """The resemblance of two texts where a share `similarity` of the words is the same and the others were replaced.

    Resemblance (Broder 1997) is shared shingles over all shingles; here a shingle is two neighbouring words. Both of
    them stayed with probability q = similarity ** 2, so of n shingles q n are shared, and there are (2 - q) n in all.
    """
    return similarity**2 / (2 - similarity**2)


def band_rows(resemblance):
    """Rows of a band: the most with which a pair of this resemblance is found with probability 0.95.

    With b bands of r rows a pair meets in one with probability 1 - (1 - J ** r) ** b, b = 128 // r: Leskovec,
    Rajaraman, Ullman, Mining of Massive Datasets, section 3.4.2. More rows mean fewer chance meetings to look into.
    """
    found = {rows: 1 - (1 - resemblance**rows) ** (PERMUTATIONS // rows) for rows in range(1, 17)}
    return max([1, *(rows for rows, chance in found.items() if chance >= 0.95)])


def signatures(texts):
    """MinHash signatures of texts: (texts, 128) uint32; two agree in a column with the resemblance as probability.

    A word is a run of letters and digits, upper or lower case, or one character of a script without spaces; what stands
    between words does not count. A text without words has 2 ** 32 - 1 everywhere.

    Andrei Broder, On the resemblance and containment of documents, 1997.
    """
    out = np.full((PERMUTATIONS, len(texts)), _EMPTY)
    for numbers, pieces in batches(texts, PIECE, PIECE):
        shingles, piece = _shingles([piece.lower() for piece in pieces])
        if not len(shingles):
            continue
        number = numbers[piece]
        first = np.flatnonzero(np.diff(number, prepend=-1))
        rows = number[first]
        hashed = np.empty_like(shingles)
        for row, multiplier, offset in zip(out, _MULTIPLIERS, _OFFSETS):
            np.multiply(shingles, multiplier, out=hashed)
            np.add(hashed, offset, out=hashed)
            row[rows] = np.minimum(row[rows], np.minimum.reduceat(hashed, first))
    return out.T


def _shingles(pieces):
    """Hashes of the pairs of neighbouring words, uint32, and the piece each is in; the first word is a pair too."""
    codes = [codepoints(piece) for piece in pieces]
    ends = np.cumsum([len(one) + 1 for one in codes])
    codes = np.concatenate([part for one in codes for part in (one, [np.uint32(32)])])
    kind = kinds(codes)
    alone = kind == ALONE
    inside = (kind == LETTER) | (kind == DIGIT)
    opens = alone | inside
    opens[1:] &= ~(inside[1:] & inside[:-1])
    first = np.flatnonzero(opens)
    if not len(first):
        return np.zeros(0, "uint32"), first
    codes = np.where(alone | inside, codes + np.uint32(1), np.uint32(0)).astype("uint64")
    powers, inverses = (np.cumprod(np.full(len(codes), base)) for base in (_BASE, _INVERSE))
    words = _mixed(np.add.reduceat(codes * powers, first) * inverses[first])  # a polynomial that starts with the word
    piece = np.searchsorted(ends, first, side="right")
    before = np.where(np.diff(piece, prepend=-1), np.uint64(0), np.roll(words, 1))
    return (_mixed(before * _BASE + words) >> np.uint64(32)).astype("uint32"), piece


def _mixed(x):
    """The finisher of SplitMix64: every bit of the input changes about half of the output's."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class Sketches:
    """What is kept of the signatures of many documents until all are known: 256 bytes each or less, in files.

    A hash of each band, in a file a band, finds candidates; the lowest 8 bits of each number tell how much two
    documents resemble each other (b-bit minwise hashing: Li and König 2010, arXiv 0910.3349).

    Args:
        directory: where the files go; it must exist.
        similarity: share of the words that is the same in two near-duplicates, above 0.5 and below 1.
    """

    def __init__(self, directory, similarity):
        check_similarity(similarity)
        self.resemblance = jaccard(similarity)
        self.rows = band_rows(self.resemblance)
        self._low = Path(directory) / "low.bin"
        self._bands = [Path(directory) / f"band_{i}.bin" for i in range(PERMUTATIONS // self.rows)]

    def append(self, texts):
        """Adds documents."""
        found = signatures(texts)
        with self._low.open("ab") as out:
            found.astype("uint8").tofile(out)
        for i, path in enumerate(self._bands):
            band = np.zeros(len(found), "uint64")
            for column in range(i * self.rows, (i + 1) * self.rows):
                band = _mixed(band * _BASE + found[:, column])
            band[found[:, 0] == _EMPTY] = 0  # no words: nothing to resemble
            with path.open("ab") as out:
                (band >> np.uint64(32)).astype("uint32").tofile(out)

    def clusters(self):
        """For each document the number of the first one that it resembles, directly or through others: (documents,)."""
        count = self._low.stat().st_size // PERMUTATIONS if self._low.exists() else 0
        label = np.arange(count)
        if count:
            low = np.memmap(self._low, "uint8", "r", shape=(count, PERMUTATIONS))
            for path in self._bands:
                label = _joined(label, *self._pairs(np.fromfile(path, "uint32"), label, low))
        return label

    def _pairs(self, keys, label, low):
        """Pairs of one band that do resemble each other, in two arrays: what shares a bucket is compared with its first
        document, what is left of the bucket with the first that is left, and so on."""
        order = np.argsort(keys, kind="stable")
        order = order[keys[order] > 0]
        pairs = [np.zeros((2, 0), "int64")]
        for _ in range(LEADERS):
            key = keys[order]
            opens = np.diff(key, prepend=np.uint32(0)) != 0
            leader = order[opens][np.cumsum(opens) - 1]
            follower = ~opens
            leader, order = leader[follower], order[follower]
            if not len(order):
                break
            alike = label[leader] == label[order]
            for part in np.array_split(np.flatnonzero(~alike), len(order) // 65536 + 1):
                agree = np.mean(low[leader[part]] == low[order[part]], axis=1)
                alike[part] = (agree - 1 / 256) / (1 - 1 / 256) >= self.resemblance
            pairs.append(np.stack([leader[alike], order[alike]]))
            order = order[~alike]
        return np.concatenate(pairs, axis=1)


def check_similarity(similarity):
    """Refuses a similarity that banding cannot find, or that only equal texts have."""
    if not 0.5 < similarity < 1:
        raise ValueError(f"similarity={similarity} must lie between 0.5 and 1: a share of words, such as 0.85.")


def repeated(keys):
    """Whether each of `keys` stood before: (documents,) bool."""
    again = np.ones(len(keys), bool)
    again[np.unique(keys, return_index=True)[1]] = False
    return again


def _joined(label, left, right):
    """Labels after joining pairs: every document gets the lowest label of what it is connected with."""
    while True:
        lowest = np.minimum(label[left], label[right])
        before = label.copy()
        for side in (left, right):
            np.minimum.at(label, before[side], lowest)
        while not np.array_equal(label, label[label]):
            label = label[label]
        if np.array_equal(label, before):
            return label
