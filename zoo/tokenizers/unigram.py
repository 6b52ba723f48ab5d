"""Trains the pieces of a Unigram model (Kudo, 2018, https://arxiv.org/abs/1804.10959) from counted words.

The Rust trainer iterates over randomly ordered hash maps, so the same text gives other pieces every time. This one is
deterministic: candidates are the tokens of a byte-pair encoding twice as large, counts are those of the best
segmentation (hard EM), found by the Rust model, and each round drops the pieces whose loss costs the text least.
It knows pieces and scores, no files and no special tokens.
"""

import math

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

_LONGEST, _SHRINK, _BLOCK = 16, 0.75, 50_000  # characters of a piece; share kept in a round; words encoded at a time


def train_pieces(words, size, progress=False):
    """Pieces and their log-probabilities, most probable first.

    Args:
        words: `Counter` of words, each with its leading `▁`.
        size: number of pieces wanted at most, not less than there are different characters.
        progress: whether to show a bar.
    """
    candidates = Tokenizer(models.BPE())
    candidates.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=2 * size, min_frequency=2, max_token_length=_LONGEST, show_progress=progress
    )
    candidates.train_from_iterator(repeated(words), trainer)
    vocabulary = candidates.get_vocab()
    pieces = sorted(vocabulary, key=vocabulary.get)
    counts = _counts(candidates.model, words, len(pieces))
    while True:
        scores = _scores(counts)
        counts = _counts(models.Unigram([*zip(pieces, scores), ("<unk>", 0.0)], len(pieces)), words, len(pieces))
        scores = _scores(counts)
        if len(pieces) <= size:
            scored = [(piece, round(score, 6)) for piece, score in zip(pieces, scores)]  # short enough for exact files
            return sorted(scored, key=lambda piece: (-piece[1], piece[0]))
        kept = _prune(pieces, scores, counts, max(size, int(_SHRINK * len(pieces))))
        pieces, counts = [pieces[i] for i in kept], counts[kept]


def repeated(words):
    """Counted words as text for a trainer that counts for itself."""
    for word, count in words.items():
        for start in range(0, count, _BLOCK):
            yield (word + " ") * min(_BLOCK, count - start)


def _counts(model, words, size):
    """How often each of `size` pieces is used in the best segmentation of all words."""
    tokenizer, words, total = Tokenizer(model), list(words.items()), np.zeros(size + 1)
    for start in range(0, len(words), _BLOCK):
        block = words[start : start + _BLOCK]
        rows = [encoding.ids for encoding in tokenizer.encode_batch_fast([word for word, _ in block])]
        weights = np.repeat([float(count) for _, count in block], [len(row) for row in rows])
        total += np.bincount(np.concatenate(rows).astype(int), weights, size + 1)
    return total[:size]


def _scores(counts):
    # A little less than the count, as in variational EM: rare pieces are doubted.
    return (np.log(np.maximum(counts - 0.5, 0.1)) - math.log(counts.sum())).tolist()


def _prune(pieces, scores, counts, size):
    """Indices of the `size` pieces the text can least spare; single characters always stay."""
    score = dict(zip(pieces, scores))

    def without(piece):
        """Score of the best way to spell a piece by shorter ones."""
        best = [0.0] + [-math.inf] * len(piece)
        for end in range(1, len(piece) + 1):
            for start in range(end == len(piece), end):
                if (part := score.get(piece[start:end])) is not None:
                    best[end] = max(best[end], best[start] + part)
        return best[-1]

    loss = [
        math.inf if len(piece) == 1 else count * (score[piece] - without(piece))
        for piece, count in zip(pieces, counts.tolist())
    ]
    return sorted(sorted(range(len(pieces)), key=lambda i: (-loss[i], pieces[i]))[:size])
