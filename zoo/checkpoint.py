"""Files of tensors: a directory of safetensors, read tensor by tensor and written whole or not at all.

It knows names, shapes and bytes, and nothing of models. The bytes are checked before they are believed: a file that is
truncated, lies in its header or is named outside its directory is a ValueError. Pickles are opened by PyTorch's
restricted loader alone, and only where there is no safetensors file.
"""

import contextlib
import json
import math
import mmap
import os
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": ml_dtypes.bfloat16}
_ALIGNMENT = 64  # bytes; what JAX and TensorFlow ask of memory that they use as it is
_SAFE, _PICKLE = "model.safetensors", "pytorch_model.bin"


def read_json(path):
    """A JSON object from a file."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(value).__name__}.")
    return value


class Checkpoint:
    """The tensors of a directory by name, each read from disk when asked for.

    Looks for `model.safetensors`, then its sharded index, then `pytorch_model.bin` or its index, which need torch.

    Args:
        directory: a local directory.

    Raises:
        ValueError: no weights, a damaged file, or an index that points elsewhere.

    Example:

    >>> import tempfile, numpy as np
    >>> from zoo import checkpoint
    >>> directory = tempfile.mkdtemp()
    >>> checkpoint.write(directory, {"w": np.ones((2, 3), "float32")}.items())
    ['model.safetensors']
    >>> checkpoint.Checkpoint(directory).shape("w")
    (2, 3)
    """

    names = (_SAFE, _PICKLE)  # the first that is there is read

    def __init__(self, directory):
        self.directory = Path(directory)
        self._tensors = {}  # name -> (shape, dtype, read)
        for path in self._files():
            tensors = self._open(path)
            if twice := sorted(tensors.keys() & self._tensors.keys()):
                raise ValueError(f"{path} repeats {twice[0]!r} of another shard.")
            self._tensors |= tensors

    @classmethod
    def is_in(cls, directory):
        """Whether a directory holds such weights, whole or sharded."""
        return any((Path(directory) / f"{name}{end}").is_file() for name in cls.names for end in ("", ".index.json"))

    def _open(self, path):
        return _open_pickle(path) if path.suffix == ".bin" else _open_safe(path)

    def _files(self):
        for name in self.names:
            if (self.directory / name).is_file():
                return [self.directory / name]
            if (self.directory / f"{name}.index.json").is_file():
                return self._shards(self.directory / f"{name}.index.json")
        held = sorted(p.name for p in self.directory.iterdir())[:20] if self.directory.is_dir() else "no directory"
        raise ValueError(f"{self.directory} has neither {_SAFE} nor {_PICKLE}, whole or sharded; it has {held}.")

    def _shards(self, index):
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise ValueError(f"{index} has no weight_map.")
        files = {}
        for tensor, name in shards.items():
            if not isinstance(name, str) or not _is_plain(name) or not name.endswith((".safetensors", ".bin", ".h5")):
                raise ValueError(f"{index} points {tensor!r} at {name!r}: only weight files beside the index are read.")
            files[self.directory / name] = None
        for path in files:
            if not path.is_file():
                raise ValueError(f"{index} names {path.name}, which is missing: the download or copy is incomplete.")
        return list(files)

    def __iter__(self):
        return iter(self._tensors)

    def __contains__(self, name):
        return name in self._tensors

    def shape(self, name):
        """Shape of a tensor, without reading it."""
        return self._tensors[name][0]

    def is_float(self, name):
        """Whether a tensor holds plain floating-point numbers, not quantised ones or indices."""
        return self._tensors[name][1] in _DTYPES

    def dtype(self, name):
        """The numpy dtype of plain floating-point numbers."""
        return np.dtype(_DTYPES[self._tensors[name][1]])

    def read(self, name):
        """A tensor as a numpy array in its stored dtype (bfloat16 is that of `ml_dtypes`)."""
        return self._tensors[name][2]()


def _is_plain(name):
    """Whether a name is that of a file in the directory itself, on any system."""
    return "\0" not in name and PureWindowsPath(name).name == name == PurePosixPath(name).name


def _open_safe(path):
    """The tensors of a safetensors file, which its library has found whole and free of gaps and overlaps."""
    try:
        safe_open(path, framework="np")
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size), object_pairs_hook=_unique)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}.") from None
    header.pop("__metadata__", None)

    def read(dtype, shape, data_offsets):
        return _read(path, _DTYPES[dtype], shape, 8 + size + data_offsets[0])

    return {name: (tuple(x["shape"]), x["dtype"], lambda x=x: read(**x)) for name, x in header.items()}


def _read(path, dtype, shape, offset):
    """An array on the file itself: nothing is read before it is used, and writing to it changes memory alone.

    Each tensor has a map of its own, which leaves memory with the last array that is made of it.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if not size:
        return np.empty(shape, dtype)
    before = offset % mmap.ALLOCATIONGRANULARITY
    try:
        with open(path, "rb") as file:
            memory = mmap.mmap(file.fileno(), before + size, access=mmap.ACCESS_COPY, offset=offset - before)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} changed while it was read: {error}.") from None
    array = np.frombuffer(memory, "uint8", offset=before).view(dtype).reshape(shape)
    return array if array.flags.aligned else array.copy()


