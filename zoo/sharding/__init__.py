"""Models over many devices: a mesh in words, one rule for every weight of every family, an error for what cannot be.

A backend's engine is one private module, `_jax.py`, `_torch.py` or `_tensorflow.py`. On JAX one program runs on the
whole mesh; elsewhere a program sees a piece of each batch. This module knows which mesh is in force, and no layer.
"""

import contextlib
import importlib

import keras
import numpy as np

from zoo import backend, processes
from zoo.sharding.pieces import Averaging
from zoo.sharding.words import AXES, DATA_AXES, SHARDS, checked, parse

__all__ = ["AXES", "DATA_AXES", "SHARDS", "apart", "average", "batches", "check_compiled", "current", "everywhere",
           "gathered", "gathering", "in_one_order", "make", "nowhere", "only_alone", "over_processes",
           "parse", "parts", "pieces", "placed", "plain", "planned", "prepared", "replicates", "reseed", "scope",
           "settle", "share", "spread", "together", "use", "whole"]  # fmt: skip

_in_force = []  # the mesh, where there is one


def _engine():
    """The backend's module, with `devices` and `Mesh`; that of JAX has `placed`, `gathering` and `gathered` too."""
    return importlib.import_module(f"zoo.sharding._{keras.backend.backend()}")


@contextlib.contextmanager
def scope(mesh, shard="none"):
    """Within it, models are built, loaded, trained and run on a mesh of devices; results are those of one device.

    Args:
        mesh: such as "data:4,model:2", see `parse`; of more devices than it needs, the first are used. Or what `make`
            gave, for devices that are not of this machine.
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
    before = current()
    use(mesh := make(mesh, shard) if isinstance(mesh, str) else mesh)
    try:
        yield mesh
    finally:
        use(before)


@contextlib.contextmanager
def nowhere():
    """Within it no mesh is in force."""
    before = current()
    use(None)
    try:
        yield
    finally:
        use(before)


def make(mesh, shard="none", devices=None):
    """The `Mesh` of a scope, which `use` puts in force; `devices` stand in for those of this machine (JAX)."""
    engine = _engine()
    if devices is None:
        return engine.Mesh(checked(mesh, shard, engine.devices(), processes.count()), shard)
    return engine.Mesh(checked(mesh, shard, len(devices), 1), shard, devices)


def use(mesh):
    """Puts a mesh in force from here on, as `scope` does within it; None ends it."""
    while _in_force:
        _in_force.pop().end()
    if mesh is not None:
        mesh.begin()
        _in_force.append(mesh)


def current():
    """The `Mesh` in force, or None."""
    return _in_force[0] if _in_force else None


def only_alone(what):
    """Raises a ValueError for what several processes cannot do on a mesh."""
    if _is_one_program() and processes.count() > 1:
        raise ValueError(f"{what} works in one process alone: save the model, and load it in one.")


def planned(config):
    """A backbone's `Config` as it is, once the mesh in force is known to have something to split.

    Raises:
        ValueError: an axis that divides nothing of the model, or a distribution that the backend would ignore.
    """
    backend, mesh = keras.backend.backend(), current()
    if keras.distribution.distribution() is not None and backend != "jax":
        raise ValueError(f"On {backend} Keras ignores keras.distribution without a word: use zoo.sharding.scope.")
    if mesh is not None:
        mesh.plan(config)
    elif processes.count() > 1:
        raise ValueError(
            f"{processes.count()} processes would each train a model of its own: "
            f"give them a mesh, such as 'data:{processes.count()}'."
        )
    return config


def pieces():
    """Number of pieces of a batch that programs see apart: 1 but on a mesh on PyTorch or TensorFlow."""
    return current().pieces if _in_force else 1


def replicates():
    """Whether the mesh makes several devices of one process replicas, as on TensorFlow."""
    return pieces() > processes.count()


def spread(task):
    """Lays out a task that was just built over the mesh in force."""
    if pieces() > 1:
        current().spread(task)
        reseed(task.variables)


def reseed(variables):
    """Gives each program that sees a piece random numbers of its own, from seeds that are the same in all."""

    def own(index):
        for v in variables:
            if v.path.endswith("seed_generator_state"):
                v.assign(v + keras.ops.convert_to_tensor([index, 0], v.dtype))

    if pieces() > 1:
        current().on_each(own)


def prepared(optimizer):
    """An optimizer that is not built yet, made fit for the backend and the mesh in force."""
    backend.fuse(optimizer)
    if _in_force:
        current().prepared(optimizer)
    return optimizer


def check_compiled(loss, jit_compile):
    """Raises a ValueError for what `compile` takes and pieces of batches cannot do."""
    name, reduction = keras.backend.backend(), getattr(loss, "reduction", "mean")
    if jit_compile is not False:
        raise ValueError(f"jit_compile={jit_compile!r} does not go with a mesh on {name}: leave it out.")
    if getattr(loss, "compares_rows", False):
        raise ValueError(f"{type(loss).__name__} compares the rows of a batch, of which a program sees a piece on "
                         f"{name}: use KERAS_BACKEND=jax, or leave the mesh out.")  # fmt: skip
    if reduction in (None, "none", "sum"):
        raise ValueError(f"reduction={reduction!r} of the loss has no mean over pieces of a batch on {name}: "
                         "use mean_with_sample_weight.")  # fmt: skip


@contextlib.contextmanager
def together(task):
    """A step of a task, within which its optimizer moves weights by the gradients of all pieces of a batch."""
    optimizer = task.optimizer
    many = pieces() > 1 and not isinstance(optimizer, Averaging)  # replicas of one process share it: the first did
    if many:
        task.optimizer = Averaging(optimizer, current().begin_step(task))
    try:
        yield
    finally:
        if many:
            task.optimizer = optimizer
            current().end_step(task)


def average(tensor):
    """The mean of a tensor over the pieces of a batch; nothing is differentiated through it."""
    return current().average(tensor) if pieces() > 1 else tensor


def share(loss):
    """The loss of a piece over an average piece's labels, as Keras's loop takes it."""
    return current().share(loss) if pieces() > 1 else loss


def settle(task, loss):
    """A loss of a task was computed, and what was gathered for it can go; what Keras takes for it."""
    return current().settle(task, loss) if pieces() > 1 else loss


def plain(tensor):
    """A tensor that was computed from split ones, whole."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def whole(task):
    """A context in which layers of a task, if there is one, can be run alone, outside its `call`."""
    return current().complete(task) if task is not None and pieces() > 1 else contextlib.nullcontext()


