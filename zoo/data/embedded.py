"""The embedded sets as examples of each fine-tuning task, so that every one of them runs without a file.

They are made of `zoo.data.labelled` and of the lists of arguments in docstrings. It knows no tokens and no models.
"""

import itertools
import re

from zoo.data.examples import Examples
from zoo.data.labelled import SPLITS, labelled

_WORDS = 40  # of a body that is asked about
_ARGUMENT = re.compile(r"^(\w+) : ([^\n]{3,60})\n((?: {4}[^\n]+\n)+)", re.MULTILINE)  # numpy's style
_TYPES = ("array_like", "ndarray", "int", "float", "str", "bool", "callable", "dtype", "tuple", "axis")


def embedded(task):
    """Examples of a task out of the docstrings of Python, numpy and keras.

    classify: which package a docstring is from. tag: which words are names of code. answer: what an argument is, in
    numpy's lists of arguments. choose: which of four first lines belongs to a body. embed: whether a first line and a
    body belong together, as a cosine of 1 or 0. seq2seq and instruct: a body to its first line. prefer: its own
    first line before another's. relate: whether a type is that of an argument or of the next one in such a list.

    Returns: dictionary of `Examples`: train, validation and test.

    Raises: ValueError for an unknown task.

    >>> parts = embedded("choose")
    >>> [len(choices) for choices in parts["test"].x[1][:2]]
    [4, 4]
    """
    if task not in _MAKERS:
        raise ValueError(f"There is no task {task!r}; there are {', '.join(_MAKERS)}.")
    source, make = _MAKERS[task]
    return {split: _numbered(split, *make(*getattr(labelled(source), split))) for split in SPLITS}


def _numbered(split, x, y):
    first = x[0] if isinstance(x, tuple) else x
    return Examples(x, y, [f"pydocs, {split} {i}" for i in range(len(first))], [str(one) for one in first])


def _asked(bodies):
    return ["Say in one line what this describes:\n\n" + " ".join(body.split()[:_WORDS]) for body in bodies]


def _choose(bodies, lines):
    places = [i % 4 for i in range(len(lines))]
    others = [[lines[(i + 7 * k) % len(lines)] for k in (1, 2, 3)] for i in range(len(lines))]
    choices = [[*other[:at], line, *other[at:]] for line, other, at in zip(lines, others, places)]
    return ([" ".join(body.split()[:_WORDS]) for body in bodies], choices), places


def _instruct(bodies, lines):
    return [[{"role": "user", "content": text}, {"role": "assistant", "content": line}]
            for text, line in zip(_asked(bodies), lines)], None  # fmt: skip


def _prefer(bodies, lines):
    return (_asked(bodies), list(lines), [*lines[1:], *lines[:1]]), None


def _arguments(bodies):
    """(text, matches) of the bodies that list arguments."""
    for body in bodies:
        if found := [match for match in _ARGUMENT.finditer(body) if len(match[3].split()) >= 3]:
            start, end = found[0].start(), min(found[-1].end(), found[0].start() + 2000)
            yield start, body[start:end], [match for match in found if match.end() <= end]


def _answer(bodies, _):
    rows = [(f"What is {match[1]}?", text, [(match.start(3) + 4 - start, match.end(3) - 1 - start)])
            for start, text, matches in _arguments(bodies)
            for match in matches if match[3].count("\n") <= 2]  # fmt: skip
    questions, contexts, spans = map(list, zip(*rows))
    return (questions, contexts), spans


def _relate(bodies, _):
    rows = []
    for start, text, matches in _arguments(bodies):
        for match, other in itertools.pairwise(matches):
            begin = match.start()
            piece = text[begin - start : other.end(2) - start]
            for kind in (match, other):
                name = next((one for one in _TYPES if one in kind[2]), None)
                if name and len(piece) <= 200:
                    at = kind.start(2) - begin + kind[2].index(name)
                    head = match.start(1) - begin, match.end(1) - begin
                    rows.append((piece, head, (at, at + len(name)), "type" if kind is match else "other"))
    texts, heads, tails, labels = map(list, zip(*rows))
    return (texts, heads, tails), labels


_MAKERS = {
    "classify": ("modules", lambda x, y: (x, y)),
    "tag": ("names", lambda x, y: (x, y)),
    "answer": ("summaries", _answer),
    "choose": ("summaries", _choose),
    "embed": ("pairs", lambda x, y: (x, [float(one) for one in y])),
    "seq2seq": ("summaries", lambda x, y: (x, y)),
    "instruct": ("summaries", _instruct),
    "prefer": ("summaries", _prefer),
    "relate": ("summaries", _relate),
}
