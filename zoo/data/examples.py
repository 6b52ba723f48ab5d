"""Labelled examples of a task out of records: the columns it needs, in the shape that the tasks' `fit` takes.

What is wrong with them is said here, before anything is trained, with its place: a column that is not there, a value
that is none, a span outside its text. It knows no file formats, no tokens and no models.
"""

import dataclasses
import hashlib
import json
import math
import re

from zoo.data.records import Records, read

PROBLEMS = ("single", "multi", "regression")
_MARKS = re.compile(r"</?e[12]>")


@dataclasses.dataclass(frozen=True)
class Examples:
    """Examples of one task.

    `x` is a list, or a tuple of lists of one length; `y` a list, or None where the task makes its own labels;
    `places` says where each was read; `keys` are texts by which examples belong together.
    """

    x: list | tuple
    y: list | None
    places: list
    keys: list

    def __len__(self):
        return len(self.places)

    def take(self, index):
        """The examples with these numbers."""
        pick = lambda values: [values[i] for i in index]  # noqa: E731
        x = tuple(map(pick, self.x)) if isinstance(self.x, tuple) else pick(self.x)
        return Examples(x, self.y and pick(self.y), pick(self.places), pick(self.keys))

    def split(self, share):
        """(the rest, a share) by a hash of each key: examples with one key stay together, in every run.

        Raises:
            ValueError: one of the two would be empty.
        """
        held = [int(hashlib.sha256(key.encode()).hexdigest()[:12], 16) < share * 16**12 for key in self.keys]
        parts = [[i for i, out in enumerate(held) if out == wanted] for wanted in (False, True)]
        if not all(parts):
            raise ValueError(f"A share of {share} of {len(self)} examples leaves nothing on one side: give two files.")
        return self.take(parts[0]), self.take(parts[1])


def examples(task, spec, columns=None, problem="single"):
    """Reads the examples of a task.

    | task | columns | x | y |
    |---|---|---|---|
    | classify | text, (pair), label | texts, or (texts, pairs) | names, lists of names, or numbers |
    | tag | words, tags | lists of words | lists of tags |
    | answer | question, context, (answers or answer, start) | (questions, contexts) | lists of (start, end) |
    | choose | context, choices, label | (contexts, lists of choices) | numbers of the right ones |
    | embed | first, second, (negative), (score) | (firsts, seconds), (…, negatives) | scores, or None |
    | seq2seq | source, target | sources | targets |
    | instruct | messages, or instruction, (input), output | lists of messages | None |
    | prefer | prompt, or instruction, (input); chosen, rejected | (prompts, chosen, rejected) | None |
    | relate | text, label, (head, tail) | (texts, heads, tails) | names |

    Spans are (start, end) in characters, end excluded. Without head and tail a relation's text holds them as
    `<e1>…</e1>` and `<e2>…</e2>` (SemEval-2010, task 8); else they are `[start, end]`, or "start:end".

    Args:
        task: see above.
        spec: `Records`, or what `zoo.data.records.read` takes.
        columns: dictionary, our name of a column -> its name in the file. Numbers count columns from 0; those of a CSV
            or TSV file then have no line of names. CoNLL's words are column 0 and its tags the last.
        problem: of classify: "single", "multi" (lists, or names with a | between) or "regression".

    Returns: `Examples`.

    Raises:
        ValueError: an unknown task or column, a file that is empty or damaged, a value that is none; it says where.

    >>> from zoo.data.records import Records
    >>> records = Records([{"text": "a fine film", "gold": "good"}], "memory", ["record 0"])
    >>> examples("classify", records, {"label": "gold"}).y
    ['good']
    """
    if task not in _READERS:
        raise ValueError(f"There is no task {task!r}; there are {', '.join(_READERS)}.")
    if problem not in PROBLEMS:
        raise ValueError(f"problem={problem!r} is none of {', '.join(PROBLEMS)}.")
    reader, known = _READERS[task]
    columns = dict(columns or {})
    if unknown := sorted(columns.keys() - set(known)):
        raise ValueError(f"The task {task} has no column {unknown[0]!r}; it has {', '.join(known)}.")
    numbered = bool(columns) and all(str(name).isdigit() for name in columns.values())
    table = _Table(spec if isinstance(spec, Records) else read(spec, numbered), columns)
    if task == "classify":
        return reader(table, problem)
    return reader(table)


