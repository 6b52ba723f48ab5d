"""The decode loop: prefill the prompts, then one token a row at a time, each row from its own position.

Prompts of different length share slots by padding on the left, so every row writes the same slot of the cache at each
step, in place. A cache is as long as what has been written, rounded up, and grows with it, that of a windowed layer up
to its window. Lengths are rounded up to buckets, so a new length rarely compiles again; a few steps run in one program,
without the host. It knows tokens, not text.
"""

import keras
import numpy as np
from keras import ops

from zoo import backend, processes, sharding

BUCKET, PROGRAMS = 32, 16
AT_ONCE = 8  # steps of one program, unless each token is waited for


def bucketed(n):
    """`n` rounded up to the bucket that shares its compiled program."""
    return -(-n // BUCKET) * BUCKET


def padded(arrays, limit=None):
    """Numpy arrays (b, t), padded with 0 to a bucket's length each, though not beyond `limit`."""
    wide = lambda t: max(t, min(bucketed(t), limit or bucketed(t)))  # noqa: E731
    return keras.tree.map_structure(lambda a: np.pad(a, ((0, 0), (0, wide(a.shape[1]) - a.shape[1]))), arrays)


def roomy(n):
    """The length of a cache for n tokens: 64, 128, 192, 256, and then two sizes up to each double."""
    size = 64
    while size < n:
        size += 64 if size < 256 else 2 ** (size.bit_length() - 2)
    return size


def slotted(rows, max_new_tokens, exact=False):
    """Prompts padded on the left: ids (b, slots), and 0 where `seen` (b, slots) is padding; the prompts' length.

    That is a bucket's, or with `exact` that of the longest.
    """
    length = max(map(len, rows))
    length = length if exact else bucketed(length)
    ids = np.zeros((len(rows), length + bucketed(max_new_tokens)), "int32")
    seen = np.ones_like(ids)
    for i, row in enumerate(rows):
        ids[i, length - len(row) : length] = row
        seen[i, : length - len(row)] = 0
    return ids, seen, length


def prompted(task, ids, encoded, seen, longest=None, ahead=1, padded=True):
    """Hidden states (b, length, d) of prompts (b, length), the filled cache, and the mask of the memory.

    Steps will write up to `ahead` tokens at once. Prompts that are not `padded` need no mask.
    """
    backbone, (batch, length) = task.backbone, ids.shape
    memory = memory_mask = None
    if encoded:
        memory, memory_mask = backbone.encode(encoded), backbone.memory_mask(encoded)
    seen_now = seen[:, :length]
    cache = backbone.new_cache(batch, seen.shape[1], memory, ahead)
    positions = ops.maximum(ops.cumsum(seen_now, axis=1) - 1, 0)
    seen_now = seen_now if padded else None
    return *backbone.decode(ids, cache, 0, positions, seen_now, memory_mask, longest), memory_mask


def prefilled(task, ids, encoded, seen, longest=None, ahead=1, padded=True):
    """Logits (b, v) after prompts (b, length), the filled cache, and the mask of the memory."""
    x, cache, memory_mask = prompted(task, ids, encoded, seen, longest, ahead, padded)
    return task.head(x[:, -1]), cache, memory_mask


def advanced(task, tokens, cache, index, seen, memory_mask, longest=None):
    """Hidden states (b, t, d) of tokens (b, t) in the slots from `index` on, and the cache with them."""
    slots = ops.arange(seen.shape[1], dtype="int32")
    positions = ops.sum(ops.where(slots[None] < index, seen, 0), axis=1, keepdims=True)
    positions = positions + ops.arange(tokens.shape[1], dtype="int32")
    if (limit := task.config.position_limit) is not None:  # guesses may run past the end, where none is taken
        positions = ops.minimum(positions, limit - 1)
    return task.backbone.decode(tokens, cache, index, positions, seen, memory_mask, longest)


def stepped(task, tokens, cache, index, seen, memory_mask, longest=None):
    """Logits (b, v) after tokens (b,) in slot `index`, and the cache with them."""
    x, cache = advanced(task, tokens[:, None], cache, index, seen, memory_mask, longest)
    return task.head(x[:, -1]), cache


def kept(task, key, make):
    """What `make()` compiled for `key`, kept on the task; the oldest of many are forgotten."""
    programs = task.__dict__.setdefault("_decode_programs", {})
    if key not in programs:
        if len(programs) >= PROGRAMS:
            programs.pop(next(iter(programs)))
        programs[key] = make()
    return programs[key]


def decode(task, rows, max_new_tokens, sampler, uniform, stop_ids, memory_inputs=None, scored=False, at_once=AT_ONCE):
    """Yields next token ids (b,) and their log-probabilities (b,), as numpy, until every row has stopped.

    Args:
        task: a model with `backbone` and `head`.
        rows: list of b prompts, each a non-empty list of token ids.
        max_new_tokens: at most so many are yielded.
        sampler: a `zoo.samplers.Sampler`.
        uniform: float32 (max_new_tokens, b) in [0, 1).
        stop_ids: token ids that end a row; what follows in it means nothing.
        memory_inputs: encoder inputs for an encoder-decoder.
        scored: whether log-probabilities are wanted, a pass over the vocabulary for each token; else they are 0.
        at_once: so many tokens, up to `AT_ONCE`, are made before the first of them is yielded.
    """
    vocabulary, tensor, done = task.config.vocabulary_size, sharding.placed, 0
    host = processes.whole if processes.count() > 1 else lambda x: np.asarray(ops.convert_to_numpy(x))
    sampler.check(vocabulary)
    ids, seen, length = slotted(rows, 0, exact=not backend.compiles())
    slots, texts, stopped = roomy(length + 1), [[] for _ in rows], np.zeros(len(rows), bool)
    kind = sampler.in_programs, scored, backend.compiles() or not seen.all()
    prefill, run = kept(task, kind, lambda: _programs(task, *kind))
    ends = ops.convert_to_tensor(np.isin(np.arange(vocabulary), stop_ids))
    fixed = {"longest": tensor(np.array([len(row) + max_new_tokens for row in rows], "int32")), "ends": ends,
             "begin": tensor(np.array(length, "int32"))}  # fmt: skip

    def given(count):
        """What `count` tokens depend on besides cache and tokens; they are made with one mask, or none."""
        mask = sampler.mask(texts, vocabulary, stop_ids, max_new_tokens, stopped)
        numbers = np.zeros((len(rows), AT_ONCE), "float32")
        numbers[:, :count] = uniform[done : done + count].T
        return {**fixed, "uniform": tensor(numbers), "mask": None if mask is None else tensor(mask),
                "seen": tensor(_widened(seen, slots, 1))}  # fmt: skip

    encoded = {name: tensor(x) for name, x in (memory_inputs or {}).items()}
    past = tensor(_widened(ids, slots, 0)) if sampler.reads_tokens else ()
    found, logs, cache, memory_mask = prefill(tensor(ids), encoded, past, given(1))
    fixed["memory_mask"], count = memory_mask, 1
    while True:
        found, logs = host(found), host(logs)
        for i in range(int(count)):
            yield found[:, i], logs[:, i]
            stopped, done = stopped | np.isin(found[:, i], stop_ids), done + 1
            if stopped.all() or done == max_new_tokens:
                return
            for text, token in zip(texts, found[:, i]):
                text.append(int(token))
        index = length + done - 1  # where the last token goes
        if index == slots:
            slots = roomy(slots + 1)
            cache = _grown(cache, task.backbone.decoder.rooms(slots))
            past = ops.pad(past, ((0, 0), (0, slots - index))) if sampler.reads_tokens else ()
        count, most = 1, min(at_once, AT_ONCE, max_new_tokens - done, slots - index)
        while count < most and not any(sampler.masks(done + i, max_new_tokens) for i in (0, count)):
            count += 1
        empty = [np.zeros((len(rows), AT_ONCE), dtype) for dtype in ("int32", "float32")]
        state = *map(tensor, (np.array(0, "int32"), *empty, found[:, i], stopped)), cache, past
        scalars = {"index": tensor(np.array(index, "int32")), "count": tensor(np.array(count, "int32"))}
        count, found, logs, _, _, cache, past = run(state, {**given(count), **scalars})


def _widened(x, slots, value):
    """A numpy array (b, s) with more columns of a value."""
    return np.pad(x, ((0, 0), (0, slots - x.shape[1])), constant_values=value)


def _grown(cache, rooms):
    """A cache with empty slots behind its own, so that each layer has its room; what has come round stays as it is."""
    more = lambda x, room: ops.pad(x, ((0, 0), (0, 0), (0, room - x.shape[2]), (0, 0)))  # noqa: E731
    return [{**layer, "self": tuple(more(x, room) for x in layer["self"])} for layer, room in zip(cache, rooms)]


def _programs(task, sampler, scored, padded):
    """The compiled prefill, and the compiled loop of a few steps, of a task with a sampler; see `prompted`."""

    def choose(logits, past, end, column, given):
        """Tokens (b, 1) and their log-probabilities."""
        read = {"tokens": past, "seen": given["seen"], "begin": given["begin"], "end": end}
        uniform = ops.take(given["uniform"], column, axis=1)
        tokens = sampler(logits, uniform, mask=given["mask"], **(read if sampler.reads_tokens else {}))[:, None]
        logs = ops.zeros_like(uniform)[:, None]
        if scored:
            logs = ops.take_along_axis(ops.log_softmax(logits, axis=-1), tokens, axis=1)
        return tokens, logs

    def prefill(ids, encoded, past, given):
        logits, cache, memory_mask = prefilled(task, ids, encoded, given["seen"], given["longest"], padded=padded)
        return *choose(logits, past, ids.shape[1], 0, given), cache, memory_mask

    def more(state, given):
        i, stopped = state[0], state[4]
        return ops.logical_and(i < given["count"], ops.logical_not(ops.all(stopped)))

    def step(state, given):
        i, found, logs, tokens, stopped, cache, past = state
        slot = given["index"] + i
        logits, cache = stepped(task, tokens, cache, slot, given["seen"], given["memory_mask"], given["longest"])
        if sampler.reads_tokens:
            past = ops.slice_update(past, (0, slot), tokens[:, None])
        tokens, log = choose(logits, past, slot + 1, i, given)
        found, logs = ops.slice_update(found, (0, i), tokens), ops.slice_update(logs, (0, i), log)
        tokens = tokens[:, 0]
        return i + 1, found, logs, tokens, ops.logical_or(stopped, ops.take(given["ends"], tokens)), cache, past

    return backend.compiled(prefill, task.variables), backend.repeated(more, step, task.variables)
