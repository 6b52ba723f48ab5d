"""Speculative decoding: a small model guesses a few tokens, the large one checks them all in one pass.

Leviathan et al. 2023 and Chen et al. 2023: a guess x, drawn from the draft's distribution q, is kept with probability
min(1, p(x) / q(x)) under the model's p, and else replaced by a draw from what p has more of than q. So each token has
the model's distribution, and with temperature 0 it is the model's likeliest, whatever the draft is.

Each place of a text has uniform numbers of its own and is always decided like this, with no free token after a whole
run of good guesses. So what a row becomes depends on no other row and not on how many tokens are guessed at a time.
Rows share the slots of the caches: all go on from the first place where one of them was corrected, and what was written
behind it is overwritten.
"""

import numpy as np
from keras import ops

from zoo import backend, processes, sharding
from zoo.generation.loop import advanced, kept, prefilled, slotted
from zoo.samplers.sampler import pick

NUMBERS = 3  # uniform numbers of a place: for the guess, for whether it is kept, for what replaces it


def check(task, draft, sampler, count):
    """Raises a ValueError unless `draft` can guess for `task`."""
    if not hasattr(draft, "backbone") or draft.config.architecture != task.config.architecture:
        raise ValueError(f"draft must be a {type(task).__name__} like the model, got {type(draft).__name__}.")
    if draft.config.vocabulary_size != task.config.vocabulary_size:
        raise ValueError(f"The draft has vocabulary_size={draft.config.vocabulary_size}, the model "
                         f"{task.config.vocabulary_size}: a draft must share the model's tokenizer.")  # fmt: skip
    limit, needed = draft.config.position_limit, task.config.position_limit
    if task.config.architecture == "encoder_decoder" and limit is not None and (needed is None or limit < needed):
        raise ValueError(f"The draft has {limit} positions, the model {needed or 'any number of'}: it cannot read all "
                         "that the model reads.")  # fmt: skip
    if any(one.backbone.token.adapter is not None for one in (task, draft)):
        raise ValueError("A draft does not guess for a model with a prompt in use: leave one of them out.")
    known = None not in (draft.tokenizer, task.tokenizer)
    if known and draft.tokenizer.fingerprint != task.tokenizer.fingerprint:  # which may be no more than a template
        for i in range(task.tokenizer.vocabulary_size):
            ours, theirs = task.tokenizer.id_to_token(i), draft.tokenizer.id_to_token(i)
            if ours != theirs:
                raise ValueError(f"Token {i} is {theirs!r} for the draft and {ours!r} for the model: a draft must "
                                 "share the model's tokenizer.")  # fmt: skip
    if not hasattr(sampler, "probabilities"):
        raise ValueError(f"A draft guesses for one text at a time, which {type(sampler).__name__} does not make.")
    if callable(sampler.allowed_tokens):
        raise ValueError("allowed_tokens is a function, which cannot be asked while a draft guesses: leave one out.")
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        raise ValueError(f"draft_tokens must be an integer of at least 1, got {count!r}.")


def decode(task, draft, count, rows, max_new_tokens, sampler, uniform, stop_ids, memory_inputs=None, scored=False):
    """Yields next token ids (b,), their log-probabilities (b,), or 0, and whether each was guessed (b,), as numpy.

    Args:
        task, rows, max_new_tokens, sampler, stop_ids, memory_inputs, scored: as for `loop.decode`.
        draft: a task of the same vocabulary.
        count: tokens that it guesses at a time.
        uniform: float32 (max_new_tokens, b, NUMBERS) in [0, 1).
    """
    ids, seen, length = slotted(rows, max_new_tokens + count)
    tensor, key = sharding.placed, (sampler.in_programs, scored, draft, count)
    start, turn = kept(task, key, lambda: _programs((task, draft), sampler.in_programs, scored, count))
    encoded = {name: tensor(x) for name, x in (memory_inputs or {}).items()}
    uniform = np.concatenate([uniform, np.zeros((count, *uniform.shape[1:]), "float32")])

    def mask(done):
        """Of the next `count` places, (count, b, v), or None; it depends on their number alone."""
        found = [sampler.mask([[0] * (done + j)] * len(rows), task.config.vocabulary_size, stop_ids, max_new_tokens)
                 for j in range(count)]  # fmt: skip
        if all(x is None for x in found):
            return None
        whole = np.ones((len(rows), task.config.vocabulary_size), bool)
        return tensor(np.stack([whole if x is None else x for x in found]))

    past = (tensor(ids), tensor(np.int32(length))) if sampler.reads_tokens else None
    prompt, seen, stopped, done = tensor(ids[:, :length]), tensor(seen), np.zeros(len(rows), bool), 0
    longest = tensor(np.array([len(row) + max_new_tokens for row in rows], "int32"))
    first = tensor(uniform[0]), past, mask(0)
    tokens, good, logs, caches, memory_masks = start(prompt, encoded, seen, longest, *first)
    fixed = seen, longest, memory_masks
    while True:
        tokens, good, logs = map(processes.whole, (tokens, good, logs))
        ahead = np.where(stopped, count, np.cumprod(good, axis=1).sum(axis=1)).min()
        for j in range(min(ahead + 1, tokens.shape[1])):
            yield tokens[:, j], logs[:, j], good[:, j]
            stopped |= np.isin(tokens[:, j], stop_ids)
            done += 1
            if stopped.all() or done == max_new_tokens:
                return
        index, numbers = tensor(np.array(length + done - 1, "int32")), tensor(uniform[done : done + count])
        last = tensor(tokens[:, j])
        tokens, good, logs, caches, past = turn(last, caches, index, fixed, numbers, past, mask(done))


