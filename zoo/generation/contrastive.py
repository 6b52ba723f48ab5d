"""Contrastive search: one token a row at a time, from candidates that the model has all looked at.

The candidates of a step are rows that share their past. The keys of the one that is taken stay in the cache, and its
hidden state among those that later candidates are compared with.
"""

import numpy as np
from keras import ops, tree

from zoo import backend, processes, sharding
from zoo.generation.loop import advanced, kept, prompted, slotted
from zoo.samplers.constraints import BANNED, NEVER


def decode(task, rows, max_new_tokens, sampler, stop_ids, memory_inputs=None, scored=False):
    """Yields next token ids (b,) and their log-probabilities (b,), or 0, as numpy, until every row has stopped.

    Arguments are those of `loop.decode`; `sampler` is a `zoo.samplers.Contrastive`.
    """
    vocabulary, tensor = task.config.vocabulary_size, sharding.placed
    ids, seen, length = slotted(rows, max_new_tokens)
    prefill, step = kept(task, (sampler.in_programs, scored), lambda: _programs(task, sampler.in_programs, scored))
    encoded = {name: tensor(x) for name, x in (memory_inputs or {}).items()}
    past = (tensor(ids), tensor(np.int32(length))) if sampler.reads_tokens else None
    prompt, seen, texts, stopped = tensor(ids[:, :length]), tensor(seen), [[] for _ in rows], np.zeros(len(rows), bool)
    longest = tensor(np.array([len(row) + max_new_tokens for row in rows], "int32"))
    logits, states, cache, memory_mask = prefill(prompt, encoded, seen, longest)
    fixed = seen, longest, memory_mask
    for i in range(max_new_tokens):
        mask = sampler.mask(texts, vocabulary, stop_ids, max_new_tokens, stopped)
        mask = None if mask is None else tensor(mask)
        index = tensor(np.array(length + i, "int32"))
        tokens, logs, logits, states, cache, past = step(logits, states, cache, index, fixed, past, mask)
        current = processes.whole(tokens)
        yield current, processes.whole(logs)
        stopped |= np.isin(current, stop_ids)
        if stopped.all():
            return
        for text, token in zip(texts, current):
            text.append(int(token))


def _programs(task, sampler, scored):
    """The compiled prefill, and a step from the logits of one token to those of the next."""
    k = min(sampler.k, task.config.vocabulary_size)

    def prefill(ids, encoded, seen, longest):
        x, cache, memory_mask = prompted(task, ids, encoded, seen, longest)
        states = ops.pad(_unit(x), ((0, 0), (0, seen.shape[1] - ids.shape[1]), (0, 0)))
        return task.head(x[:, -1]), states, cache, memory_mask

    def step(logits, states, cache, index, fixed, past, mask):
        seen, longest, memory_mask = fixed
        given = {} if past is None else {"tokens": past[0], "seen": seen, "begin": past[1], "end": index}
        values = ops.log_softmax(sampler.constrained(logits, mask=mask, **given), axis=-1)
        values, candidates = ops.top_k(values, k)
        each = ops.repeat(ops.arange(logits.shape[0], dtype="int32"), k)
        wide = tree.map_structure(lambda y: ops.take(y, each, axis=0), cache)  # copies, for they are written to
        same = [None if y is None else ops.repeat(y, k, axis=0) for y in (seen, memory_mask, longest)]
        candidates = ops.reshape(ops.cast(candidates, "int32"), (-1, 1))
        x, wide = advanced(task, candidates, wide, index, *same)
        new = ops.reshape(_unit(x), (-1, k, x.shape[-1]))
        before = (seen > 0) & (ops.arange(seen.shape[1], dtype="int32")[None] < index)
        likeness = ops.where(before[:, None], ops.einsum("bkd,bsd->bks", new, states), -1.0)
        score = (1 - sampler.alpha) * ops.exp(values) - sampler.alpha * ops.max(likeness, axis=-1)
        best = ops.cast(ops.argmax(ops.where(values > BANNED / 2, score, NEVER), axis=-1), "int32")
        row = ops.arange(best.shape[0], dtype="int32") * k + best
        tokens = ops.take(candidates[:, 0], row)
        states = ops.slice_update(states, (0, index, 0), ops.take(_unit(x), row, axis=0))
        if past is not None:
            past = ops.slice_update(past[0], (0, index), tokens[:, None]), past[1]
        logs = ops.zeros_like(logits[:, 0])
        if scored:
            logs = ops.take_along_axis(ops.log_softmax(logits, axis=-1), tokens[:, None], axis=1)[:, 0]
        cache = tree.map_structure(lambda y: ops.take(y, row, axis=0), wide)
        return tokens, logs, task.head(ops.take(x[:, 0], row, axis=0)), states, cache, past

    return backend.compiled(prefill, task.variables), backend.compiled(step, task.variables, donate=(0, 1, 2))


def _unit(x):
    """Vectors (…, d) of length 1, in float32."""
    return ops.normalize(ops.cast(x, "float32"), axis=-1)