class _Table:
    """Records under our names of the columns."""

    def __init__(self, records, columns):
        self.records, self.columns, self.places = records, columns, records.places

    def has(self, name):
        """Whether a column is asked for, or there under our name."""
        return name in self.columns or name in self.records[0]

    def column(self, name):
        """The values of a column."""
        return self.records.column(str(self.columns.get(name, name)))

    def texts(self, name):
        """The values of a column of texts."""
        return [
            self.checked(value, i, name, isinstance(value, str), "a text") for i, value in enumerate(self.column(name))
        ]

    def checked(self, value, i, name, right, wanted):
        """A value that is right, or an error that says where it is not."""
        if not right:
            raise ValueError(f"{self.places[i]}: {name} must be {wanted}, got {value!r:.80}.")
        return value

    def mapped(self, name, function, wanted):
        """A column through a function that raises a TypeError or a ValueError for what is not `wanted`."""
        found = []
        for i, value in enumerate(self.column(name)):
            try:
                found.append(function(value))
            except (LookupError, TypeError, ValueError):
                self.checked(value, i, name, False, wanted)
        return found

    def made(self, x, y=None, keys=None):
        """The `Examples`."""
        return Examples(x, y, list(self.places), keys or list(x[0] if isinstance(x, tuple) else x))


def _label(value):
    """A name; numbers and truth values are names too."""
    if not isinstance(value, str | int | float) or value == "":
        raise ValueError
    return value if isinstance(value, str) else json.dumps(value)


def _labels(value):
    return [_label(one) for one in (value.split("|") if isinstance(value, str) and value else value or [])]


def _number(value):
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _classify(table, problem):
    kinds = {"single": (_label, "a label"), "multi": (_labels, "a list of labels"), "regression": (_number, "a number")}
    texts = table.texts("text")
    x = (texts, table.texts("pair")) if table.has("pair") else texts
    return table.made(x, table.mapped("label", *kinds[problem]))


def _list_of_texts(value):
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        raise TypeError
    return value


def _tag(table):
    names = list(table.records[0])
    if all(name.isdigit() for name in names):  # CoNLL
        table.columns = {"words": names[0], "tags": names[-1], **table.columns}
    words = table.mapped("words", _list_of_texts, "a list of words")
    tags = table.mapped("tags", lambda value: [_label(one) for one in value], "a list of tags")
    for text, own, place in zip(words, tags, table.places):
        if len(text) != len(own):
            raise ValueError(f"{place} has {len(text)} words, but {len(own)} tags.")
    return table.made(words, tags, [" ".join(text) for text in words])


def _answer(table):
    questions, contexts = table.texts("question"), table.texts("context")
    if table.has("answers"):
        given = [[*zip(one["text"], one["answer_start"])] for one in table.column("answers")]
    else:
        starts = table.mapped("start", lambda v: int(v) if v not in (None, "") else None, "a whole number") \
            if table.has("start") else [None] * len(contexts)  # fmt: skip
        given = [[(text, context.find(text) if start is None else start)] if text else []
                 for text, start, context in zip(table.column("answer"), starts, contexts)]  # fmt: skip
    spans = []
    for answers, context, place in zip(given, contexts, table.places):
        for text, start in answers:
            if start < 0 or context[start : start + len(text)] != text:
                there = context[max(start, 0) : max(start, 0) + len(text)]
                raise ValueError(f"{place}: the answer {text!r} is not at character {start} of its context of "
                                 f"{len(context)}, where {there!r} is.")  # fmt: skip
        spans.append([(start, start + len(text)) for text, start in answers])
    return table.made((questions, contexts), spans, contexts)