def _programs(tasks, sampler, scored, count):
    """The compiled prefill of both tasks, the model and its draft, and a turn of guesses and their check."""
    model, draft = tasks

    def probabilities(logits, past, seen, end, mask):
        given = {} if past is None else {"tokens": past[0], "seen": seen, "begin": past[1], "end": end}
        return sampler.probabilities(logits, mask=mask, **given)

    def scores(logits, tokens):
        if not scored:
            return ops.zeros_like(logits[..., 0])
        return ops.take_along_axis(ops.log_softmax(logits, axis=-1), tokens[..., None], axis=-1)[..., 0]

    def start(ids, encoded, seen, longest, uniform, past, masks):
        found = [prefilled(task, ids, encoded, seen, longest, ahead=count) for task in tasks]
        logits = found[0][0]
        p = probabilities(logits, past, seen, ids.shape[1], None if masks is None else masks[0])
        tokens = pick(p, uniform[:, 0])[:, None]
        logs = scores(logits[:, None], tokens)
        _, caches, memory_masks = map(list, zip(*found))
        return tokens, ops.zeros_like(tokens, dtype="bool"), logs, caches, memory_masks

    def turn(tokens, caches, index, fixed, uniform, past, masks):
        seen, longest, memory_masks = fixed
        read, guesses, drafted, (ours, theirs) = [], [], [], caches
        for j in range(count):
            read.append(tokens)
            if past is not None:
                past = ops.slice_update(past[0], (0, index + j), tokens[:, None]), past[1]
            x, theirs = advanced(draft, tokens[:, None], theirs, index + j, seen, memory_masks[1], longest)
            mask = None if masks is None else masks[j]
            drafted.append(probabilities(draft.head(x[:, -1]), past, seen, index + j + 1, mask))
            tokens = pick(drafted[-1], uniform[j, :, 0])
            guesses.append(tokens)
        x, ours = advanced(model, ops.stack(read, axis=1), ours, index, seen, memory_masks[0], longest)
        logits, chosen, good = model.head(x), [], []
        for j, (guess, q) in enumerate(zip(guesses, drafted)):
            mask = None if masks is None else masks[j]
            p = probabilities(logits[:, j], past, seen, index + j + 1, mask)
            at = guess[:, None]
            good.append(uniform[j, :, 1] * ops.take_along_axis(q, at, axis=1)[:, 0]
                        < ops.take_along_axis(p, at, axis=1)[:, 0])  # fmt: skip
            rest = ops.maximum(p - q, 0.0)
            rest = ops.where(ops.sum(rest, axis=-1, keepdims=True) > 0, rest, p)  # rounding may leave nothing
            chosen.append(ops.where(good[-1], guess, pick(rest, uniform[j, :, 2])))
        chosen = ops.stack(chosen, axis=1)
        return chosen, ops.stack(good, axis=1), scores(logits, chosen), [ours, theirs], past

    variables = [v for task in tasks for v in task.variables]
    return backend.compiled(start, variables), backend.compiled(turn, variables, donate=(1,))
