"""Checkpoints: the whole training state at a step, so that a run killed at any moment continues to the same bits.

A checkpoint is a directory named by its step: `model.safetensors` (or shards) holds every variable of the model, the
seeds of its dropout among them, and of the optimizer; `state.json`, written last, holds the step and a digest of each
file. It is made under a temporary name and renamed, so one that is there is whole, unless the disk damaged it. The data
position is not stored: data are a function of the step. A step waits only for the copy to the host's memory.
"""

import hashlib
import json
import os
import shutil
import threading
import warnings
from pathlib import Path

import numpy as np
from keras import backend

from zoo import processes, sharding
from zoo.backend import give
from zoo.checkpoint import Checkpoint, read_json, write

FORMAT = 1


class Saver:
    """Writes checkpoints in a thread of its own.

    Args:
        directory: holds the checkpoints of one run; made if it is not there.
        keep: how many of the newest checkpoints stay. The one with the best validation loss stays besides; the others
            are deleted once the new one is whole.
    """

    def __init__(self, directory, keep=2):
        self.directory, self.keep = Path(directory), keep
        self._thread, self._error = None, None

    def save(self, model, step, val_loss=None):
        """Copies the state of a compiled model after `step` updates, waits for the save before, and begins to write.

        Args:
            model: a compiled `keras.Model`.
            step: number of updates done.
            val_loss: validation loss at this step, if it was measured.

        Raises:
            OSError: the save before failed.
        """
        self.wait()
        state = {name: _promised(v) for name, v in _state(model).items()}
        if any(processes.spans(promise.variable.value) for promise in state.values()):
            self._gather(state, step, val_loss)
        elif processes.is_first():
            state = {name: np.array(promise, copy=True) for name, promise in state.items()}  # a step overwrites it
            self._thread = threading.Thread(target=self._run, args=(state, step, val_loss))
            self._thread.start()

    def _gather(self, state, *facts):
        """All processes bring their parts of each tensor, and the first writes them: nobody holds more than one."""
        if processes.is_first():
            _write(self.directory, self.keep, state, *facts)
        else:
            for promise in state.values():
                np.asarray(promise)
        processes.barrier("written")  # a step would wait less patiently for the first process

    def wait(self):
        """Returns, in all processes, when the last save is on the disk; raises what it failed with."""
        if self._thread is not None:
            self._thread.join()
        error, self._thread, self._error = self._error, None, None
        if error is not None:
            raise error
        processes.barrier("saved")

    def _run(self, *args):
        try:
            _write(self.directory, self.keep, *args)
        except BaseException as error:
            self._error = error


def save(directory, model, step, keep=2, val_loss=None):
    """Writes the state of a compiled model after `step` updates, and waits for it; see `Saver`.

    Returns:
        The checkpoint's directory.
    """
    saver = Saver(directory, keep)
    saver.save(model, step, val_loss)
    saver.wait()
    return saver.directory / f"{step:09d}"


def _write(directory, keep, state, step, val_loss):
    directory.mkdir(parents=True, exist_ok=True)
    for left_over in directory.glob(".writing-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    temporary, target = directory / f".writing-{step:09d}", directory / f"{step:09d}"
    temporary.mkdir()
    files = write(temporary, state.items())
    digests = {name: _digest(temporary / name) for name in files}
    facts = {"format": FORMAT, "step": step, "val_loss": val_loss, "files": digests}
    (temporary / "state.json").write_text(json.dumps(facts, indent=1))
    for path in (*temporary.iterdir(), temporary):
        _flush(path)
    if target.exists():  # one that was found damaged
        shutil.rmtree(target)
    temporary.rename(target)
    _flush(directory)
    top = best(directory)
    for old in [path for path in checkpoints(directory) if int(path.name) <= step][:-keep]:
        if top is None or int(old.name) != top[0]:
            shutil.rmtree(old)


def restore(directory, model, step=None):
    """Puts the newest whole checkpoint into a compiled model; damaged ones are skipped with a warning.

    Args:
        directory: what `save` wrote to; it need not exist.
        model: a compiled `keras.Model` with the same variables and optimizer as the one saved, on any backend.
        step: the checkpoint of this step alone, if it is there and whole.

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
    found = _newest(directory, step) if processes.is_first() else None
    found = int(processes.broadcast(-1 if found is None else found))
    if found < 0:
        return 0
    path = Path(directory) / f"{found:09d}"
    if not path.is_dir():
        raise ValueError(f"{path} is not there in process {processes.index()}: all must see the directory of the run.")
    stored, state = Checkpoint(path), _state(model)
    _compare(path, stored, state)
    for name, variable in state.items():
        value = stored.read(name)
        give(variable, value) if _is_float(variable) else variable.assign(value.astype(variable.dtype))
    sharding.reseed(model.variables)
    return found


def _newest(directory, step):
    """The step of the newest checkpoint that is whole, or `step` if that is; else None."""
    for path in reversed(checkpoints(directory)):
        if step not in (None, int(path.name)):
            continue
        try:
            _verify(path)
            return int(path.name)
        except (ValueError, OSError) as error:
            warnings.warn(f"The checkpoint {path} is damaged and skipped: {error}", stacklevel=3)


def checkpoints(directory):
    """The checkpoints in a directory, oldest first."""
    directory = Path(directory)
    found = [path for path in directory.iterdir() if path.name.isdigit()] if directory.is_dir() else []
    return sorted(found, key=lambda path: int(path.name))


def best(directory):
    """(step, validation loss) of the checkpoint with the lowest one; None if none has one."""
    found = []
    for path in checkpoints(directory):
        try:
            facts = read_json(path / "state.json")
        except (ValueError, OSError):  # damaged, as `restore` will say
            continue
        if isinstance(facts, dict) and isinstance(facts.get("val_loss"), float):
            found.append((facts["val_loss"], int(path.name)))
    return min(found)[::-1] if found else None


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


def _promised(variable):
    """Its value, once numpy asks for it.

    `zoo.checkpoint.write` takes floats; in float64 the integers of seeds and steps are exact.
    """
    return processes.Whole(variable, None if _is_float(variable) else "float64")


def _is_float(variable):
    return backend.is_float_dtype(variable.dtype)


def _verify(path):
    """Raises for a checkpoint whose files are not those that were written."""
    state = read_json(path / "state.json")
    if state.get("format") != FORMAT or state.get("step") != int(path.name) or not isinstance(state.get("files"), dict):
        raise ValueError(f"{path / 'state.json'} does not describe step {int(path.name)} in format {FORMAT}.")
    for name, digest in state["files"].items():
        if _digest(path / name) != digest:
            raise ValueError(f"{name} is not what was written.")
    Checkpoint(path)


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
