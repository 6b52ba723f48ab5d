"""Models over many devices: a mesh in words, one rule for every weight of every family, an error for what cannot be.

A backend's engine is one private module, `_jax.py`; a backend without one refuses a mesh, for Keras would train on one
device without a word. This module knows which mesh is in force, and no layer.
"""

import contextlib
import importlib

import keras
import numpy as np

from zoo import processes
from zoo.sharding.rules import Rules
from zoo.sharding.words import AXES, DATA_AXES, SHARDS, checked, parse

__all__ = ["AXES", "DATA_AXES", "SHARDS", "batches", "current", "everywhere", "gathered", "gathering",
           "in_one_order", "make", "only_alone", "parse", "placed", "planned", "scope", "use"]  # fmt: skip

# backend: module with `devices`, `Mesh`, `placed`, `everywhere`, `gathering`, `gathered`
ENGINES = {"jax": "zoo.sharding._jax"}


def _engine(what="a mesh"):
    backend = keras.backend.backend()
    if backend not in ENGINES:
        raise ValueError(
            f"{what} needs KERAS_BACKEND={' or '.join(ENGINES)}: on {backend} Keras would train on one device without "
            "a word. Change the backend, or leave the mesh out."
        )
    return importlib.import_module(ENGINES[backend])


@contextlib.contextmanager
def scope(mesh, shard="none"):
    """Within it, models are built, loaded, trained and run on a mesh of devices; results are those of one device.

    Args:
        mesh: such as "data:4,model:2", see `parse`. Of more devices than it needs, the first are used.
        shard: "none", or "fsdp" to split weights and optimizer slots over `data` as well (Rajbhandari et al. 2020,
            ZeRO-3), so that each device holds its share of them alone.

    Yields:
        The `Mesh`; its `notes` say what could not be split.

    Raises:
        ValueError: a mesh that the backend or the devices cannot honour; the message names one that works.

    Example:

    ```python
    with zoo.sharding.scope("data:4,model:2", shard="fsdp"):
        lm = zoo.CausalLM.from_preset("gpt2")
        lm.fit(texts)
    ```
    """
    before = keras.distribution.distribution()
    use(made := make(mesh, shard))
    try:
        yield made
    finally:
        use(before)


def make(mesh, shard="none"):
    """The `Mesh` of a scope, which `use` puts in force."""
    engine = _engine(f"mesh {mesh!r}")
    return engine.Mesh(checked(mesh, shard, engine.devices(), processes.count()), shard)


def use(mesh):
    """Puts a mesh in force from here on, as `scope` does within it; None ends it."""
    keras.distribution.set_distribution(mesh)


def current():
    """The `Mesh` in force, or None."""
    mesh = keras.distribution.distribution()
    return mesh if isinstance(mesh, Rules) else None


def only_alone(what):
    """Raises a ValueError for what several processes cannot do on a mesh."""
    if current() is not None and processes.count() > 1:
        raise ValueError(f"{what} works in one process alone: save the model, and load it in one.")


def planned(config):
    """A backbone's `Config` as it is, once the mesh in force is known to have something to split.

    Raises:
        ValueError: an axis that divides nothing of the model, or a distribution that the backend would ignore.
    """
    if keras.distribution.distribution() is not None:
        _engine("keras.distribution")
    if mesh := current():
        mesh.plan(config)
    return config


def gathering(loss, groups):
    """`loss` of lists of values, as one that takes them as they are split and gathers each where it is used.

    Without it the compiler may rather move activations, which are larger. Neither forward nor backward pass keeps a
    weight that was gathered: the backward pass gathers anew, and a gradient is split as soon as it is summed.

    Args:
        loss: a differentiable function whose first arguments are the values of `groups`.
        groups: lists of Keras variables.

    Returns:
        A function of the same arguments; `loss` itself where no mesh splits weights over data.
    """
    return _engine().gathering(current(), loss, groups) if _splits_weights() else loss


def gathered(variables, values):
    """Values of variables, each laid out as if weights were not split over data; their gradients are split again."""
    return _engine().gathered(current(), variables, values) if _splits_weights() else values


def _splits_weights():
    mesh = current()
    return mesh is not None and mesh.shard == "fsdp"


@contextlib.contextmanager
def batches(*parts):
    """Within it, arrays are cut into the batches that one device would see; each process takes its rows of them.

    All batches are whole on every device if the last one cannot be split as the others are.

    Args:
        parts: pairs of arrays in any nesting, the same in every process, and the rows in a batch over all processes,
            None for Keras's 32. Anything but arrays, such as a loader, is let through.

    Yields:
        For each pair the data for Keras, and a dictionary with its `batch_size` where that is another.
    """
    mesh = current()
    if mesh is None:
        yield [(data, {}) for data, _ in parts]
        return
    before, parts = mesh.whole, [(data, size or 32) for data, size in parts]
    for data, size in parts:
        _make_whole(mesh, _rows(data), size)
    try:
        yield [_own(mesh, data, size) for data, size in parts]
    finally:
        mesh.whole = before


def _rows(data):
    return next((len(a) for a in keras.tree.flatten(data) if getattr(a, "ndim", 0)), 0)


def _make_whole(mesh, rows, size):
    """Sets `mesh.whole` where batches do not divide; in one process Keras splits each as it can if all are odd."""
    parts = mesh.num_model_replicas
    uneven, uneven_rest = rows >= size and size % parts > 0, rows % size % parts > 0
    if uneven or uneven_rest if processes.count() > 1 else uneven_rest and rows > size and not uneven:
        mesh.whole = True
        mesh.note(f"{rows} rows in batches of {size} leave {rows % size}, which {parts} parts of data do not divide: "
                  "every batch is whole on every device")  # fmt: skip


def _own(mesh, data, size):
    """The rows of this process's slice of every batch, and their number in a batch if it is another."""
    rows, (index, count) = _rows(data), mesh.data_slice
    if not rows or count == 1 or mesh.whole:
        return data, {}
    full = rows // size * size
    numbers = np.arange(full).reshape(-1, count, size // count)[:, index].ravel() if full else np.arange(0)
    numbers = np.concatenate([numbers, np.arange(full, rows).reshape(count, -1)[index]])
    part = keras.tree.map_structure(lambda a: a[numbers] if getattr(a, "ndim", 0) else a, data)
    return part, {"batch_size": -(-size // count)}


@contextlib.contextmanager
def in_one_order():
    """Within it, Keras shuffles arrays in the same order in all processes."""
    if current() is None or processes.count() == 1:
        yield
        return
    seed = int(processes.broadcast(np.random.randint(2**31 - 1)))
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)


def placed(array):
    """An array as a tensor, with its rows over the data axes of the mesh in force; the same in every process."""
    mesh = current()
    return keras.ops.convert_to_tensor(array) if mesh is None else _engine().placed(mesh, array)


def everywhere(tensor):
    """A tensor of a compiled program, such that every process can read the whole of it; None stays None."""
    if tensor is None or current() is None or processes.count() == 1:
        return tensor
    return _engine().everywhere(current(), tensor)
