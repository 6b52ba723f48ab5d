"""How their tensors become our variables, and ours theirs: one table, read both ways.

A table row is `our name: (their name, move)`. `block_{}` in our name and `{}` in theirs stand for a layer's index.
Where several names are given, the first is written and any is read. This module knows no family and no backend.
"""

import dataclasses
import re
import warnings
from collections.abc import Callable

import numpy as np

_BODY = ("token/", "encoder/", "decoder/")  # everything else belongs to a task's head


@dataclasses.dataclass(frozen=True)
class Move:
    """How one of their tensors holds one of ours.

    Args:
        load: their array -> ours, as a view where numpy can.
        save: the list of ours that share their tensor, in the order of `part` -> theirs.
        part, parts: which of how many of ours their tensor holds.
    """

    load: Callable
    save: Callable
    part: int = 0
    parts: int = 1


same = Move(lambda x: x, lambda xs: xs[0])
transpose = Move(lambda x: x.T, lambda xs: xs[0].T)  # a torch Linear is (out, in)
first_row = Move(lambda x: x.reshape(-1), lambda xs: xs[0][None])  # BART's (1, vocabulary) bias


def _slice(sizes, part, width):
    if width != sum(sizes):
        raise ValueError(f"{width} is not {sum(sizes)}")
    return slice(sum(sizes[:part]), sum(sizes[: part + 1]))


def outputs(sizes, part):
    """One of several Linears fused along their outputs, (sum of sizes, in); also their biases."""

    def load(x):
        return x[_slice(sizes, part, len(x))].T

    return Move(load, lambda xs: np.concatenate([x.T for x in xs]), part, len(sizes))


def columns(sizes, part):
    """The same for kernels stored (in, sum of sizes), as GPT-2's are."""

    def load(x):
        return x[..., _slice(sizes, part, x.shape[-1])]

    return Move(load, lambda xs: np.concatenate(xs, axis=-1), part, len(sizes))


def interleaved(heads, part, parts=3):
    """Query, key and value alternate head by head in one Linear (GPT-NeoX)."""

    def load(x):
        return x.reshape(heads, parts, -1, *x.shape[1:])[:, part].reshape(-1, *x.shape[1:]).T

    def save(xs):
        x = np.stack([x.T.reshape(heads, -1, *x.T.shape[1:]) for x in xs], axis=1)
        return x.reshape(-1, *x.shape[3:])

    return Move(load, save, part, parts)


@dataclasses.dataclass
class Report:
    """What a checkpoint and a model did not have in common; empty lists are a perfect match."""

    missing: list = dataclasses.field(default_factory=list)  # ours without a tensor
    unused: list = dataclasses.field(default_factory=list)  # theirs without a place
    shapes: list = dataclasses.field(default_factory=list)  # pairs that differ
    random_heads: list = dataclasses.field(default_factory=list)  # a task's own weights, new

    @property
    def failed(self):
        """Whether the model must not be used."""
        return bool(self.missing or self.unused or self.shapes)

    def __str__(self):
        groups = {"ours, not in the checkpoint": self.missing, "in the checkpoint, not ours": self.unused,
                  "shapes that differ": self.shapes, "heads left at random": self.random_heads}  # fmt: skip
        return "\n".join(f"  {title} ({len(names)}): {_some(names)}" for title, names in groups.items() if names)


def _some(names, count=24):
    more = f", … and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def _rows(table, names):
    """our name -> (their names, move), with layer indices filled in; None where the table has no row."""
    found = {}
    for name in names:
        row = table.get(re.sub(r"block_\d+", "block_{}", name))
        if row is not None:
            theirs = row[0] if isinstance(row[0], tuple) else (row[0],)
            row = tuple(one.format(*re.findall(r"block_(\d+)", name)) for one in theirs), row[1]
        found[name] = row
    return found


def _spellings(tensors, prefix):
    """Names as a table writes them -> as the file has them: with and without prefix, gamma and beta."""
    known = {}
    for name in tensors:
        modern = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))
        known.setdefault(name, name)
        known.setdefault(modern, name)
        if prefix:
            known.setdefault(f"{prefix}.{modern}", name)
            known.setdefault(modern.removeprefix(f"{prefix}."), name)
    return known


