"""The processes of one job: joining it, who is who, and what they tell each other; trivial answers for one alone.

Every process runs the same program. What is called here is called by all of them, in the same order, or those that call
it wait for ever. A backend's bodies are one private module, `_jax.py`, `_torch.py` or `_tensorflow.py`, with the same
functions. It knows numbers and tensors, and neither models nor meshes.
"""

import contextlib
import importlib
import random

import keras
import numpy as np


def _engine():
    return importlib.import_module(f"zoo.processes._{keras.backend.backend()}")


def start(coordinator=None, num_processes=None, process_id=None):
    """Joins the job, before anything is computed; alone where nobody else is to be found.

    Python's `random`, from which Keras draws seeds, is the same everywhere from then on.

    Args:
        coordinator: "host:port" of the first process. None, with the two below, for what the launcher says: TPU pods,
            SLURM and Open MPI on JAX, torchrun on PyTorch, TF_CONFIG on TensorFlow.
        num_processes: how many there are.
        process_id: which of them this is, from 0.

    Raises:
        ValueError: some of the three without the others, or numbers that do not fit.
    """
    given = coordinator, num_processes, process_id
    if given.count(None) not in (0, 3):
        raise ValueError(
            f"coordinator={coordinator!r}, num_processes={num_processes} and process_id={process_id} belong together: "
            "give all three, or none where the launcher tells."
        )
    if coordinator is not None:
        host, _, port = coordinator.rpartition(":")
        if not (host and port.isdecimal()):
            raise ValueError(f"coordinator={coordinator!r} must be host:port of the first process.")
        if not 0 <= process_id < num_processes:
            raise ValueError(f"process_id={process_id} is not one of num_processes={num_processes}, counted from 0.")
    _engine().start(*given)
    if count() > 1:
        random.seed(int(broadcast(random.getrandbits(31))))


def index():
    """Which process this is, from 0."""
    return _engine().index()


def count():
    """How many processes there are."""
    return _engine().count()


def is_first():
    """Whether this is the one that writes files and speaks."""
    return index() == 0


def barrier(name):
    """Returns when every process has come to the barrier of this name."""
    if count() > 1:
        _engine().barrier(name)


@contextlib.contextmanager
def first_then_others(name):
    """Its body is run by the first process, and then by the others, who find the files that it made."""
    if not is_first():
        barrier(name)
    yield
    if is_first():
        barrier(name)


def mean(numbers):
    """The mean over processes of host numbers.

    Args:
        numbers: a number, an array, or a dictionary or list of them; of the same shapes in every process.

    Returns:
        The same with float64 arrays, exact to about 1e-15.
    """
    numbers = keras.tree.map_structure(lambda x: np.asarray(x, "float64"), numbers)
    if count() == 1:
        return numbers
    flat = keras.tree.flatten(numbers)
    means = _engine().gathered(np.concatenate([x.ravel() for x in flat])).mean(axis=0)
    pieces = np.split(means, np.cumsum([x.size for x in flat])[:-1])
    return keras.tree.pack_sequence_as(numbers, [p.reshape(x.shape) for p, x in zip(pieces, flat)])


def broadcast(number):
    """The number that the first process gives, in every process; whole numbers are exact below 2**53."""
    return number if count() == 1 else _engine().gathered(np.array([number], "float64"))[0, 0]


def whole(tensor):
    """A tensor as numpy, gathered if its parts lie in several processes; it may share the tensor's memory."""
    return _engine().whole(tensor)


def spans(tensor):
    """Whether parts of a tensor lie in other processes alone."""
    return _engine().spans(tensor)


class Whole:
    """Stands for the `whole` value of a variable until numpy asks for it, so that one at a time is in memory.

    Args:
        variable: a Keras variable.
        dtype: of the array; None for the variable's own.
    """

    def __init__(self, variable, dtype=None):
        self.variable, self.shape, self.dtype = variable, tuple(variable.shape), dtype or variable.dtype

    def __array__(self, dtype=None, copy=None):
        return whole(self.variable.value).astype(dtype or self.dtype, copy=bool(copy))
