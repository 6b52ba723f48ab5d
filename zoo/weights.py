"""How their tensors become our variables, and ours theirs: one table, read both ways.

A table row is `our name: (their name, move)`. `block_{}` in our name and `{}` in theirs stand for a layer's index; a
row of one layer alone has its number in our name.
Where several names are given, the first is written and any is read. This module knows no family and no backend.
"""

import dataclasses
import math
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


def interleaved(heads, part, groups=None):
    """Query, key and value alternate in one Linear: head by head (GPT-NeoX), or `groups` of the queries that share a
    key and a value, each followed by these (Falcon)."""
    groups = groups or heads
    each = heads // groups
    place = (slice(each), slice(each, each + 1), slice(each + 1, None))[part]

    def load(x):
        return x.reshape(groups, each + 2, -1, *x.shape[1:])[:, place].reshape(-1, *x.shape[1:]).T

    def save(xs):
        counts, rest = (each, 1, 1), xs[0].T.shape[1:]
        x = np.concatenate([x.T.reshape(groups, n, -1, *rest) for x, n in zip(xs, counts)], axis=1)
        return x.reshape(-1, *rest)

    return Move(load, save, part, 3)


unfolded = Move(  # a convolution (out, in, width) as a dense layer on (width in)
    lambda x: x.transpose(2, 1, 0).reshape(-1, len(x)),
    lambda xs: xs[0].reshape(-1, xs[0].shape[1], xs[0].shape[1]).transpose(2, 1, 0),
)


def pairs(heads, width):
    """Rotary pairs are neighbours (GPT-J), ours lie half of `width` apart: the first `width` features of each head."""

    def regroup(x, *sizes):
        x = x.reshape(heads, -1, *x.shape[1:])
        turned = x[:, :width].reshape(heads, *sizes, *x.shape[2:]).swapaxes(1, 2)
        turned = turned.reshape(heads, width, *x.shape[2:])
        return np.concatenate([turned, x[:, width:]], axis=1).reshape(-1, *x.shape[2:])

    return Move(lambda x: regroup(x, width // 2, 2).T, lambda xs: regroup(xs[0].T, 2, width // 2))


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


def rows_of(table, names):
    """our name -> (their names, move), with layer indices filled in; no names where the table has no row."""
    found = {}
    for name in names:
        theirs, move = table.get(name) or table.get(re.sub(r"block_\d+", "block_{}", name), ((), None))
        theirs = (theirs,) if isinstance(theirs, str) else theirs
        found[name] = tuple(one.format(*re.findall(r"block_(\d+)", name)) for one in theirs), move
    return found


def _spellings(tensors, prefix, aliases):
    """Names as a table writes them -> as the file has them: with and without prefix, gamma and beta."""
    known = {}
    for name in tensors:
        modern = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))
        for alias in aliases:
            modern = re.sub(rf"^{alias}\.", f"{prefix}.", modern)
        known.setdefault(name, name)
        known.setdefault(modern, name)
        if prefix:
            known.setdefault(f"{prefix}.{modern}", name)
            known.setdefault(modern.removeprefix(f"{prefix}."), name)
    return known


