"""QuestionAnswerer: where in a text the answer to a question begins and ends."""

import keras
import numpy as np
from keras import ops

from zoo.tasks.downstream import Downstream, is_pair, whole_numbers


@keras.saving.register_keras_serializable("zoo")
class QuestionAnswerer(Downstream):
    """A backbone with two scores a token, for the first and for the last token of an answer (Devlin et al. 2019,
    section 4.2).

    Called on the batch dictionary; returns logits (b, 2, t), float32: of the start, and of the end. `fit` takes
    (questions, contexts) with an answer each: its (start, end) in characters of the context, end excluded, or None
    where the context has no answer. With the dictionary, labels are token positions (b, 2). An answer that is None or
    that was cut off is at token 0.

    Args:
        backbone: a `Backbone` of any shape.
        tokenizer: a `Tokenizer`, for raw text.
        head: dictionary of what differs from the family's head.

    Example:

    ```python
    from zoo import BERTBackbone, QuestionAnswerer, Tokenizer

    questions, contexts = ["who sat?"] * 4, ["the cat sat on the mat"] * 4
    tokenizer = Tokenizer.train(questions + contexts, kind="wordpiece", vocabulary_size=100)
    backbone = BERTBackbone(vocabulary_size=tokenizer.vocabulary_size, num_layers=1, num_heads=2, hidden_dim=16,
                            intermediate_dim=32, max_sequence_length=32)
    qa = QuestionAnswerer(backbone, tokenizer)
    qa.fit((questions, contexts), [(0, 7)] * 4, verbose=0)
    ```
    """

    default_name = "question_answerer"
    outputs = 2

    def call(self, inputs, training=False):
        return ops.transpose(super().call(inputs, training=training), (0, 2, 1))

    def is_raw(self, x):
        return is_pair(x)

    def labels_of(self, x, y):
        return whole_numbers(y, (len(x["token_ids"]), 2), x["token_ids"].shape[1], "answer position")

    def prepare(self, x, y=None):
        """(questions, contexts) and spans of characters to (x, token positions, no weights)."""
        if not is_pair(x) or y is None:
            raise ValueError("QuestionAnswerer takes (questions, contexts) with answers, or a dictionary with labels.")
        if len(y) != len(x[1]):
            raise ValueError(f"{len(y)} answers do not go with {len(x[1])} contexts.")
        for i, (span, context) in enumerate(zip(y, x[1])):
            if span is not None and not 0 <= span[0] < span[1] <= len(context):
                raise ValueError(f"Answer {i} is at characters {tuple(span)} of a context with {len(context)}.")
        inputs = self.inputs_of(x)
        questions, contexts = map(list, x)
        encodings = self.tokenizer.encode_with_offsets(questions, contexts, max_length=self.length_limit)
        positions = [self._positions(encoding, span) for encoding, span in zip(encodings, y)]
        return inputs, self.labels_of(inputs, positions), None

    def _positions(self, encoding, span):
        """First and last token of a span of characters; (0, 0) if there is none or it is not all there."""
        if span is None:
            return 0, 0
        of_context = np.array([owner == 1 for owner in encoding.sequence_ids])
        begins, ends = np.array(encoding.offsets).T
        inside = np.flatnonzero(of_context & (ends > span[0]) & (begins < span[1]))
        whole = len(inside) and begins[inside[0]] <= span[0] and ends[inside[-1]] >= span[1]
        return (inside[0], inside[-1]) if whole else (0, 0)
