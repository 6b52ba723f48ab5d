"""Conversations, and answers that are preferred, as the arrays a decoder is tuned on: labels in the answers alone.

A conversation is the text that a chat template makes of its messages; which tokens are an answer's follows from the
text before and after it. It knows the tokenizer's methods, and no model.
"""

import numpy as np

from zoo.data.packing import best_fit_decreasing
from zoo.data.rows import restarted_positions


def answers_marked(tokenizer, messages, max_length=None):
    """Token ids of a conversation, and which of them the model is to write.

    An answer is what the template adds for a message of the assistant behind the prompt for it, the token that ends the
    turn included, white space behind that not.

    Args:
        tokenizer: a `Tokenizer` with a chat template.
        messages: list of dictionaries with `role` and `content`.
        max_length: tokens to keep.

    Returns: (ids, marks): lists of integers and of truth values.

    Raises:
        ValueError: a template that writes earlier messages otherwise once others follow.
    """
    whole, spans = tokenizer.apply_chat_template(messages, add_generation_prompt=False), []
    for i, message in enumerate(messages):
        if message["role"] == "assistant":
            before = tokenizer.apply_chat_template(messages[:i]) if i else ""
            after = tokenizer.apply_chat_template(messages[: i + 1], add_generation_prompt=False).rstrip()
            if not (whole.startswith(after) and after.startswith(before)):
                raise ValueError("The chat template writes a message otherwise once others follow it, so that an "
                                 "answer's tokens are not to be told: use another template.")  # fmt: skip
            spans.append((len(before), len(after)))
    encoding = tokenizer.encode_with_offsets(whole, add_special_tokens=False, max_length=max_length)
    marks = [any(start >= a and a < end <= b for a, b in spans) for start, end in encoding.offsets]
    return encoding.ids, marks


def instructions(tokenizer, conversations, max_length, packed=False):
    """Conversations as (x, y, w) for a `CausalLM`: labels are the next tokens, of weight 1 in answers alone.

    Args:
        tokenizer: a `Tokenizer` with a chat template.
        conversations: lists of messages.
        max_length: tokens of a row; longer conversations are cut.
        packed: whether rows hold several whole conversations, which do not see each other; else one a row.

    Returns: x, a dictionary of (rows, t) int32 arrays: token_ids and padding_mask, or where packed segment_ids and
        positions; y, (rows, t) int32; w, (rows, t) float32.

    Raises:
        ValueError: conversations of which nothing is to be learnt once they are cut.

    Source: Ouyang et al. 2022, arXiv 2203.02155, section 3.5.
    """
    pieces = [answers_marked(tokenizer, messages, max_length) for messages in conversations]
    _check(pieces, 1, max_length)
    rows = _packed([len(ids) for ids, _ in pieces], max_length) if packed else [[i] for i in range(len(pieces))]
    shape = len(rows), max(sum(len(pieces[i][0]) for i in row) for row in rows)
    token_ids, segment_ids = np.full(shape, tokenizer.pad_id or 0, "int32"), np.zeros(shape, "int32")
    marks = np.zeros(shape, bool)
    for r, row in enumerate(rows):
        start = 0
        for number, i in enumerate(row, 1):
            ids, own = pieces[i]
            place = slice(start, start + len(ids))
            token_ids[r, place], segment_ids[r, place], marks[r, place] = ids, number, own
            start += len(ids)
    same = segment_ids[:, 1:] == segment_ids[:, :-1]
    w = np.pad(marks[:, 1:] & same, ((0, 0), (0, 1))).astype("float32")
    if packed:
        x = {"token_ids": token_ids, "segment_ids": segment_ids, "positions": restarted_positions(segment_ids)}
    else:
        x = {"token_ids": token_ids, "padding_mask": segment_ids}
    return x, np.roll(token_ids, -1, axis=1), w


def _packed(lengths, room):
    """Numbers of the pieces in each row, by best-fit decreasing."""
    order = np.argsort(-np.array(lengths), kind="stable")
    rows = {}
    for i, row in zip(order.tolist(), best_fit_decreasing(np.bincount(lengths, minlength=room + 1)).tolist()):
        rows.setdefault(row, []).append(i)
    return list(rows.values())


def preferences(tokenizer, prompts, chosen, rejected, max_length):
    """Prompts with a better and a worse answer as the inputs of a `PreferenceLM`.

    With a chat template prompts are messages of the user; else a prompt, the answer and the end of text follow each
    other.

    Returns: a dictionary of (n, 2, t) int32 arrays: `token_ids`, `padding_mask`, and `answer_mask`, 1 where a token is
        an answer's; the better one comes first.

    Raises:
        ValueError: an answer of which nothing is left after the cut.
    """
    pieces = _compared(tokenizer, prompts, chosen, rejected, max_length)
    _check(pieces, 2, max_length)
    batch = tokenizer.stacked([ids for ids, _ in pieces])
    marks = np.zeros_like(batch["token_ids"])
    for row, (_, own) in zip(marks, pieces):
        row[: len(own)] = own
    return {key: value.reshape(len(prompts), 2, -1) for key, value in {**batch, "answer_mask": marks}.items()}


def answered(tokenizer, x, max_length):
    """Numbers of the examples whose answers begin within `max_length` tokens: what there is something to learn of.

    Args:
        tokenizer: a `Tokenizer`.
        x: conversations, as `instructions` takes them, or a tuple of prompts, better and worse answers.
        max_length: as there.
    """
    if isinstance(x, tuple):
        return _answered(_compared(tokenizer, *x, max_length), 2)
    return _answered([answers_marked(tokenizer, messages, max_length) for messages in x], 1)


def _answered(pieces, each):
    """Numbers of the groups of `each` pieces that all have a label."""
    held = [any(marks[1:]) for _, marks in pieces]
    return [i // each for i in range(0, len(held), each) if all(held[i : i + each])]


def _check(pieces, each, max_length):
    count, held = len(pieces) // each, set(_answered(pieces, each))
    if empty := [i for i in range(count) if i not in held]:
        raise ValueError(f"Example {empty[0]} has no answer within max_length={max_length} tokens, and so have "
                         f"{len(empty)} of {count}: raise it, or leave them out.")  # fmt: skip


def _compared(tokenizer, prompts, chosen, rejected, max_length):
    """(ids, marks) of the better and the worse answer of each prompt, in turn."""
    pairs = [(prompt, answer) for prompt, *answers in zip(prompts, chosen, rejected) for answer in answers]
    if tokenizer.has_chat_template:
        both = [[{"role": "user", "content": prompt}, {"role": "assistant", "content": text}] for prompt, text in pairs]
        return [answers_marked(tokenizer, messages, max_length) for messages in both]
    return [_plain(tokenizer, prompt, answer, max_length) for prompt, answer in pairs]


def _plain(tokenizer, prompt, answer, max_length):
    first = tokenizer.encode(prompt)
    first = first[:-1] if first[-1:] == [tokenizer.eos_id] else first
    ids = first + tokenizer.encode(answer, add_special_tokens=False)
    ids += [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    return ids[:max_length], [i >= len(first) for i in range(len(ids))][:max_length]