def load(tensors, table, targets, *, prefix="", aliases=(), ignore=(), optional=(), source="the checkpoint"):
    """Streams a checkpoint into a model, tensor by tensor; nothing is assigned unless everything fits.

    Args:
        tensors: a `zoo.checkpoint.Checkpoint`, or anything that iterates over names and has its methods.
        table: our name -> (their name or names, `Move`).
        targets: our name -> (shape, assign), where assign takes a numpy array in its stored dtype.
        prefix: what the whole model's names begin with and the bare backbone's do not, such as "bert".
        aliases: what some classes write in place of `prefix`.
        ignore: patterns of their names that hold no weights of ours.
        optional: ours that keep their initial value where the checkpoint has none.
        source: what to call the checkpoint in messages.

    Returns:
        A `Report`. A head that the checkpoint lacks altogether is in it, and is warned of.

    Raises:
        ValueError: with the report, where a variable or a tensor is left over or does not fit; or tied weights that are
            stored twice and differ.
    """
    known, rows = _spellings(tensors, prefix, aliases), rows_of(table, targets)
    stored = {name: list(dict.fromkeys(known[one] for one in row[0] if one in known)) for name, row in rows.items()}
    report = Report()
    report.missing, report.random_heads = _absent(stored, optional)
    present = {name: names for name, names in stored.items() if names}
    troubles = (_misfit(tensors, names[0], name, rows[name][1], targets[name][0]) for name, names in present.items())
    report.shapes = [trouble for trouble in troubles if trouble]
    used = {one for names in present.values() for one in names} | {known.get(one) for one in _head_names(table)}
    report.unused = [name for name in tensors if name not in used and not any(re.search(p, name) for p in ignore)]
    if report.failed:
        raise ValueError(f"{source} does not fit the model:\n{report}")
    _check_copies(tensors, present, source)
    if report.random_heads:
        warnings.warn(f"{source} has no weights for {_some(report.random_heads)}: left at random.", stacklevel=2)
    sharing = {}  # their tensor -> all of ours in it, so that it is read once
    for name, names in present.items():
        sharing.setdefault(names[0], []).append(name)
    # The largest first: what a backend makes of it beside it is then made while the rest is not there.
    for theirs_name, ours in sorted(sharing.items(), key=lambda item: -math.prod(tensors.shape(item[0]))):
        array = tensors.read(theirs_name)
        for name in ours:
            targets[name][1](rows[name][1].load(array))
    return report


def _absent(stored, optional):
    """Ours without a tensor: those that must have one, and those of heads that the checkpoint lacks altogether."""
    missing, new = [], []
    heads = {_unit(name) for name, names in stored.items() if names}
    for name, names in stored.items():
        if not names and name not in optional:
            (missing if name.startswith(_BODY) or _unit(name) in heads else new).append(name)
    return missing, new


def _unit(name):
    """What a checkpoint has or lacks as a whole: a head, but its last layer apart, which pretrained poolers lack."""
    return "head/out" if name.startswith("head/out/") else name.split("/")[0]


def _misfit(tensors, theirs, ours, move, shape):
    """Why their tensor cannot become ours, found without reading it; None where it can."""
    stored = tensors.shape(theirs)
    if not tensors.is_float(theirs):
        return f"{ours} {tuple(shape)}, but {theirs} holds no plain floating-point numbers"
    try:
        got = move.load(np.broadcast_to(np.int8(0), stored)).shape
    except ValueError:  # sizes that cannot be regrouped
        got = None
    return None if got == tuple(shape) else f"{ours} {tuple(shape)}, but {theirs} {stored}"


def _head_names(table):
    """Their names of all heads: a model with another head, or none, leaves these aside."""
    heads = (row[0] for ours, row in table.items() if not ours.startswith(_BODY))
    return {name for row in heads for name in (row if isinstance(row, tuple) else (row,))}


def _check_copies(tensors, stored, source):
    """Weights stored under several names must agree, or the file does not mean what its config says."""
    owned = {names[0] for names in stored.values()}
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
        arrays: our name -> array, or anything with its shape and dtype that numpy can make one of, such as a variable.
        dtype: numpy or `ml_dtypes` dtype to store; None keeps each array's own.

    Yields:
        (their name, `Later`); a tied copy is never written.

    Raises:
        ValueError: arrays that have no row, or that are only a part of their tensor.
    """
    rows, groups = rows_of(table, arrays), {}
    if lost := [name for name, row in rows.items() if not row[0]]:
        raise ValueError(f"There is no name in a checkpoint for {_some(lost)}.")
    for name, (names, move) in rows.items():
        groups.setdefault(names[0], [None] * move.parts)[move.part] = name, move
    for stored, parts in groups.items():
        if None in parts:
            raise ValueError(f"{stored} needs {len(parts)} variables, got only {_some([p[0] for p in parts if p])}.")
        values, move = [arrays[name] for name, _ in parts], parts[0][1]
        shape = move.save([np.broadcast_to(np.int8(0), tuple(value.shape)) for value in values]).shape
        yield stored, Later(shape, np.dtype(dtype or values[0].dtype), values, move.save)


@dataclasses.dataclass(frozen=True)
class Later:
    """An array that is made of ours when it is asked for."""

    shape: tuple
    dtype: np.dtype
    values: list
    save: Callable

    def __array__(self, dtype=None, copy=None):
        return self.save([np.asarray(value) for value in self.values]).astype(dtype or self.dtype, copy=False)
