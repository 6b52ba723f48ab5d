"""Adapters as the package `peft` writes them: its names and shapes, both ways. numpy alone; no model, no files.

peft puts two matrices beside each of PyTorch's modules: `lora_A` (rank, in) and `lora_B` (out, rank). Where several
dense layers of ours are one module of theirs, as query, key and value of GPT-2 are, theirs has the sum of the ranks: A
holds ours one above the other, and B is zero but in each layer's own rows and columns. Of IA³ it has `ia3_l`: (out, 1)
where outputs are multiplied, with 1 for layers of ours that have no vector, and (1, in) where inputs are.
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
    _check_known(pairs, known)
    for module, (a, b, scale) in pairs.items():
        names, _ = known[module]
        parts = _parts(module, known, rows, widths, b)
        used = np.array([np.any(part != 0, axis=1) for part in parts])  # (parts, rank)
        for name, part, own in zip(names, parts, used):
            kept = own | ~used.any(axis=0)  # what is another layer's alone is left out
            if own.any() or not used.any():
                found[name] = np.ascontiguousarray(a.T[:, kept]), np.ascontiguousarray(part[kept]), scale
    return found


def _check_known(adapted, known):
    if strange := sorted(adapted.keys() - known.keys()):
        raise ValueError(f"The adapter is for {strange[0]}, which the model does not have; it has {_some(known)}.")


def _parts(module, known, rows, widths, outputs):
    """What an array (out, r) of their module is for each of our kernels in it, (r, width)."""
    names, move = known[module]
    stands = upright(module, names, move, widths)
    try:
        parts = [rows[name][1].load(outputs if stands else outputs.T) for name in names]
        sizes = [part.shape[1] for part in parts]
    except ValueError:
        sizes = None
    if sizes != [widths[name] for name in names]:
        raise ValueError(f"The adapter's {module} has {len(outputs)} outputs, not those of {', '.join(names)}.")
    return parts


def vectors_to_tensors(rows, widths, vectors):
    """peft's tensors of IA³, and the modules whose inputs are multiplied.

    Args:
        rows, widths: as in `to_tensors`.
        vectors: our kernel -> (vector, whether it is for inputs).

    Returns: their name -> array; module -> whether inputs are multiplied.
    """
    tensors, kinds = {}, {}
    for module, (names, move) in modules(rows, widths).items():
        own = [name for name in names if name in vectors]
        if not own:
            continue
        stands, on_inputs = upright(module, names, move, widths), {vectors[name][1] for name in own}
        first = vectors[own[0]][0]
        if True in on_inputs and not all(name in own and np.array_equal(vectors[name][0], first) for name in names):
            raise ValueError(f"peft's format has one vector for the inputs of {module}, not several for {names}.")
        if True in on_inputs:
            whole = first[None]
        else:
            parts = [vectors[name][0][None] if name in own else np.ones((1, widths[name]), "float32") for name in names]
            whole = move.save(parts) if stands else move.save(parts).T
        tensors[f"{BASE}{module}.ia3_l"], kinds[module] = np.ascontiguousarray(whole), True in on_inputs
    return tensors, kinds


def vectors_from_tensors(rows, widths, tensors):
    """Our vectors out of peft's: module -> `ia3_l` to our kernel -> (vector, whether it is for inputs).

    Raises:
        ValueError: as in `from_tensors`.
    """
    known, found = modules(rows, widths), {}
    _check_known(tensors, known)
    for module, array in tensors.items():
        names, _ = known[module]
        if len(array) == 1:
            found |= {name: (array[0], True) for name in names}
            continue
        parts = _parts(module, known, rows, widths, array)
        plain = [bool(np.all(part == 1)) for part in parts]  # what is another layer's alone is left out
        found |= {name: (part[0], False) for name, part, one in zip(names, parts, plain) if not one or all(plain)}
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


def feedforwards(kinds, known):
    """`target_modules` and `feedforward_modules` for module -> whether its inputs are multiplied."""
    last = lambda wanted: {module.rpartition(".")[2] for module, kind in kinds.items() if kind is wanted}  # noqa: E731
    chosen = targets(kinds, known)
    if last(True) & last(False) or chosen == sorted(kinds):
        return sorted(kinds), sorted(module for module, kind in kinds.items() if kind)
    return chosen, sorted(last(True))
