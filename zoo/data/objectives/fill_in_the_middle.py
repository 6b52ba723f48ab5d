"""Fill in the middle: documents rearranged so that a decoder learns to write what stands between two texts."""

import dataclasses
import functools

import numpy as np

from zoo.data.objectives.base import Objective
from zoo.data.objectives.causal import CausalLM
from zoo.data.rows import Documents, Rows, restarted_positions


@dataclasses.dataclass(frozen=True)
class FillInTheMiddle(Objective):
    """Next-token prediction where a share of the documents has its middle moved to the end.

    A document is cut at two places, drawn uniformly and independently from the n + 1 between and around its n tokens.
    With probability `rate` it is rewritten, in the mode SPM with probability `spm_rate`, else PSM:

        PSM   <prefix> prefix <suffix> suffix <middle> middle
        SPM   <prefix> <suffix> suffix <middle> prefix middle

    bos and eos stay around it, and all tokens are predicted. This is done to each document of a packed row by itself
    (the paper's context level; a piece of a document that is split over rows counts as one). It makes a document three
    tokens longer. Rows have room for one that is; what others push out of the row is cut at its end.

    Args:
        rate: share of the documents that are rewritten.
        spm_rate: share of these that are in the mode SPM.
        tokens: the tokens before prefix, suffix and middle, here StarCoder's.

    x: token_ids, segment_ids, positions; y, w: all (b, sequence_length), as in `CausalLM`.

    Source: Bavarian et al. 2022, arXiv 2207.14255, sections 3 and 4.3 and appendix D (SPM is its variant 2); cuts are
    between tokens, where the paper's are between characters.

    >>> from zoo import Tokenizer, data
    >>> tokenizer = Tokenizer.train(["to be or not to be"], kind="char")
    >>> data.FillInTheMiddle().add_tokens(tokenizer, 24)
    3
    >>> objective = data.FillInTheMiddle(rate=1, spm_rate=0).bind(tokenizer, 24)
    >>> rows = tokenizer.batch(["to be or not to be"], pad_to=objective.row_length)
    >>> x, y, w = objective(rows, np.random.default_rng(1))
    >>> tokenizer.decode(x["token_ids"][0][w[0] > 0], skip_special_tokens=False)
    '<fim_prefix>to b<fim_suffix> be<fim_middle>e or not t'
    """

    rate: float = 0.5
    spm_rate: float = 0.5
    tokens: tuple = ("<fim_prefix>", "<fim_suffix>", "<fim_middle>")

    row_length = property(lambda self: self.sequence_length - 2)  # one label more than inputs, three places of room
    frame = CausalLM.frame
    named_tokens = property(lambda self: self.tokens)

    def check(self):
        for name in ("rate", "spm_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie between 0 and 1.")
        if len(self.tokens) != 3:
            raise ValueError(f"tokens={self.tokens} must be the three before prefix, suffix and middle.")
        if self.sequence_length < 4:
            raise ValueError(f"sequence_length={self.sequence_length} leaves no room for text: raise it.")
        _ = self._ids

    @functools.cached_property
    def _ids(self):
        return [self.need_token(token) for token in self.tokens]

    def make(self, rows, rng):
        documents = Documents(rows.segment_ids)
        lead, n, of = *self._inner(documents, rows.token_ids), documents.document
        rewritten, spm, *cuts = (documents.pick(rng.random(self.row_length)) for _ in range(4))
        rewritten, spm = (rewritten < self.rate) & (n > 0), spm < self.spm_rate
        low, high = np.sort(np.floor(cuts * (n + 1)).astype("int64"), axis=0)
        suffix = n - high  # its length

        i = documents.inside - lead[of]
        moved = np.select(  # how far each token goes: bos, prefix, middle, suffix, eos
            [i < 0, i < low[of], i < high[of], i < n[of]],
            [0, np.where(spm, 3 + suffix, 1)[of], 3 + suffix[of], (2 - high + np.where(spm, 0, low))[of]],
            3,
        )
        added = np.array([low * 0, 1 + np.where(spm, 0, low), 2 + suffix + np.where(spm, 0, low)]) + lead
        gain = 3 * rewritten
        start = documents.start + np.cumsum(gain) - gain
        start -= (np.cumsum(gain) - gain)[np.searchsorted(documents.row, documents.row)]  # of the row's first document

        ids = [rows.token_ids.ravel()[documents.place], np.repeat(self._ids, rewritten.sum())]
        column = [start[of] + documents.inside + moved * rewritten[of], (start + added)[:, rewritten].ravel()]
        owner = [of, np.tile(np.flatnonzero(rewritten), 3)]
        rows = self._laid_out(*map(np.concatenate, (ids, column, owner)), documents, len(rows.token_ids))
        return CausalLM.make(self, rows, rng)

    def _inner(self, documents, token_ids):
        """(D,) 0 or 1, whether a document begins with its start token, and (D,) its tokens without start and end."""
        begin, flat = documents.row * self.row_length + documents.start, token_ids.ravel()
        found = [
            np.zeros(len(begin), "int64") if one is None else (flat[at] == one).astype("int64")
            for one, at in ((self.frame.document_start, begin), (self.frame.document_end, begin + documents.length - 1))
        ]
        return found[0], documents.length - sum(found)

    def _laid_out(self, ids, column, owner, documents, count):
        """`Rows` (count, sequence_length + 1) with `ids` at their columns in the rows of the documents `owner`."""
        token_ids = np.full((count, self.sequence_length + 1), self.pad_id, "int32")
        segment_ids = np.zeros_like(token_ids)
        fits = column < token_ids.shape[1]
        place = documents.row[owner[fits]], column[fits]
        token_ids[place], segment_ids[place] = ids[fits], documents.number[owner[fits]] + 1
        return Rows(token_ids, segment_ids, restarted_positions(segment_ids))
