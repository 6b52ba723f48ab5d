"""Models over many devices: a mesh in words, one rule for every weight of every family, an error for what cannot be.

A backend's engine is one private module, `_jax.py`; a backend without one refuses a mesh, for Keras would train on one
device without a word. This module knows which mesh is in force, and no layer.
"""

import contextlib
import importlib

import keras

from zoo.sharding.rules import Rules
from zoo.sharding.words import AXES, DATA_AXES, SHARDS, checked, parse

__all__ = ["AXES", "DATA_AXES", "SHARDS", "apart", "batches", "current", "gathered", "gathering", "make", "parse",
           "parts", "placed", "planned", "scope"]  # fmt: skip

ENGINES = {
    "jax": "zoo.sharding._jax"
}  # backend: module with `devices`, `Mesh`, `placed`, `apart`, `gathering`, `gathered`


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


def make(mesh, shard="none", devices=None):
    """The `Mesh` of a scope, which `use` puts in force; `devices` stand in for those of this machine (JAX)."""
    engine = _engine(f"mesh {mesh!r}")
    if devices is None:
        return engine.Mesh(checked(mesh, shard, engine.devices()), shard)
    return engine.Mesh(checked(mesh, shard, len(devices)), shard, devices)


def use(mesh):
    """Puts a mesh in force from here on, as `scope` does within it; None ends it."""
    keras.distribution.set_distribution(mesh)


def current():
    """The `Mesh` in force, or None."""
    mesh = keras.distribution.distribution()
    return mesh if isinstance(mesh, Rules) else None


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
def batches(x, batch_size=None):
    """Within it, batches of these rows are whole on every device if the last one cannot be split as the others are.

    Args:
        x: arrays in any nesting; anything else, such as a loader, changes nothing.
        batch_size: rows in a batch; None for Keras's 32.
    """
    mesh, size = current(), batch_size or 32
    rows = next((len(a) for a in keras.tree.flatten(x) if getattr(a, "ndim", 0)), 0) if mesh else 0
    before = mesh and mesh.whole
    if rows > size and (rows % size) % mesh.num_model_replicas and size % mesh.num_model_replicas == 0:
        mesh.whole = True
        mesh.note(f"{rows} rows in batches of {size} leave {rows % size}, which {mesh.num_model_replicas} parts of "
                  "data do not divide: every batch is whole on every device")  # fmt: skip
    try:
        yield
    finally:
        if mesh:
            mesh.whole = before


def parts(rows):
    """How many parts of so many rows lie on devices of their own within one program: 1 without a mesh."""
    mesh = current()
    return 1 if mesh is None else mesh.parts(rows)


def apart(tensor):
    """A tensor (parts, …) with each part on the devices that have its rows."""
    mesh = current()
    return tensor if mesh is None or tensor.shape[0] == 1 else _engine().apart(mesh, tensor)


def placed(array):
    """An array as a tensor, with its rows over the data axes of the mesh in force."""
    tensor, mesh = keras.ops.convert_to_tensor(array), current()
    return tensor if mesh is None else _engine().placed(mesh, tensor)
