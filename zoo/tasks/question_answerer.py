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
    where the context has no answer. A context that is too long becomes several rows, windows that overlap; a row
    without the whole answer has it at token 0. With the dictionary, labels are token positions (b, 2).

    Args:
        backbone: a `Backbone` of any shape.
        tokenizer: a `Tokenizer`, for raw text.
        max_length: tokens of a window, question included; None: what the model can take.
        stride: tokens of the context that a window shares with the next.
        head: dictionary of what differs from the family's head.

    Example:

    ```python
    from zoo import BERTBackbone, QuestionAnswerer, Tokenizer

    questions, contexts = ["who sat?"] * 4, ["the cat sat on the mat"] * 4
    tokenizer = Tokenizer.train(questions + contexts, kind="wordpiece", vocabulary_size=100)
    backbone = BERTBackbone(vocabulary_size=tokenizer.vocabulary_size, num_layers=1, num_heads=2, hidden_dim=16,
                            intermediate_dim=32, max_sequence_length=32)
    qa = QuestionAnswerer(backbone, tokenizer, stride=8)
    qa.fit((questions, contexts), [(0, 7)] * 4, verbose=0)
    qa.answer("who sat?", "the cat sat on the mat")  # {"answer": "the cat", "start": 0, "end": 7, …}
    ```
    """

    default_name = "question_answerer"
    settings = ("max_length", "stride", "head")
    outputs = 2

    def configure(self, max_length=None, stride=None, head=None):
        super().configure(head)
        for name, value in (("max_length", max_length), ("stride", stride)):
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"{name} must be a positive integer, got {value!r}.")
        self.max_length, self.stride = max_length, stride

    def call(self, inputs, training=False):
        return ops.transpose(super().call(inputs, training=training), (0, 2, 1))

    def is_raw(self, x):
        return is_pair(x)

    def labels_of(self, x, y):
        return whole_numbers(y, (len(x["token_ids"]), 2), x["token_ids"].shape[1], "answer position")

    def windows(self, questions, contexts):
        """The batch dictionary of all windows, their `Encoding`s, and the number of the question of each."""
        if self.tokenizer is None or len(questions) != len(contexts):
            raise ValueError(f"{len(questions)} questions and {len(contexts)} contexts need a tokenizer, and as many.")
        limit = self.length_limit
        overlap = min(128, (limit or 0) // 4) if self.stride is None else self.stride
        encodings, owners = self.tokenizer.encode_windows(list(questions), list(contexts), limit, overlap)
        batch = self.tokenizer.stacked([e.ids for e in encodings], [e.type_ids for e in encodings])
        return self.completed(self.without_types(batch)), encodings, owners

    def prepare(self, x, y=None):
        """(questions, contexts) and spans of characters to (x, token positions, weights), a row a window."""
        if not is_pair(x) or y is None:
            raise ValueError("QuestionAnswerer takes (questions, contexts) with answers, or a dictionary with labels.")
        if len(y) != len(x[1]):
            raise ValueError(f"{len(y)} answers do not go with {len(x[1])} contexts.")
        for i, (span, context) in enumerate(zip(y, x[1])):
            if span is not None and not 0 <= span[0] < span[1] <= len(context):
                raise ValueError(f"Answer {i} is at characters {tuple(span)} of a context with {len(context)}.")
        inputs, encodings, owners = self.windows(*x)
        positions = [self._positions(encoding, y[owner]) for encoding, owner in zip(encodings, owners)]
        return inputs, self.labels_of(inputs, positions), np.ones((len(positions), 2), "float32")

    def _positions(self, encoding, span):
        """First and last token of a span of characters; (0, 0) if there is none or it is not all there."""
        if span is None:
            return 0, 0
        of_context = np.array([owner == 1 for owner in encoding.sequence_ids])
        begins, ends = np.array(encoding.offsets).T
        inside = np.flatnonzero(of_context & (ends > span[0]) & (begins < span[1]))
        whole = len(inside) and begins[inside[0]] <= span[0] and ends[inside[-1]] >= span[1]
        return (inside[0], inside[-1]) if whole else (0, 0)

    def answer(self, question, context, top_k=None, no_answer=False, threshold=0.0, longest=30, **kwargs):
        """The likeliest answers in all windows of a context.

        Args:
            question, context: a text each, or two lists of as many texts.
            top_k: how many answers, which differ in place; None: the best one alone, not in a list.
            no_answer: whether "" may be the answer: where token 0, in the window where it has least, scores more than
                `threshold` above the best answer (Rajpurkar et al. 2018).
            threshold: see there.
            longest: tokens of an answer at most.
            kwargs: for `predict`.

        Returns:
            A dictionary, or for `top_k` a list of them, and a list of either for lists: `answer`, a text; `start` and
            `end`, its characters in the context; `score`, the sum of its two logits; `no_answer_score`.
        """
        one = isinstance(question, str)
        questions, contexts = ([question], [context]) if one else (question, context)
        if not is_pair((list(questions), list(contexts))):
            raise ValueError("answer takes a question and a context, or two lists of texts.")
        inputs, encodings, owners = self.windows(questions, contexts)
        logits = self.predict(inputs, **{"verbose": 0, **kwargs})
        return self.decode(contexts, logits, encodings, owners, top_k, no_answer, threshold, longest)[
            0 if one else slice(None)
        ]

    def decode(self, contexts, logits, encodings, owners, top_k=None, no_answer=False, threshold=0.0, longest=30):
        """Answers, a list as `answer` gives it, from the logits (windows, 2, t) of `windows`."""
        found, absent = [{} for _ in contexts], np.full(len(contexts), np.inf)
        for (start, end), encoding, owner in zip(logits, encodings, owners):
            absent[owner] = min(absent[owner], start[0] + end[0])
            for first, last, score in _likeliest(start, end, encoding, top_k or 1, longest):
                place = encoding.offsets[first][0], encoding.offsets[last][1]
                found[owner][place] = max(score, found[owner].get(place, -np.inf))
        answers = []
        for context, spans, none in zip(contexts, found, absent.tolist()):
            ranked = [{"answer": context[a:b], "start": a, "end": b, "score": score, "no_answer_score": none}
                      for (a, b), score in sorted(spans.items(), key=lambda pair: -pair[1])]  # fmt: skip
            if no_answer and (not ranked or none - ranked[0]["score"] > threshold):
                ranked.insert(0, {"answer": "", "start": 0, "end": 0, "score": none, "no_answer_score": none})
            answers.append(ranked[:top_k] if top_k else ranked[0])
        return answers

    def get_config(self):
        return {**super().get_config(), "max_length": self.max_length, "stride": self.stride}


def _likeliest(start, end, encoding, count, longest):
    """(first, last, score) of the best spans of context tokens, best first."""
    of_context = np.flatnonzero([owner == 1 for owner in encoding.sequence_ids])
    if not len(of_context):
        return []
    begin, size = of_context[0], len(of_context)
    sums = start[begin : begin + size, None] + end[None, begin : begin + size]
    length = np.arange(size)[None, :] - np.arange(size)[:, None]
    sums = np.where((length >= 0) & (length < longest), sums, -np.inf)
    best = np.argsort(-sums, axis=None, kind="stable")[:count]
    return [(begin + i // size, begin + i % size, float(sums.flat[i])) for i in best if np.isfinite(sums.flat[i])]
