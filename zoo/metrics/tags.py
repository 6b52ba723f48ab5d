"""Measures of tags in sequence: entities, exact in boundaries and type, or the tags themselves.

Tags are "O", or B, I, E, S, a hyphen and a type. It knows no task.
"""

import numpy as np

from zoo.metrics.base import metric
from zoo.metrics.classification import averaged

SCHEMES = {"IOB2": "BIO", "IOBES": "BIOES", "BILOU": "BILOU"}
_AS_IOBES = str.maketrans("LU", "ES")


def _is_tag(tag):
    return tag == "O" or (tag[:1] in tuple("BIESLU") and (len(tag) == 1 or tag[1] == "-"))


def entities(tags, scheme=None):
    """The entities of a sequence of tags.

    Args:
        tags: a list of tags.
        scheme: "IOB2", "IOBES" or "BILOU" for entities that are whole in that scheme alone, as by seqeval's
            mode="strict". By default the reading of the CoNLL-2000 script and of seqeval: an entity begins at B or S,
            after E or S, and wherever a type begins, so an I that follows an O begins one.

    Returns: a list of (type, start, end), end excluded.

    >>> from zoo import metrics
    >>> metrics.entities(["B-PER", "I-PER", "O", "I-LOC"])
    [('PER', 0, 2), ('LOC', 3, 4)]
    >>> metrics.entities(["B-PER", "I-PER", "O", "I-LOC"], scheme="IOB2")
    [('PER', 0, 2)]
    """
    if scheme not in (None, *SCHEMES):
        raise ValueError(f"scheme must be one of {', '.join(SCHEMES)} or None, got {scheme!r}.")
    if strange := [tag for tag in tags if not _is_tag(tag)]:
        raise ValueError(f"{strange[0]!r} is no tag of entities: those are O, or one of B, I, E, S, and '-TYPE'.")
    if strange := [tag for tag in tags if scheme and tag[0] not in SCHEMES[scheme]]:
        raise ValueError(f"{strange[0]!r} is not of the scheme {scheme}, whose tags begin with {SCHEMES[scheme]}.")
    found, start, held, before = [], None, "", "O"
    for i, tag in enumerate([*tags, "O"]):
        prefix, kind = tag[0].translate(_AS_IOBES), tag[2:]
        goes_on = prefix in "IE" and before in "BI" and kind == held
        if start is not None and not goes_on:
            if scheme in (None, "IOB2") or before in "ES":
                found.append((held, start, i))
            start = None
        if start is None and (prefix in "BS" or (scheme is None and prefix != "O")):
            start = i
        before, held = prefix, kind
    return found


def _counts(said, true, names):
    """Array (n, 3, names): what is right, predicted and there, of each name in each sequence."""
    rows, place = np.zeros((len(said), 3, len(names))), {name: i for i, name in enumerate(names)}
    for row, *sides in zip(rows, said, true):
        for counts, part in zip(row, (sides[0] & sides[1], *sides)):
            np.add.at(counts, [place[item[0]] for item in part], 1)
    return rows


def _checked(predictions, references):
    sides = [[list(tags) for tags in side] for side in (predictions, references)]
    for i, (said, true) in enumerate(zip(*sides)):
        if len(said) != len(true):
            raise ValueError(f"Sequence {i} has {len(said)} predicted tags, but {len(true)} true ones.")
    if not any(sides[1]):
        raise ValueError("There is nothing to measure: the sequences hold no tag.")
    return sides


@metric
def entity_scores(predictions, references, scheme=None):
    """Precision, recall and F1 of entities, right where boundaries and type are (Tjong Kim Sang & De Meulder 2003).

    Equal to seqeval's micro averages, `macro_f1` to its macro average; `accuracy` is that of the tags.

    Args:
        predictions, references: a list of tags a text.
        scheme: see `entities`.

    >>> from zoo import metrics
    >>> metrics.entity_scores([["B-PER", "O", "B-LOC"]], [["B-PER", "O", "B-ORG"]])["f1"]
    0.5
    """
    sides = _checked(predictions, references)
    found = [[set(entities(tags, scheme)) for tags in side] for side in sides]
    return _with_accuracy(found, sides)


@metric
def tagging(predictions, references, scheme=None):
    """`entity_scores` for tags of entities; for others, such as parts of speech, the same of the tags themselves."""
    sides = _checked(predictions, references)
    names = {tag for side in sides for tags in side for tag in tags}
    if all(map(_is_tag, names)):
        return entity_scores.parts(predictions, references, scheme=scheme)
    if len(halves := sorted(map(_is_tag, names - {"O"}))) and halves[0] != halves[-1]:
        strange = next(tag for tag in sorted(names) if not _is_tag(tag))
        raise ValueError(f"Tags of two kinds: {strange!r} beside {next(filter(_is_tag, sorted(names - {'O'})))!r}.")
    found = [[{(tag, i) for i, tag in enumerate(tags)} for tags in side] for side in sides]
    return _with_accuracy(found, sides)


def _with_accuracy(found, sides):
    names = sorted({item[0] for side in found for part in side for item in part})
    right = [[sum(map(str.__eq__, said, true)), len(true), len(true)] for said, true in zip(*sides)]
    rows = np.concatenate([_counts(*found, names), np.array(right, float)[:, :, None]], axis=2)  # (n, 3, names + 1)

    def value(rows):
        sums = rows.sum(axis=0)
        hits, tokens = sums[0, -1], sums[1, -1]
        scores = dict(zip(("precision", "recall", "f1"), averaged(*sums[:, :-1], "micro")))
        macro = averaged(*sums[:, :-1], "macro")[2]
        return {**scores, "macro_f1": macro, "accuracy": float(hits / tokens) if tokens else float("nan")}

    return rows, value