def over_processes(metrics_variables):
    """A context in which the variables of metrics have their sums over the processes."""
    if not metrics_variables or pieces() == 1:
        return contextlib.nullcontext()
    sums = current().summed([v.value for v in metrics_variables])
    return keras.StatelessScope(list(zip(metrics_variables, sums)))


def gathering(loss, groups):
    """`loss` of lists of values, as one that takes them as they are split and gathers each where it is used.

    Without it the compiler may rather move activations, which are larger. Neither forward nor backward pass keeps a
    block's weight that was gathered: the backward pass gathers anew, and a gradient is split as soon as it is summed.

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


def gathered_late(variables, values):
    """The same of weights of blocks that run in a loop, within it: all gathered at once would not fit."""
    return _engine().gathered(current(), variables, values, late=True) if _splits_weights() else values


def lean(fn):
    """A function of tensors whose backward pass keeps no weight that was gathered within it."""
    return _engine().lean(fn) if _splits_weights() else fn


def _splits_weights():
    return _is_one_program() and current().shard == "fsdp"


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
    alone = pieces() == 1 and uneven_rest and rows > size and not uneven  # where there is one process
    if uneven or uneven_rest if processes.count() > 1 else alone:
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


def parts(rows):
    """How many parts of so many rows lie on devices of their own within one program: 1 without a mesh."""
    mesh = current()
    return 1 if mesh is None else mesh.parts(rows)


def apart(tensor):
    """A tensor (parts, …) with each part on the devices that have its rows."""
    mesh = current()
    return tensor if mesh is None or tensor.shape[0] == 1 else _engine().apart(mesh, tensor)


def placed(array):
    """An array as a tensor, with its rows over the data axes of the mesh in force; the same in every process."""
    return _engine().placed(current(), array) if _is_one_program() else keras.ops.convert_to_tensor(array)


def everywhere(tensor):
    """A tensor of a compiled program, such that every process can read the whole of it; None stays None."""
    if tensor is None or not _is_one_program() or processes.count() == 1:
        return tensor
    return _engine().everywhere(current(), tensor)


def _is_one_program():
    """Whether there is a mesh, and one program over all of it."""
    return bool(_in_force) and keras.backend.backend() == "jax"