def _unique(pairs):
    """A JSON object, where a key that comes twice has one value."""
    found = {}
    for key, value in pairs:
        if found.setdefault(key, value) != value:
            raise ValueError(f"the key {key!r} comes twice, with different values")
    return found


def _open_pickle(path):
    try:
        import torch
    except ImportError:
        raise ImportError(
            f"{path} is pickled, and only PyTorch reads that safely: pip install keras-zoo[torch], or convert the file "
            f"to safetensors."
        ) from None
    kinds = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch raises half a dozen kinds for a damaged or forbidden file
        raise ValueError(f"{path} is not a plain PyTorch checkpoint: {str(error).splitlines()[0]}") from None

    def read(tensor):
        if tensor.dtype == torch.bfloat16:
            return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return tensor.numpy()

    return {
        name: (tuple(x.shape), kinds.get(x.dtype, str(x.dtype)), lambda x=x: read(x.detach()))
        for name, x in state.items()
        if isinstance(x, torch.Tensor)
    }


def write(directory, tensors, max_shard_size=5_000_000_000):
    """Writes `model.safetensors`, or shards and their index, under temporary names until all are whole.

    Args:
        directory: an existing directory.
        tensors: an iterable of (name, array), or of anything with an array's shape and dtype that numpy can make one
            of; one at a time is made.
        max_shard_size: bytes of a file above which another is begun; a single larger tensor gets a file of its own.

    Returns:
        The names of the files written.
    """
    directory, shards, size = Path(directory), [[]], 0
    for name, array in tensors:
        if shards[-1] and size + _bytes(array) > max_shard_size:
            shards.append([])
            size = 0
        shards[-1].append((name, array))
        size += _bytes(array)
    count = len(shards)
    files = [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)] if count > 1 else [_SAFE]
    temporary = [directory / f".writing-{os.getpid()}-{name}" for name in files]
    try:
        for path, shard in zip(temporary, shards):
            _write_safe(path, shard)
        for path, name in zip(temporary, files):
            os.replace(path, directory / name)
    finally:
        for path in temporary:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
    if count == 1:
        return files
    total = sum(_bytes(array) for shard in shards for _, array in shard)
    weight_map = {name: file for file, shard in zip(files, shards) for name, _ in shard}
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_text(directory / f"{_SAFE}.index.json", json.dumps(index, indent=2, sort_keys=True) + "\n")
    return [*files, f"{_SAFE}.index.json"]


def _bytes(array):
    return math.prod(array.shape) * np.dtype(array.dtype).itemsize


def _write_safe(path, tensors):
    """One safetensors file; its library wants all tensors in memory at once."""
    codes, header, offset = {np.dtype(v): k for k, v in _DTYPES.items()}, {"__metadata__": {"format": "pt"}}, 0
    for name, array in tensors:
        end = offset + _bytes(array)
        dtype = codes[np.dtype(array.dtype)]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, promised in tensors:
            array = np.ascontiguousarray(promised)
            assert array.dtype == promised.dtype and array.nbytes == _bytes(promised)
            file.write(array.reshape(-1).view("uint8"))
            del array  # before the next is made


def write_text(path, text):
    """Writes a file under a temporary name, then renames it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_png(path, figure):
    """Writes a figure of matplotlib as `write_text` writes text."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    temporary = Path(path).with_name(f".{Path(path).name}.{os.getpid()}")
    FigureCanvasAgg(figure).print_png(temporary)
    os.replace(temporary, path)
