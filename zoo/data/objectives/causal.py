"""Next-token prediction over packed rows."""

import dataclasses

from zoo.data.objectives.base import Objective
from zoo.data.rows import Frame


@dataclasses.dataclass(frozen=True)
class CausalLM(Objective):
    """Predict the next token: y[t] = token[t + 1], trained on -sum_t log p(token[t + 1] | token[..t]).

    Documents begin with bos (else cls) and end with eos (else sep), where the tokenizer has them (in GPT-2 the two are
    one token): since no attention crosses documents, each needs its own start. A row is packed with
    sequence_length + 1 tokens, so that every input has a label; its weight is 0 where that label belongs to another
    document or to padding.

    x: token_ids, segment_ids, positions; y, w: all (b, sequence_length).

    Source: GPT-2, Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".
    """

    row_length = property(lambda self: self.sequence_length + 1)

    @property
    def frame(self):
        return Frame(document_start=self.role("bos", "cls"), document_end=self.role("eos", "sep"))

    def make(self, rows, rng):
        segments = rows.segment_ids
        x = {
            "token_ids": rows.token_ids[:, :-1],
            "segment_ids": segments[:, :-1],
            "positions": rows.positions[:, :-1],
        }
        same = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
        return x, rows.token_ids[:, 1:], same.astype("float32")
