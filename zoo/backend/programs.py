"""Functions of tensors as compiled programs: one call, a loop, a scan, and how batches are fed to `fit`."""

import contextlib
import itertools
import warnings

import keras
from keras import ops, tree


def feed(batches, ragged=True):
    """What `fit` takes for a generator of batches.

    On TensorFlow Keras would take the lengths of the first two for those of all. And its threads would tune themselves:
    the one that does sleeps twice as long each time, to a minute, and whoever ends an epoch waits until it wakes.

    Args:
        batches: iterator of nested numpy arrays.
        ragged: whether batches differ in rows, or in the length of rows.
    """
    if keras.backend.backend() != "tensorflow":
        return batches
    import tensorflow as tf

    first, options = next(batches), tf.data.Options()
    options.autotune.enabled = False
    open_ends = lambda a: [None, *a.shape[1:-1], *[None] * (a.ndim > 1)]  # noqa: E731
    signature = tree.map_structure(lambda a: tf.TensorSpec(open_ends(a) if ragged else a.shape, a.dtype), first)
    steps = tf.data.Dataset.from_generator(lambda: itertools.chain([first], batches), output_signature=signature)
    return steps.prefetch(2).with_options(options)


def compiles():
    """Whether `compiled` makes a program for each set of shapes, as all but PyTorch do."""
    return keras.backend.backend() != "torch"


def compiled(fn, variables, donate=()):
    """`fn` of tensors as one compiled program where the backend has one, for inference.

    Args:
        fn: a function of (nested) tensors that reads Keras variables and assigns none.
        variables: the variables it reads.
        donate: indices of arguments that may be overwritten (JAX); the caller must not use them again.

    Returns:
        A function of the same arguments. Each new set of shapes compiles once.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        def run(values, *args):
            with keras.StatelessScope(list(zip(variables, values))):
                return fn(*args)

        program = jax.jit(run, donate_argnums=tuple(i + 1 for i in donate))
        return lambda *args: program([v.value for v in variables], *args)
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(fn, autograph=False)
    import torch

    return torch.no_grad()(fn)


def repeated(more, step, variables):
    """The loop `while more(state, given): state = step(state, given)` of small steps as one program, for inference.

    JAX and TensorFlow compile all of it with XLA. PyTorch records the operations of one step and runs them without
    Python between them, which takes half the time where products are small.

    Args:
        more, step: functions as in `compiled` of tuples of nested tensors; None may be among them in `given`. The state
            keeps its structure, shapes and dtypes.
        variables: the variables they read.

    Returns:
        A function of (state, given). The state may be overwritten; each new set of shapes compiles once.
    """
    backend = keras.backend.backend()
    if backend == "torch":
        return _repeated_by_torch(more, step, variables)

    def thin(state):  # XLA's products drop the axis of one row, and then copy a cache that the loop keeps with it
        return [ops.squeeze(x, 0) if len(x.shape) > 2 and x.shape[0] == 1 else x for x in tree.flatten(state)]

    def loop(state, given):
        def full(leaves):
            leaves = [ops.reshape(x, y.shape) for x, y in zip(leaves, tree.flatten(state))]
            return tree.pack_sequence_as(state, leaves)

        again, once = lambda *s: more(full(s), given), lambda *s: thin(step(full(s), given))
        return full(ops.while_loop(again, once, thin(state)))

    if backend == "jax":
        return compiled(loop, variables, donate=(0,))
    import tensorflow as tf

    return tf.function(loop, autograph=False, jit_compile=True)


def _repeated_by_torch(more, step, variables):
    import torch

    programs = {}

    def recorded(state, given):
        leaves = tree.flatten((state, given))

        def run(values, *tensors):
            rest = iter(tensors)
            filled = tree.pack_sequence_as((state, given), [x if x is None else next(rest) for x in leaves])
            with keras.StatelessScope(list(zip(variables, values))):
                new = step(*filled)
                return *tree.flatten(new), more(new, filled[1])

        if torch.distributed.is_available() and torch.distributed.is_initialized():  # weights may be elsewhere
            return run
        example = [v.value.detach() for v in variables], *(x for x in leaves if x is not None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of shapes, which are constants here
            warnings.filterwarnings("error", "Converting a tensor to a NumPy array")  # which would be one too
            return torch.jit.trace(run, example, check_trace=False)

    @torch.no_grad()
    def loop(state, given):
        fixed, flat = tree.flatten(given), tree.flatten(state)
        key = tuple(None if x is None else (x.shape, x.dtype) for x in (*flat, *fixed))
        fixed, values = [x for x in fixed if x is not None], [v.value.detach() for v in variables]
        going = more(state, given)
        with torch.jit.optimized_execution(False):
            while going:
                if key not in programs:
                    programs[key] = recorded(state, given)
                *flat, going = programs[key](values, *flat, *fixed)
        return tree.pack_sequence_as(state, flat)

    return loop


def scan(step, carry, xs, count):
    """`carry, y = step(carry, [x[i] for x in xs])` for i in range(count), one after the other.

    Returns:
        The last carry (a list) and the stacked y.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        return ops.scan(step, carry, xs)
    if backend == "torch":
        ys = []
        for i in range(count):
            carry, y = step(carry, [x[i] for x in xs])
            ys.append(y)
        return carry, ops.stack(ys)
    import tensorflow as tf

    def body(i, carry, ys):
        carry, y = step(carry, [x[i] for x in xs])
        return i + 1, carry, ys.write(i, y)

    start = (0, list(carry), tf.TensorArray(xs[0].dtype, size=count))
    _, carry, ys = tf.while_loop(lambda i, *_: i < count, body, start, parallel_iterations=1)
    return carry, ys.stack()


def no_gradients():
    """A context in which PyTorch records nothing; the others record only where they are asked to."""
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()
