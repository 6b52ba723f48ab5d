"""The names of the labels that a model is made for, checked over all parts of a data set before anything is trained.

It knows examples, and no files, tokens or models.
"""

import re

_OTHER_SCHEMES = {"E": "IOBES", "S": "IOBES", "L": "BILOU", "U": "BILOU", "M": "BMES"}


def label_names(task, parts, problem="single"):
    """The names of the labels, sorted, of which a model for these examples is made.

    Args:
        task: classify, tag or relate.
        parts: dictionary, name of a part -> `Examples`; the first is what is trained on.
        problem: see `examples`.

    Returns: a tuple; "O" comes first among tags.

    Raises:
        ValueError: fewer than two labels in training, a label in another part that training never sees, tags that are
            not in the scheme BIO (Ramshaw & Marcus 1995) though some have its prefixes.

    >>> from zoo.data.examples import Examples
    >>> part = Examples(["a", "b"], ["good", "bad"], ["line 1", "line 2"], ["a", "b"])
    >>> label_names("classify", {"train": part, "validation": part})
    ('bad', 'good')
    """
    several = task == "tag" or problem == "multi"
    found = {}
    for name, part in parts.items():
        for labels, place in zip(part.y, part.places):
            for label in labels if several else [labels]:
                found.setdefault(name, {}).setdefault(label, place)
        if task == "tag":
            _check_scheme(part)
    known = next(iter(found.values()), {})
    if len(known) < (1 if problem == "multi" else 2):
        held = f"only the label {next(iter(known))!r}" if known else "no label"
        raise ValueError(f"The examples to train on have {held}: one class leaves nothing to tell apart.")
    for name, labels in found.items():
        if unseen := [label for label in labels if label not in known]:
            raise ValueError(
                f"{labels[unseen[0]]} ({name}) has the label {unseen[0]!r}, which no example to train on has; those "
                f"have {', '.join(map(repr, sorted(known)[:20]))}" + "…" * (len(known) > 20) + "."
            )
    return tuple(sorted(known, key=lambda label: (task == "tag" and label != "O", label)))


def _check_scheme(part):
    """Refuses tags with prefixes that BIO does not have, or that it uses otherwise."""
    prefixed = any(re.match("[BI]-.", tag) for tags in part.y for tag in tags)
    for tags, place in zip(part.y, part.places):
        for before, tag in zip(["O", *tags], tags):
            prefix, dash, kind = tag.partition("-")
            if dash and prefix in _OTHER_SCHEMES and prefixed:
                raise ValueError(
                    f"{place}: the tag {tag!r} is of the scheme {_OTHER_SCHEMES[prefix]}, not BIO: convert them."
                )
            if prefixed and tag != "O" and prefix not in ("B", "I"):
                raise ValueError(
                    f"{place}: the tag {tag!r} has no B- or I- before it, as others have: tags are of BIO."
                )
            if prefixed and prefix == "I" and before not in (f"B-{kind}", f"I-{kind}"):
                raise ValueError(f"{place}: {tag!r} follows {before!r}; in BIO it follows B-{kind} or I-{kind}, "
                                 "so that these tags are of another scheme, such as IOB1: convert them.")  # fmt: skip