def _choose(table):
    contexts = table.texts("context")
    choices = table.mapped("choices", _list_of_texts, "a list of texts")
    right = []
    for i, (label, texts) in enumerate(zip(table.column("label"), choices)):
        label = texts.index(label) if label in texts else int(label) if str(label).isdigit() else -1
        table.checked(label, i, "label", 0 <= label < len(texts), f"one of the {len(texts)} choices, or its number")
        right.append(label)
    return table.made((contexts, choices), right)


def _embed(table):
    x = tuple(table.texts(name) for name in ("first", "second", "negative") if name != "negative" or table.has(name))
    return table.made(x, table.mapped("score", _number, "a number") if table.has("score") else None)


def _seq2seq(table):
    return table.made(table.texts("source"), table.texts("target"))


def _asked(table):
    """What alpaca's `instruction` and `input` ask for."""
    inputs = table.texts("input") if table.has("input") else [""] * len(table.places)
    return [f"{task}\n\n{text}" if text else task for task, text in zip(table.texts("instruction"), inputs)]


def _instruct(table):
    if table.has("messages"):
        conversations = table.column("messages")
    else:
        conversations = [[{"role": "user", "content": task}, {"role": "assistant", "content": text}]
                         for task, text in zip(_asked(table), table.texts("output"))]  # fmt: skip
    for i, messages in enumerate(conversations):
        right = isinstance(messages, list) and all(isinstance(one, dict) and {"role", "content"} <= one.keys()
                                                   for one in messages)  # fmt: skip
        table.checked(messages, i, "messages", right, "a list of {'role': …, 'content': …}")
        answered = any(one["role"] == "assistant" for one in messages)
        table.checked(messages, i, "messages", answered, "a conversation with an answer, of the role 'assistant'")
    return table.made(conversations, keys=[str(messages[0]["content"]) for messages in conversations])


def _prefer(table):
    prompts = table.texts("prompt") if table.has("prompt") else _asked(table)
    return table.made((prompts, table.texts("chosen"), table.texts("rejected")))


def _relate(table):
    texts = table.texts("text")
    if table.has("head") or table.has("tail"):
        heads, tails = (table.mapped(name, _span, "[start, end], or 'start:end'") for name in ("head", "tail"))
    else:
        texts, heads, tails = map(list, zip(*(_unmarked(table, i, text) for i, text in enumerate(texts))))
    for name, spans in (("head", heads), ("tail", tails)):
        for i, (start, end) in enumerate(spans):
            right = 0 <= start < end <= len(texts[i])
            table.checked((start, end), i, name, right, f"a span inside the text of {len(texts[i])} characters")
    return table.made((texts, heads, tails), table.mapped("label", _label, "a label"))


def _span(value):
    start, end = value.split(":") if isinstance(value, str) else value
    return int(start), int(end)


def _unmarked(table, i, text):
    """A text without SemEval's marks, and the two spans that they enclosed."""
    places, plain = {}, ""
    for part in re.split(f"({_MARKS.pattern})", text):
        if _MARKS.fullmatch(part):
            places[part] = len(plain)
        else:
            plain += part
    right = len(places) == 4 == len(_MARKS.findall(text))
    table.checked(text, i, "text", right, "a text with <e1>…</e1> and <e2>…</e2>, where there is no head and tail")
    return plain, (places["<e1>"], places["</e1>"]), (places["<e2>"], places["</e2>"])


_READERS = {  # task -> its reader, and the columns it may have
    "classify": (_classify, ("text", "pair", "label")),
    "tag": (_tag, ("words", "tags")),
    "answer": (_answer, ("question", "context", "answers", "answer", "start")),
    "choose": (_choose, ("context", "choices", "label")),
    "embed": (_embed, ("first", "second", "negative", "score")),
    "seq2seq": (_seq2seq, ("source", "target")),
    "instruct": (_instruct, ("messages", "instruction", "input", "output")),
    "prefer": (_prefer, ("prompt", "instruction", "input", "chosen", "rejected")),
    "relate": (_relate, ("text", "label", "head", "tail")),
}
TASKS = tuple(_READERS)
