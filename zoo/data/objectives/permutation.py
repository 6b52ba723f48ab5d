"""Permutation language modelling: which tokens are predicted, in which order, and who may see whom. Data only.

XLNet needs two streams of attention, one that knows a position without its token; the transformer here has one.
"""

import dataclasses
import math

import numpy as np

from zoo.data.objectives.base import Objective
from zoo.data.objectives.masked import MaskedLM


@dataclasses.dataclass(frozen=True)
class PermutationLM(Objective):
    """Predict tokens in a random order: -sum over targets i of log p(token[i] | tokens that come before it in z).

    The order z has all tokens that are no targets first, then the targets, uniformly permuted. Targets are spans of l
    tokens, l uniform over 1, …, `longest`: each stands at a uniformly random place within K l tokens, and these windows
    fill the row one after the other, so that a share 1 / K is predicted (the paper's partial prediction). Special
    tokens and padding are never targets.

    No model of this library learns it: each target must know its position and not its token, which takes a second
    stream of attention (section 2.3). Our models refuse the key `permutation`. For a model of your own, `masks` gives
    what its two streams may see.

    Args:
        K: one token in K is a target.
        longest: most tokens of a span.

    x: token_ids, segment_ids, positions, permutation (b, sequence_length), and mask_positions (b, m), the targets in
    ascending order. permutation[i] is 0 for a token that is no target, else its place 1, 2, … among the targets of the
    row. y, w: (b, m), the tokens at mask_positions. m = ceil(sequence_length / K) + longest. Places left over have
    position 0, label 0 and weight 0.

    Source: Yang et al. 2019 (XLNet), arXiv 1906.08237, sections 2.2, 2.3 and appendix A.3 ("span-based prediction").

    >>> from zoo import Tokenizer, data
    >>> tokenizer = Tokenizer.train(["to be or not to be"], kind="char")
    >>> objective = data.PermutationLM(longest=3).bind(tokenizer, 18)
    >>> x, y, w = objective(tokenizer.batch(["to be or not to be"]), np.random.default_rng(0))
    >>> x["permutation"][0].tolist(), tokenizer.decode(y[0][w[0] > 0])
    ([1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0], 'tob')
    >>> content, query = data.PermutationLM.masks(x)
    >>> content.shape, bool((query <= content).all())
    ((1, 18, 18), True)
    """

    K: int = 6
    longest: int = 5

    frame = MaskedLM.frame

    def check(self):
        for name in ("K", "longest"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r} must be a positive integer.")
        if self.K * self.longest > self.sequence_length:
            raise ValueError(
                f"Spans of {self.longest} tokens with K={self.K} need windows of {self.K * self.longest} tokens, more "
                f"than sequence_length={self.sequence_length}: lower longest or K."
            )

    @property
    def target_count(self):
        """m, the number of places a row has for predictions."""
        return min(math.ceil(self.sequence_length / self.K) + self.longest, self.sequence_length)

    def make(self, rows, rng):
        b, t = rows.token_ids.shape
        target = self._spans(b, t, rng) & (rows.segment_ids > 0) & ~self.is_special[rows.token_ids]
        positions = np.sort(np.where(target, np.arange(t), t), axis=1)[:, : self.target_count]
        real = positions < t
        positions = np.where(real, positions, 0)
        order = np.argsort(np.where(target, rng.random(t), 2), axis=1)
        permutation = np.empty((b, t), "int32")
        np.put_along_axis(permutation, order, np.arange(1, t + 1, dtype="int32")[None], axis=1)
        x = {
            "token_ids": rows.token_ids,
            "segment_ids": rows.segment_ids,
            "positions": rows.positions,
            "permutation": permutation * target,
            "mask_positions": positions.astype("int32"),
        }
        y = np.where(real, np.take_along_axis(rows.token_ids, positions, axis=1), 0)
        return x, y, real.astype("float32")

    def _spans(self, b, t, rng):
        """(b, t) bool: a span in each window, windows one after the other."""
        most = -(-t // self.K)
        length = 1 + (rng.random(most) * self.longest).astype("int64")
        window = self.K * length
        start = np.cumsum(window, axis=1) - window + (rng.random(most) * (window - length + 1)).astype("int64")
        edge = np.zeros((b, t + 1), "int64")
        row = np.arange(b)[:, None]
        np.add.at(edge, (row, np.minimum(start, t)), 1)
        np.add.at(edge, (row, np.minimum(start + length, t)), -1)
        return np.cumsum(edge, axis=1)[:, :t] > 0

    @staticmethod
    def masks(x):
        """Who sees whom, (b, t, t) bool each: the content stream, then the query stream.

        A target's content sees itself and what comes before it in the order, its query only the latter. All tokens that
        are no targets see one another. Nothing is seen across documents.
        """
        rank, segment = x["permutation"], x["segment_ids"]
        same = (segment[:, :, None] == segment[:, None, :]) & (segment > 0)[:, None, :]
        given = (rank == 0)[:, None, :]
        before = rank[:, None, :] < rank[:, :, None]
        return same & (given | (rank[:, None, :] <= rank[:, :, None])), same & (given | before)
