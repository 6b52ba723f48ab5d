"""Checkpoints: the whole training state at a step, so that a run killed at any moment continues to the same bits.

A checkpoint is a directory named by its step: `model.safetensors` (or shards) holds every variable of the model, the
seeds of its dropout among them, and of the optimizer; `state.json`, written last, holds the step and a digest of each
file. It is made under a temporary name and renamed, so one that is there is whole, unless the disk damaged it. The data
position is not stored: data are a function of the step.
"""

import hashlib
import json
import os
import shutil
import warnings
from pathlib import Path

from keras import backend, ops

from zoo.checkpoint import Checkpoint, read_json, write

FORMAT = 1


def save(directory, model, step, keep=2):
    """Writes the state of a compiled model after `step` updates.

    Args:
        directory: holds the checkpoints of one run; made if it is not there.
        model: a compiled `keras.Model`.
        step: number of updates done.
        keep: how many checkpoints stay, this one included; the older ones are deleted after it is written.

    Returns:
        The checkpoint's directory.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for left_over in directory.glob(".writing-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    temporary, target = directory / f".writing-{step:09d}", directory / f"{step:09d}"
    temporary.mkdir()
    files = write(temporary, ((name, _storable(v)) for name, v in _state(model).items()))
    digests = {name: _digest(temporary / name) for name in files}
    (temporary / "state.json").write_text(json.dumps({"format": FORMAT, "step": step, "files": digests}, indent=1))
    for path in (*temporary.iterdir(), temporary):
        _flush(path)
    if target.exists():  # one that was found damaged
        shutil.rmtree(target)
    temporary.rename(target)
    _flush(directory)
    for old in [path for path in checkpoints(directory) if int(path.name) <= step][:-keep]:
        shutil.rmtree(old)
    return target


def restore(directory, model):
    """Puts the newest whole checkpoint into a compiled model; damaged ones are skipped with a warning.

    Args:
        directory: what `save` wrote to; it need not exist.
        model: a compiled `keras.Model` with the same variables and optimizer as the one saved.

    Returns:
        The number of updates done; 0, and an untouched model, where there is no checkpoint.

    Raises:
        ValueError: a checkpoint of another model or optimizer; the message lists the names on both sides.

    Example:

    >>> import keras, tempfile
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="out")], name="line")
    >>> model.compile(keras.optimizers.SGD(name="sgd"), "mse")
    >>> runs = tempfile.mkdtemp()
    >>> path = save(runs, model, step=7)
    >>> restore(runs, model)
    7
    """
    for path in reversed(checkpoints(directory)):
        try:
            stored = _verified(path)
        except (ValueError, OSError) as error:
            warnings.warn(f"The checkpoint {path} is damaged and skipped: {error}", stacklevel=2)
            continue
        state = _state(model)
        _compare(path, stored, state)
        for name, variable in state.items():
            value = stored.read(name)
            variable.assign(value if _is_float(variable) else value.astype(variable.dtype))
        return int(path.name)
    return 0


def checkpoints(directory):
    """The checkpoints in a directory, oldest first."""
    directory = Path(directory)
    found = [path for path in directory.iterdir() if path.name.isdigit()] if directory.is_dir() else []
    return sorted(found, key=lambda path: int(path.name))


def _state(model):
    """Every variable of a model and its optimizer by a name of its own.

    Optimizer variables are numbered besides, for Keras gives several of one optimizer the same name.
    """
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    named = [(f"model/{v.path}", v) for v in model.variables]
    named += [(f"optimizer/{i}/{v.name}", v) for i, v in enumerate(model.optimizer.variables)]
    state = dict(named)
    assert len(state) == len(named), "two variables of the model share a path"
    return state


def _storable(variable):
    """What `zoo.checkpoint.write` takes: floats. In float64 the integers of seeds and steps are exact."""
    return variable if _is_float(variable) else ops.convert_to_numpy(variable.value).astype("float64")


def _is_float(variable):
    return backend.is_float_dtype(variable.dtype)


def _verified(path):
    """The tensors of a checkpoint whose files are those that were written."""
    state = read_json(path / "state.json")
    if state.get("format") != FORMAT or state.get("step") != int(path.name) or not isinstance(state.get("files"), dict):
        raise ValueError(f"{path / 'state.json'} does not describe step {int(path.name)} in format {FORMAT}.")
    for name, digest in state["files"].items():
        if _digest(path / name) != digest:
            raise ValueError(f"{name} is not what was written.")
    return Checkpoint(path)


def _compare(path, stored, state):
    theirs, ours = set(stored), set(state)
    shapes = [n for n in sorted(theirs & ours) if tuple(stored.shape(n)) != tuple(state[n].shape)]
    groups = {"only in the checkpoint": theirs - ours, "only in the model": ours - theirs,
              "of another shape": [f"{n} {stored.shape(n)} -> {tuple(state[n].shape)}" for n in shapes]}  # fmt: skip
    if any(groups.values()):
        lists = "; ".join(f"{what}: {', '.join(sorted(names)[:5])}" for what, names in groups.items() if names)
        raise ValueError(f"{path} belongs to another model or optimizer ({lists}): use the settings it was made with.")


def _digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _flush(path):
    """Waits until a file or directory is on the disk, so that a power cut finds it there."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
