"""Beam search: the texts of a prompt that are likeliest as wholes.

The model's step, the constraints and the choice of candidates are compiled; which texts go on and which have ended is
kept on the host. When texts change places, their own keys are moved, those of an encoder's memory are not.
"""

import dataclasses

import numpy as np
from keras import ops

from zoo import backend, sharding
from zoo.generation.loop import kept, prefilled, slotted, stepped
from zoo.samplers.constraints import BANNED, NEVER


@dataclasses.dataclass
class Hypothesis:
    """A text on the way or at its end: new ids, log-probabilities of each, and their sum, or at the end the score."""

    ids: list
    logs: list
    score: float


def search(task, rows, max_new_tokens, beam, stop_ids, memory_inputs=None):
    """The best texts of each prompt.

    Args:
        task, rows, max_new_tokens, memory_inputs: as for `loop.decode`; at least one token.
        beam: a `zoo.samplers.Beam`.
        stop_ids: token ids that end a text; it holds the one that did.

    Returns:
        A list a prompt of at most `beam.num_returns` `Hypothesis`, best first.
    """
    size, vocabulary = beam.size, task.config.vocabulary_size
    beam.check(vocabulary)
    count = min(max(2, 1 + len(stop_ids)) * size, size * vocabulary)  # enough that `size` of them go on
    key = beam.in_programs, count
    prefill, step = kept(task, key, lambda: _programs(task, beam.in_programs, count))
    ids, seen, length = slotted(rows, max_new_tokens)
    tensor = ops.convert_to_tensor
    encoded = {k: tensor(v) for k, v in (memory_inputs or {}).items()}
    longest = np.array([len(row) + max_new_tokens for row in rows], "int32")
    longest, each_longest = tensor(longest), tensor(np.repeat(longest, size))
    order, searches = None, [_Search(beam, stop_ids, max_new_tokens) for _ in rows]
    past = np.repeat(ids, size, axis=0) if beam.reads_tokens else None
    prompt, rows_seen = tensor(ids[:, :length]), tensor(np.repeat(seen, size, axis=0))
    for i in range(max_new_tokens):
        texts = [text.ids for s in searches for text in s.running]
        scores = tensor(np.array([[text.score for text in s.running] for s in searches], "float32"))
        impossible = [text.score <= BANNED for s in searches for text in s.running]
        mask = beam.mask(texts, vocabulary, stop_ids, max_new_tokens, impossible)
        mask = None if mask is None else tensor(mask)
        if past is not None and i:
            past[:, length : length + i] = texts
        history = None if past is None else (tensor(past), tensor(np.int32(length)))
        if i == 0:
            values, chosen, cache, memory_mask = prefill(prompt, encoded, tensor(seen), longest, rows_seen, scores,
                                                         history, mask)  # fmt: skip
        else:
            last = tensor(np.array([text[-1] for text in texts], "int32"))
            index = tensor(np.array(length + i - 1, "int32"))
            values, chosen, cache = step(last, cache, tensor(order), index, rows_seen, memory_mask, each_longest,
                                         scores, history, mask)  # fmt: skip
        values, chosen = (np.asarray(ops.convert_to_numpy(x)) for x in (values, chosen))
        origins = [s.advance(v, c // vocabulary, c % vocabulary) for s, v, c in zip(searches, values, chosen)]
        order = np.concatenate([row * size + np.array(o, "int32") for row, o in enumerate(origins)]).astype("int32")
        if all(s.done for s in searches):
            break
    return [s.ended[: beam.num_returns] for s in searches]


class _Search:
    """The texts of one prompt."""

    def __init__(self, beam, stop_ids, max_new_tokens):
        self.beam, self.stop_ids, self.longest = beam, frozenset(stop_ids), max_new_tokens
        # One text at first: the others would be the same.
        self.running = [Hypothesis([], [], NEVER if i else 0.0) for i in range(beam.size)]
        self.ended, self.done = [], False

    def advance(self, values, origins, tokens):
        """Takes the candidates, best first; returns which text each one that goes on comes from."""
        beam, candidates = self.beam, []
        for value, origin, token in zip(values.tolist(), origins.tolist(), tokens.tolist()):
            old = self.running[origin]
            candidates.append((origin, Hypothesis([*old.ids, token], [*old.logs, value - old.score], value)))
        length = len(candidates[0][1].ids)
        ends = [length == self.longest or text.ids[-1] in self.stop_ids for _, text in candidates]
        if not self.done:
            scale = length**beam.length_penalty
            new = [dataclasses.replace(text, score=text.score / scale)
                   for (_, text), end in zip(candidates[: beam.size], ends) if end and text.score > BANNED]  # fmt: skip
            if length == self.longest and not self.ended + new:  # all is banned: the least bad
                new = [candidates[0][1]]
            self.ended = sorted(self.ended + new, key=lambda text: -text.score)[: beam.size]
        on = [candidate for candidate, end in zip(candidates, ends) if not end or length == self.longest]
        on = (on + [(0, dataclasses.replace(candidates[0][1], score=NEVER))] * beam.size)[: beam.size]
        self.running = [text for _, text in on]
        self.done = self.done or self._is_done(length)
        return [origin for origin, _ in on]

    def _is_done(self, length):
        """Whether no text on the way can become one of the best."""
        beam = self.beam
        if self.ended and self.running[0].score <= BANNED:
            return True
        if len(self.ended) < beam.size:
            return False
        if beam.early_stopping is True:
            return True
        length = self.longest if beam.early_stopping == "never" and beam.length_penalty > 0 else length
        return self.running[0].score / length**beam.length_penalty <= self.ended[-1].score


def _programs(task, beam, count):
    """The compiled prefill and step; both give the `count` best scores (b, count) and places in (b, size * v)."""
    size = beam.size

    def best(logs, scores, past, seen, end, mask):
        given = {} if past is None else {"tokens": past[0], "seen": seen, "begin": past[1], "end": end}
        logs = beam.constrained(logs, mask=mask, **given)
        logs = ops.log_softmax(logs, axis=-1) if beam.renormalize else logs
        total = ops.reshape(logs, (*scores.shape, -1)) + scores[:, :, None]
        values, places = ops.top_k(ops.reshape(total, (scores.shape[0], -1)), count)
        return sharding.everywhere(values), sharding.everywhere(ops.cast(places, "int32"))

    def prefill(ids, encoded, seen, longest, rows_seen, scores, past, mask):
        logits, cache, memory_mask = prefilled(task, ids, encoded, seen, longest)
        logs = ops.repeat(ops.log_softmax(logits, axis=-1), size, axis=0)
        cache = [{name: tuple(ops.repeat(x, size, axis=0) for x in pair) for name, pair in layer.items()}
                 for layer in cache]  # fmt: skip
        memory_mask = None if memory_mask is None else ops.repeat(memory_mask, size, axis=0)
        return *best(logs, scores, past, rows_seen, ids.shape[1], mask), cache, memory_mask

    def step(tokens, cache, order, index, seen, memory_mask, longest, scores, past, mask):
        moved = [{**layer, "self": tuple(ops.take(x, order, axis=0) for x in layer["self"])} for layer in cache]
        logits, cache = stepped(task, tokens, moved, index, seen, memory_mask, longest)
        return *best(ops.log_softmax(logits, axis=-1), scores, past, seen, index + 1, mask), cache

    return backend.compiled(prefill, task.variables), backend.compiled(step, task.variables, donate=(1,))
