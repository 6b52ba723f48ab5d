"""Adapters as the package `peft` writes them: its names and shapes, both ways. numpy alone; no model, no files.

peft puts two matrices beside each of PyTorch's modules: `lora_A` (rank, in) and `lora_B` (out, rank). Where several
dense layers of ours are one module of theirs, as query, key and value of GPT-2 are, theirs has the sum of the ranks: A
holds ours one above the other, and B is zero but in each layer's own rows and columns.
"""

import contextlib

import numpy as np

BASE = "base_model.model."


def modules(rows, names):
    """Their module -> (our kernels in the order of their parts, None for one that is not there; the move)."""
    found = {}
    for name in names:
        stored, move = rows[name]
        if not stored:  # no part of a checkpoint
            continue
        found.setdefault(stored[0].removesuffix(".weight"), ([None] * move.parts, move))[0][move.part] = name
    return found


def upright(module, names, move, widths):
    """Whether their weight is (out, in), as of a Linear, and not (in, out), as of a Conv1D.

    Raises:
        ValueError: it is neither, so that a low-rank change of ours is none of theirs.
    """
    with contextlib.suppress(ValueError):  # as of a convolution, whose inputs are regrouped too
        shape = () if None in names else move.save([np.zeros((1, widths[name]), "int8") for name in names]).shape
        if len(shape) == 2 and 1 in shape:
            return shape[1] == 1
    raise ValueError(f"peft's format cannot express adapters of {module}, which is no linear layer of all of {names}.")


def to_tensors(rows, widths, adapters):
    """peft's tensors of adapters.

    Args:
        rows: our kernel -> (their names, move), for all kernels of the model.
        widths: our kernel -> its number of outputs.
        adapters: our kernel -> (A (in, r), B (r, out), scale).

    Returns: their name -> array; and module -> (rank, scale).
    """
    if lost := [name for name in adapters if not rows[name][0]]:
        raise ValueError(f"{lost[0]} has no name in a checkpoint, so peft's format cannot express its adapter.")
    tensors, ranks = {}, {}
    for module, (names, move) in modules(rows, widths).items():
        own = [name for name in names if name in adapters]
        if not own:
            continue
        stands = upright(module, names, move, widths)
        scale, total = adapters[own[0]][2], sum(adapters[name][0].shape[1] for name in own)
        parts, start = [], 0
        for name in names:
            part = np.zeros((total, widths[name]), "float32")
            if name in adapters:
                a, b, own_scale = adapters[name]
                part[start : start + len(b)] = b * (own_scale / scale)
                start += len(b)
            parts.append(part)
        b = move.save(parts)
        a = np.concatenate([adapters[name][0] for name in own], axis=1)
        tensors[f"{BASE}{module}.lora_A.weight"] = np.ascontiguousarray(a.T)
        tensors[f"{BASE}{module}.lora_B.weight"] = np.ascontiguousarray(b if stands else b.T)
        ranks[module] = total, scale
    return tensors, ranks


def from_tensors(rows, widths, pairs):
    """Our adapters out of peft's.

    Args:
        rows, widths: as in `to_tensors`.
        pairs: module -> (lora_A (r, in), lora_B (out, r), scale).

    Returns: our kernel -> (A, B, scale).

    Raises:
        ValueError: a module that is none of the model's, or of another size.
    """
    known, found = modules(rows, widths), {}
    if strange := sorted(pairs.keys() - known.keys()):
        raise ValueError(f"The adapter is for {strange[0]}, which the model does not have; it has {_some(known)}.")
    for module, (a, b, scale) in pairs.items():
        names, move = known[module]
        stands = upright(module, names, move, widths)
        try:
            parts = [rows[name][1].load(b if stands else b.T) for name in names]
            sizes = [part.shape[1] for part in parts]
        except ValueError:
            sizes = None
        if sizes != [widths[name] for name in names]:
            raise ValueError(f"The adapter's {module} has {len(b)} outputs, not those of {', '.join(names)}.")
        used = np.array([np.any(part != 0, axis=1) for part in parts])  # (parts, rank)
        for name, part, own in zip(names, parts, used):
            kept = own | ~used.any(axis=0)  # what is another layer's alone is left out
            if own.any() or not used.any():
                found[name] = np.ascontiguousarray(a.T[:, kept]), np.ascontiguousarray(part[kept]), scale
    return found


def _some(names, count=8):
    names = sorted(names)
    return ", ".join(names[:count]) + (", …" if len(names) > count else "")


def targets(adapted, known):
    """What `target_modules` must say so that it means the `adapted` among the `known` modules: last names, if those
    are enough and say what they are, else whole names."""
    last = {module.rpartition(".")[2] for module in adapted}
    enough = {module for module in known if module.rpartition(".")[2] in last} == set(adapted)
    return sorted(last if enough and "dense" not in last else adapted)
