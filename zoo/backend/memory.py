"""Memory of weights: made by nobody, then given arrays of files without a copy where that can be."""

import contextlib
import contextvars
import mmap

import keras
import numpy as np
from keras import ops

_uninitialised = contextvars.ContextVar("uninitialised", default=False)


@contextlib.contextmanager
def uninitialised(wanted=True):
    """Within it, the weights of new models are drawn by nobody: all of them must be given values with `give`."""
    token = _uninitialised.set(wanted)
    try:
        yield
    finally:
        _uninitialised.reset(token)


def is_uninitialised():
    """Whether `uninitialised()` is in force."""
    return _uninitialised.get()


class Blank(keras.initializers.Initializer):
    """No values at all, for weights that are about to be loaded."""

    def __call__(self, shape, dtype=None):
        assert is_uninitialised(), "a layer was built too late to be loaded"
        return _blank(shape, dtype)


def _blank(shape, dtype):
    """A tensor of any values whose memory is not touched, where the backend allows that."""
    name = keras.backend.backend()
    if name == "torch":
        return ops.empty(shape, dtype)
    if name == "tensorflow":
        import tensorflow as tf

        return tf.raw_ops.Empty(shape=shape, dtype=dtype, init=False)
    import jax

    if keras.distribution.distribution() is not None or jax.default_backend() != "cpu" or not np.prod(shape):
        return ops.zeros(shape, dtype)
    return jax.device_put(_pages(shape, np.dtype(dtype)))


def _pages(shape, dtype, now=False):
    """An array in memory of its own, got when it is touched, or all `now`, in half the time, where the system can.

    Huge pages would be slower to get than to fill.
    """
    options = {}
    if now and hasattr(mmap, "MAP_POPULATE"):
        options["flags"] = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    return np.frombuffer(mmap.mmap(-1, int(np.prod(shape)) * dtype.itemsize, **options), dtype).reshape(shape)


def give(variable, array):
    """Makes a numpy array, cast to the variable's dtype, its value; the array's own memory is used where it can be.

    Args:
        variable: a Keras variable.
        array: of the variable's shape, of any floating dtype and strides. Nobody else may write to it from then on.
    """
    name, half = keras.backend.backend(), array.dtype.name == "bfloat16"  # which others do not take from numpy
    if name == "torch":
        import torch

        value = torch.from_numpy(array.view("int16")).view(torch.bfloat16) if half else torch.from_numpy(array)
        value = value.to(variable.value.device, variable.value.dtype)
        if hasattr(variable.value, "placements"):  # split over processes: each takes its share
            from torch.distributed.tensor import distribute_tensor

            mesh, placements = variable.value.device_mesh, variable.value.placements
            share = distribute_tensor(value.contiguous(), mesh, placements, src_data_rank=None)
            with torch.no_grad():
                variable.value.to_local().copy_(share.to_local())
            return
        variable.value.data = value if 1 in value.stride() else value.contiguous()  # transposed is as fast in products
    elif name == "jax":
        import jax

        # Under a mesh each device gets its part alone.
        split = variable.value.sharding if keras.distribution.distribution() else None
        # It copies what lies otherwise than it wants, in half the time that numpy takes.
        array = array if array.dtype == np.dtype(variable.dtype) else _aligned(array, variable.dtype)
        variable.assign(jax.device_put(array) if split is None else spread(array, split))
    else:
        import tensorflow as tf

        array = _aligned(array, variable.dtype)
        half = array.dtype.name == "bfloat16"
        tensor = tf.experimental.dlpack.from_dlpack((array.view("int16") if half else array).__dlpack__())
        variable.assign(tf.bitcast(tensor, tf.bfloat16) if half else tensor)


def spread(array, sharding):
    """A numpy array, the same in every process, as a JAX array; each process places the parts of its devices."""
    import jax

    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    return jax.make_array_from_callback(array.shape, sharding, lambda part: array[part])


def _aligned(array, dtype):
    """An array in the layout and at an address that JAX and TensorFlow use as they are: itself, or a copy."""
    dtype, flags = np.dtype(dtype), array.flags  # of ml_dtypes for bfloat16
    fits = flags.c_contiguous and flags.writeable and array.ctypes.data % 64 == 0
    if not array.size or (fits and array.dtype == dtype):
        return array.astype(dtype, copy=False)
    copy = _pages(array.shape, dtype, now=True)
    if array.ndim < 2 or flags.c_contiguous:
        copy[...] = array
    else:
        for i in range(0, array.shape[-1], 64):  # strips of it stay in the cache, which takes a third of the time
            copy[..., i : i + 64] = array[..., i : i + 64]
    return copy
