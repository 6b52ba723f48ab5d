"""The decode loop: prefill the prompts, then one token a row at a time, each row from its own position.

Prompts of different length share slots by padding on the left, so every row writes the same slot of the cache at each
step, in place. Lengths are rounded up to buckets, so a new prompt length rarely compiles again. It knows tokens, not
text.
"""

import numpy as np
from keras import ops

from zoo import backend, sharding

BUCKET, PROGRAMS = 32, 16


def bucketed(n):
    """`n` rounded up to the bucket that shares its compiled program."""
    return -(-n // BUCKET) * BUCKET


def slotted(rows, max_new_tokens):
    """Prompts padded on the left: ids (b, slots), and 0 where `seen` (b, slots) is padding; the prompts' length."""
    length = bucketed(max(map(len, rows)))
    ids = np.zeros((len(rows), length + bucketed(max_new_tokens)), "int32")
    seen = np.ones_like(ids)
    for i, row in enumerate(rows):
        ids[i, length - len(row) : length] = row
        seen[i, : length - len(row)] = 0
    return ids, seen, length


def prompted(task, ids, encoded, seen):
    """Hidden states (b, length, d) of prompts (b, length), the filled cache, and the mask of the memory."""
    backbone, (batch, length) = task.backbone, ids.shape
    memory = memory_mask = None
    if encoded:
        memory, memory_mask = backbone.encode(encoded), backbone.memory_mask(encoded)
    seen_now = seen[:, :length]
    cache = backbone.new_cache(batch, seen.shape[1], memory)
    positions = ops.maximum(ops.cumsum(seen_now, axis=1) - 1, 0)
    return *backbone.decode(ids, cache, 0, positions, seen_now, memory_mask), memory_mask


def prefilled(task, ids, encoded, seen):
    """Logits (b, v) after prompts (b, length), the filled cache, and the mask of the memory."""
    x, cache, memory_mask = prompted(task, ids, encoded, seen)
    return task.head(x[:, -1]), cache, memory_mask


def advanced(task, tokens, cache, index, seen, memory_mask):
    """Hidden states (b, t, d) of tokens (b, t) in the slots from `index` on, and the cache with them."""
    slots = ops.arange(seen.shape[1], dtype="int32")
    positions = ops.sum(ops.where(slots[None] < index, seen, 0), axis=1, keepdims=True)
    positions = positions + ops.arange(tokens.shape[1], dtype="int32")
    if (limit := task.config.position_limit) is not None:  # guesses may run past the end, where none is taken
        positions = ops.minimum(positions, limit - 1)
    return task.backbone.decode(tokens, cache, index, positions, seen, memory_mask)


def stepped(task, tokens, cache, index, seen, memory_mask):
    """Logits (b, v) after tokens (b,) in slot `index`, and the cache with them."""
    x, cache = advanced(task, tokens[:, None], cache, index, seen, memory_mask)
    return task.head(x[:, -1]), cache


def kept(task, key, make):
    """What `make()` compiled for `key`, kept on the task; the oldest of many are forgotten."""
    programs = task.__dict__.setdefault("_decode_programs", {})
    if key not in programs:
        if len(programs) >= PROGRAMS:
            programs.pop(next(iter(programs)))
        programs[key] = make()
    return programs[key]


def decode(task, rows, max_new_tokens, sampler, uniform, stop_ids, memory_inputs=None, scored=False):
    """Yields next token ids (b,) as numpy, and their log-probabilities (b,) or None, until every row has stopped.

    Args:
        task: a model with `backbone` and `head`.
        rows: list of b prompts, each a non-empty list of token ids.
        max_new_tokens: at most so many are yielded.
        sampler: a `zoo.samplers.Sampler`.
        uniform: float32 (max_new_tokens, b) in [0, 1).
        stop_ids: token ids that end a row; what follows in it means nothing.
        memory_inputs: encoder inputs for an encoder-decoder.
        scored: whether log-probabilities are wanted, a pass over the vocabulary for each token.
    """
    sampler.check(task.config.vocabulary_size)
    ids, seen, length = slotted(rows, max_new_tokens)
    prefill, step = kept(task, (sampler.in_programs, scored), lambda: _programs(task, sampler.in_programs, scored))
    tensor, texts, stopped = sharding.placed, [[] for _ in rows], np.zeros(len(rows), bool)
    encoded = {k: tensor(v) for k, v in (memory_inputs or {}).items()}

    def mask():
        found = sampler.mask(texts, task.config.vocabulary_size, stop_ids, max_new_tokens, stopped)
        return None if found is None else tensor(found)

    past = (tensor(ids), tensor(np.int32(length))) if sampler.reads_tokens else None
    prompt, seen = tensor(ids[:, :length]), tensor(seen)
    tokens, logs, cache, memory_mask = prefill(prompt, encoded, seen, tensor(uniform[0]), past, mask())
    for i in range(max_new_tokens):
        current = np.asarray(ops.convert_to_numpy(tokens))
        yield current, logs
        stopped |= np.isin(current, stop_ids)
        if stopped.all() or i + 1 == max_new_tokens:
            return
        for text, token in zip(texts, current):
            text.append(int(token))
        index = tensor(np.array(length + i, "int32"))
        tokens, logs, cache, past = step(tokens, cache, index, seen, memory_mask, tensor(uniform[i + 1]), past, mask())


def _programs(task, sampler, scored):
    """The compiled prefill and step of a task with a sampler."""

    def choose(logits, uniform, past, seen, end, mask):
        given = {} if past is None else {"tokens": past[0], "seen": seen, "begin": past[1], "end": end}
        tokens = sharding.everywhere(sampler(logits, uniform, mask=mask, **given))
        if not scored:
            return tokens, None
        logs = ops.take_along_axis(ops.log_softmax(logits, axis=-1), tokens[:, None], axis=1)[:, 0]
        return tokens, sharding.everywhere(logs)

    def prefill(ids, encoded, seen, uniform, past, mask):
        logits, cache, memory_mask = prefilled(task, ids, encoded, seen)
        return *choose(logits, uniform, past, seen, ids.shape[1], mask), cache, memory_mask

    def step(tokens, cache, index, seen, memory_mask, uniform, past, mask):
        logits, cache = stepped(task, tokens, cache, index, seen, memory_mask)
        if past is not None:
            past = ops.slice_update(past[0], (0, index), tokens[:, None]), past[1]
        return *choose(logits, uniform, past, seen, index + 1, mask), cache, past

    return backend.compiled(prefill, task.variables), backend.compiled(step, task.variables, donate=(1,))