def load(tensors, table, targets, *, prefix="", ignore=(), optional=(), source="the checkpoint"):
    """Streams a checkpoint into a model, tensor by tensor; nothing is assigned unless everything fits.

    Args:
        tensors: a `zoo.checkpoint.Checkpoint`, or anything that iterates over names and has its methods.
        table: our name -> (their name or names, `Move`).
        targets: our name -> (shape, assign), where assign takes a numpy array in its stored dtype.
        prefix: what the whole model's names begin with and the bare backbone's do not, such as "bert".
        ignore: patterns of their names that hold no weights of ours.
        optional: ours that keep their initial value where the checkpoint has none.
        source: what to call the checkpoint in messages.

    Returns:
        A `Report`. A head that the checkpoint lacks altogether is in it, and is warned of.

    Raises:
        ValueError: with the report, where a variable or a tensor is left over or does not fit; or tied weights that are
            stored twice and differ.
    """
    known, rows = _spellings(tensors, prefix), _rows(table, targets)
    report, plan, used = Report(), {}, set()
    absent = [name for name, row in rows.items() if not row or not any(one in known for one in row[0])]
    heads = {name.split("/")[0] for name in rows if name not in absent}
    for name in absent:
        if name not in optional:
            new = not name.startswith(_BODY) and name.split("/")[0] not in heads
            (report.random_heads if new else report.missing).append(name)
    for name in (name for name in targets if name not in absent):
        stored = list(dict.fromkeys(known[one] for one in rows[name][0] if one in known))
        used.update(stored)
        plan.setdefault(stored[0], []).append((name, rows[name][1]))
        if trouble := _misfit(tensors, stored[0], rows[name][1], tuple(targets[name][0])):
            report.shapes.append(f"{name} {trouble}")
    used |= {known[name] for name in _head_names(table) if name in known}
    report.unused = [name for name in tensors if name not in used and not any(re.search(p, name) for p in ignore)]
    if report.failed:
        raise ValueError(f"{source} does not fit the model:\n{report}")
    _check_copies(tensors, {name: rows[name] for name in targets if name not in absent}, known, source)
    if report.random_heads:
        warnings.warn(f"{source} has no weights for {_some(report.random_heads)}: left at random.", stacklevel=2)
    for name, parts in plan.items():
        array = tensors.read(name)
        for ours, move in parts:
            targets[ours][1](move.load(array))
    return report


def _misfit(tensors, theirs, move, shape):
    """Why their tensor cannot become ours, found without reading it."""
    stored = tensors.shape(theirs)
    if not tensors.is_float(theirs):
        return f"{shape}, but {theirs} holds no plain floating-point numbers"
    try:
        got = move.load(np.broadcast_to(np.int8(0), stored)).shape
    except ValueError:  # sizes that cannot be regrouped
        got = None
    return None if got == shape else f"{shape}, but {theirs} {stored}"


def _head_names(table):
    """Their names of all heads: a model with another head, or none, leaves these aside."""
    heads = (row[0] for ours, row in table.items() if not ours.startswith(_BODY))
    return {name for row in heads for name in (row if isinstance(row, tuple) else (row,))}


def _check_copies(tensors, rows, known, source):
    """Weights stored under several names must agree, or the file does not mean what its config says."""
    stored = {name: list(dict.fromkeys(known[one] for one in row[0] if one in known)) for name, row in rows.items()}
    owned = {names[0] for names in stored.values() if names}
    for name, (first, *copies) in stored.items():
        for copy in copies:
            if copy not in owned and not np.array_equal(tensors.read(first), tensors.read(copy)):
                raise ValueError(
                    f"{source} stores {name} twice, as {first} and {copy}, and they differ: if they are not tied, "
                    f'set "tie_word_embeddings": false in its config.json.'
                )


def theirs(table, arrays, dtype=None):
    """Our arrays as their tensors, one at a time.

    Args:
        table: our name -> (their name or names, `Move`).
        arrays: our name -> array, or a function without arguments that returns it.
        dtype: numpy or `ml_dtypes` dtype to store; None keeps each array's own.

    Yields:
        (their name, array); a tied copy is never written.

    Raises:
        ValueError: arrays that have no row, or that are only a part of their tensor.
    """
    rows, groups = _rows(table, arrays), {}
    if lost := [name for name, row in rows.items() if row is None]:
        raise ValueError(f"There is no name in a checkpoint for {_some(lost)}.")
    for name, (names, move) in rows.items():
        groups.setdefault(names[0], [None] * move.parts)[move.part] = name, move
    for stored, parts in groups.items():
        if None in parts:
            raise ValueError(f"{stored} needs {len(parts)} variables, got only {_some([p[0] for p in parts if p])}.")
        values = [arrays[name]() if callable(arrays[name]) else arrays[name] for name, _ in parts]
        array = parts[0][1].save([np.asarray(value) for value in values])
        yield stored, array if dtype is None else array.astype(dtype, copy=False)
