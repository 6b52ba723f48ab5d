"""The decode loop: prefill the prompts, then one token a row at a time, each row from its own position.

Prompts of different length share slots by padding on the left, so every row writes the same slot of the cache at each
step, in place. Lengths are rounded up to buckets, so a new prompt length rarely compiles again. It knows tokens, not
text.
"""

import numpy as np
from keras import ops

from zoo import backend, sharding

BUCKET = 32


def bucketed(n):
    """`n` rounded up to the bucket that shares its compiled program."""
    return -(-n // BUCKET) * BUCKET


def decode(task, rows, max_new_tokens, sampler, seed, stop_ids, memory_inputs=None):
    """Yields the next token ids (b,) until every row has stopped.

    Args:
        task: a model with `backbone` and `head`.
        rows: list of b prompts, each a non-empty list of token ids.
        max_new_tokens: at most so many are yielded.
        sampler: see `zoo.samplers`.
        seed: integer.
        stop_ids: token ids that end a row; after one, the row yields it again.
        memory_inputs: encoder inputs for an encoder-decoder.
    """
    length = bucketed(max(map(len, rows)))
    slots = length + bucketed(max_new_tokens)
    ids = np.zeros((len(rows), length), "int32")
    seen = np.ones((len(rows), slots), "int32")
    for i, row in enumerate(rows):
        ids[i, length - len(row) :] = row
        seen[i, : length - len(row)] = 0
    uniform = np.random.default_rng(seed).random((max_new_tokens, len(rows)), dtype="float32")
    prefill, step = _programs(task, sampler)
    tensor = sharding.placed
    encoded = {k: tensor(v) for k, v in (memory_inputs or {}).items()}
    state, seen = (tensor(ids), encoded), tensor(seen)
    tokens, cache, memory_mask = prefill(*state, seen, tensor(uniform[0]))
    stopped = np.zeros(len(rows), bool)
    for i in range(max_new_tokens):
        current = np.asarray(ops.convert_to_numpy(tokens))
        yield current
        stopped |= np.isin(current, stop_ids)
        if stopped.all() or i + 1 == max_new_tokens:
            return
        index = tensor(np.array(length + i, "int32"))
        tokens, cache = step(tokens, cache, index, seen, memory_mask, tensor(uniform[i + 1]))


def _programs(task, sampler):
    """The compiled prefill and step of a task with a sampler, kept on the task."""
    kept = task.__dict__.setdefault("_decode_programs", {})
    if sampler in kept:
        return kept[sampler]
    backbone, head = task.backbone, task.head

    def prefill(ids, encoded, seen, uniform):
        batch, length = ids.shape
        memory = memory_mask = None
        if encoded:
            memory, memory_mask = backbone.encode(encoded), backbone.memory_mask(encoded)
        seen_now = seen[:, :length]
        cache = backbone.new_cache(batch, seen.shape[1], memory)
        positions = ops.maximum(ops.cumsum(seen_now, axis=1) - 1, 0)
        x, cache = backbone.decode(ids, cache, 0, positions, seen_now, memory_mask)
        return sampler(head(x[:, -1]), uniform), cache, memory_mask

    def step(tokens, cache, index, seen, memory_mask, uniform):
        slots = ops.arange(seen.shape[1], dtype="int32")
        positions = ops.sum(ops.where(slots[None] < index, seen, 0), axis=1, keepdims=True)
        x, cache = backbone.decode(tokens[:, None], cache, index, positions, seen, memory_mask)
        return sampler(head(x[:, -1]), uniform), cache

    programs = (backend.compiled(prefill, task.variables), backend.compiled(step, task.variables, donate=(1,)))
    kept[sampler] = programs
    return programs
