"""The tensors of KerasHub's HDF5 files by name, read one at a time and believed only as far as they are checked.

Nothing is followed out of a file: a link to elsewhere, data kept in another file, or more numbers promised than are
stored is a ValueError. It knows paths, shapes and bytes, and nothing of models.
"""

from pathlib import Path

import ml_dtypes
import numpy as np

from zoo.checkpoint import read_json

MODEL, SHARDS, TASK = "model.weights.h5", "model.weights.json", "task.weights.h5"
_FLOATS = ("float64", "float32", "float16")


class Tensors:
    """What `zoo.weights.load` reads: names as in `model.weights.h5`; those of `task.weights.h5` begin with `task/`.

    Args:
        directory: a local directory.
        task: whether to read the weights of the task's head too, where there are any.

    Raises:
        ValueError: no weights, or a file that is damaged or leads elsewhere.
    """

    def __init__(self, directory, task=False):
        directory, self._tensors = Path(directory), {}  # name -> (file, path in it, shape, dtype)
        for path in _files(directory):
            self._add(path, "")
        if task and (directory / TASK).is_file():
            self._add(directory / TASK, "task/")

    def _add(self, path, prefix):
        for name, (shape, dtype) in _open(path, _listed).items():
            if prefix + name in self._tensors:
                raise ValueError(f"{path} repeats {name!r} of another file.")
            self._tensors[prefix + name] = (path, name, shape, dtype)

    def __iter__(self):
        return iter(self._tensors)

    def __contains__(self, name):
        return name in self._tensors

    def shape(self, name):
        """Shape of a tensor, without reading it."""
        return self._tensors[name][2]

    def is_float(self, name):
        """Whether a tensor holds plain floating-point numbers."""
        return self._tensors[name][3] is not None

    def read(self, name):
        """A tensor as a numpy array in its stored dtype (bfloat16 is that of `ml_dtypes`)."""
        path, inner, shape, dtype = self._tensors[name]
        array = _open(path, lambda file: file[inner][()])
        if array.shape != shape:
            raise ValueError(f"{path} has been changed while it was read.")
        return array.view(dtype)


def _files(directory):
    """The files of a backbone's weights: one, or the shards that an index names."""
    if (directory / MODEL).is_file():
        return [directory / MODEL]
    index = directory / SHARDS
    if not index.is_file():
        held = sorted(path.name for path in directory.iterdir())[:20]
        raise ValueError(f"{directory} has neither {MODEL} nor {SHARDS}; it has {held}.")
    places = read_json(index).get("weight_map")
    places = list(places.values()) if isinstance(places, dict) else []
    names = dict.fromkeys(name for place in places for name in (place if isinstance(place, list) else [place]))
    if not names:
        raise ValueError(f"{index} has no weight_map.")
    for name in names:
        if not isinstance(name, str) or not name.endswith(".weights.h5") or set(name) & set("/\\:\0"):
            raise ValueError(f"{index} points at {name!r}: only weight files beside the index are read.")
        if not (directory / name).is_file():
            raise ValueError(f"{index} names {name}, which is missing: the download or copy is incomplete.")
    return [directory / name for name in names]


def _open(path, use):
    """What `use` makes of an open file; whatever h5py finds wrong in it is a ValueError that names it."""
    import h5py  # keras needs it, so it is there; a preset without such files should not load it

    try:
        with h5py.File(path, "r") as file:
            return use(file)
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, MemoryError, RecursionError) as error:
        found = str(error) if str(path) in str(error) else f"{path} is not a whole file of weights: {error}"
        raise ValueError(found) from None


def _listed(file):
    """name -> (shape, dtype or None for what is no plain number) of all datasets that a file holds itself."""
    import h5py

    found, groups, seen = {}, [file], set()
    while groups:
        group = groups.pop()
        for key in group:
            name = f"{group.name.rstrip('/')}/{key}".lstrip("/")
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise ValueError(f"{name!r} is a link to elsewhere, which is not followed")
            item = group[key]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                raise ValueError(f"{name!r} is stored under another name too")
            seen.add(address)
            if isinstance(item, h5py.Group):
                groups.append(item)
            elif isinstance(item, h5py.Dataset):
                found[name] = _checked(name, item)
    return found


def _checked(name, item):
    """Shape and dtype of a dataset whose bytes are all in the file as they are."""
    if item.is_virtual or item.external:
        raise ValueError(f"{name!r} keeps its numbers in another file, which is not opened")
    size, stored = (item.size or 0) * item.dtype.itemsize, item.id.get_storage_size()
    if item.shape is None or size != stored:
        raise ValueError(f"{name!r} of shape {item.shape} needs {size} bytes, but {stored} are stored")
    if item.dtype in _FLOATS:
        return item.shape, item.dtype
    halved = item.dtype == np.dtype("V2") and item.attrs.get("dtype") == "bfloat16"  # HDF5 has no such numbers
    return item.shape, np.dtype(ml_dtypes.bfloat16) if halved else None
