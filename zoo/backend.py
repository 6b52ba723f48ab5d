"""What differs between JAX, TensorFlow and PyTorch, each difference behind one function with one contract.

The only module, beside the engines of training and distribution, that imports a backend, and then only the one in use.
"""

import contextlib
import contextvars
import functools
import itertools
import mmap
import os
import warnings

import keras
import numpy as np
from keras import ops, tree

if keras.backend.backend() == "torch":
    # Large tensors on huge pages, where Linux has them: each is mapped anew, and small pages cost a part of a step.
    # PyTorch looks here at its first allocation.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

_uninitialised = contextvars.ContextVar("uninitialised", default=False)
_target = contextvars.ContextVar("target", default=None)


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
    if backend == "jax":
        import jax

        loop = lambda state, given: jax.lax.while_loop(lambda s: more(s, given), lambda s: step(s, given), state)  # noqa: E731
        return compiled(loop, variables, donate=(0,))
    import tensorflow as tf

    def loop(state, given):
        return tf.while_loop(lambda *s: more(s, given), lambda *s: step(s, given), state)

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


def write(x, part, index):
    """x (b, k, s, h) with `part` (b, k, t, h) in the slots from `index` on; without a copy, `x` is given up for it."""
    if keras.backend.backend() != "torch":
        return ops.slice_update(x, (0, 0, index, 0), part)
    import torch

    slots = torch.arange(part.shape[2], device=x.device) + index
    return x.index_copy_(2, slots, part)


def product(x, kernel, bias=None):
    """x (…, d) times kernel (d, f), plus a bias (f,) where there is one.

    On PyTorch the bias is where the product's sums begin, so it costs no pass of its own. On JAX the kernel's gradient
    is written as one contraction over rows. Left to itself, XLA on CPUs transposes the incoming gradient, and what is
    fused with it, element by element: a feed-forward's backward pass takes three times as long.
    """
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        bias = None if bias is None else ops.convert_to_tensor(bias)
        return torch.nn.functional.linear(x, ops.convert_to_tensor(kernel).t(), bias)
    y = _jax_product()(x, ops.convert_to_tensor(kernel)) if backend == "jax" else ops.matmul(x, kernel)
    return y if bias is None else ops.add(y, bias)


@functools.cache
def _jax_product():
    import jax

    @jax.custom_vjp
    def multiply(x, kernel):
        return x @ kernel

    def forward(x, kernel):
        return x @ kernel, (x, kernel)

    def backward(saved, gradient):
        x, kernel = saved
        rows, gradients = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
        d_kernel = jax.lax.dot_general(rows, gradients, (((0,), (0,)), ((), ())))
        return (gradients @ kernel.T).reshape(x.shape), d_kernel

    multiply.defvjp(forward, backward)
    return multiply


def cross_entropy(logits, labels):
    """What the cross-entropy of float32 logits (n, v) against labels (n,) is made of.

    Nothing is differentiated through it. Fewest passes over memory: XLA fuses the formula, the others have kernels.

    Returns:
        log(Z), the logits of the labels and the largest logits, (n, 1) each; and the gradient of the losses (n, v),
        softmax minus one-hot, which on PyTorch takes the place of the logits.
    """
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        index = labels[:, None].long()
        target, top = logits.gather(1, index), logits.amax(1, keepdim=True)
        gradients = torch.softmax(logits, 1, out=logits)
        log_z = top - gradients.amax(1, keepdim=True).log()  # the largest probability is 1 / sum(exp(logits - top))
        return log_z, target, top, gradients.scatter_add_(1, index, gradients.new_full((1, 1), -1.0).expand_as(index))
    top = ops.max(logits, axis=-1, keepdims=True)
    if backend == "tensorflow":
        import tensorflow as tf

        losses, gradients = tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(features=logits, labels=labels)
        target = tf.gather(logits, labels[:, None], batch_dims=1)
        return losses[:, None] + target, target, top, gradients
    exponentials, hot = ops.exp(logits - top), ops.arange(logits.shape[1]) == labels[:, None]
    total = ops.sum(exponentials, axis=-1, keepdims=True)
    target = ops.sum(ops.where(hot, logits, 0.0), axis=-1, keepdims=True)
    return ops.log(total) + top, target, top, exponentials / total - ops.cast(hot, "float32")


def add_product(total, a, b):
    """total + a b, of (p, …) matrices; on PyTorch in the total's memory, which nobody else may need."""
    if keras.backend.backend() == "torch" and a.dtype == total.dtype:
        return total.baddbmm_(a, b)
    return total + ops.cast(ops.matmul(a, b), total.dtype)


@contextlib.contextmanager
def targeting(platform):
    """Within it, JAX's programs are made for a platform, "tpu" or "cpu", whatever this machine has."""
    token = _target.set(platform)
    try:
        yield
    finally:
        _target.reset(token)


def jax_platform():
    """What JAX's programs are made for: "cpu", "gpu" or "tpu"."""
    import jax

    return _target.get() or jax.default_backend()


def with_gradients(loss, tensors, gradients):
    """`loss`, a number, as if its gradients with respect to the tensors were the ones given."""
    tensors = [ops.convert_to_tensor(x) for x in tensors]
    gradients = [ops.cast(ops.stop_gradient(g), x.dtype) for g, x in zip(gradients, tensors)]
    if keras.backend.backend() == "jax":
        return _jax_with_gradients()(loss, tensors, gradients)

    @ops.custom_gradient
    def known(*tensors):
        def backward(*args, upstream=None):
            upstream = args[-1] if upstream is None else upstream
            return tuple(g * ops.cast(upstream, g.dtype) for g in gradients)

        return loss, backward

    return known(*tensors)


@functools.cache
def _jax_with_gradients():
    """Takes all it needs as arguments, for it may run where a checkpoint traces anew."""
    import jax

    known = jax.custom_vjp(lambda loss, tensors, gradients: loss)

    def backward(gradients, upstream):
        return None, [g * upstream.astype(g.dtype) for g in gradients], None

    known.defvjp(lambda loss, tensors, gradients: (loss, gradients), backward)
    return known


def fuse(optimizer):
    """Makes Keras's Adam or AdamW pass over memory once on PyTorch's CPUs, where it makes ten passes; others stay."""
    if keras.backend.backend() == "torch" and isinstance(optimizer, keras.optimizers.Adam):
        by_keras = getattr(optimizer, "_parallel_update_step", None)  # which a user's subclass has not
        if by_keras and not optimizer.amsgrad:
            optimizer._parallel_update_step = functools.partial(_fused_adam, optimizer, by_keras)


def _fused_adam(optimizer, by_keras, gradients, variables, rate):
    import torch
    from torch.optim.adam import adam

    weights, done = [v.value for v in variables], int(optimizer.iterations.value)
    if any(w.device.type != "cpu" or hasattr(w, "placements") for w in weights):  # reading the step would wait for it
        return by_keras(gradients, variables, rate)
    # The kernel walks through memory. Weights of files are parts of others, or lie transposed, as all else must then.
    for w in weights:
        if not w.is_contiguous() and not (w.ndim > 1 and w.mT.is_contiguous()):
            w.data = w.data.contiguous()
    alike = lambda x, w: x if x.stride() == w.stride() else torch.empty_like(w).copy_(x)  # noqa: E731
    places, slots = list(map(optimizer._get_variable_index, variables)), []
    for kept in (optimizer._momentums, optimizer._velocities):
        slots.append([kept[i].value for i in places])
        for slot, w in zip(slots[-1], weights):
            slot.data = alike(slot.data, w)
    gradients = [alike(g, w) for g, w in zip(gradients, weights)]
    steps = list(torch.full((len(weights),), float(done)))
    # Keras adds epsilon before the velocity's bias is corrected, PyTorch after; the decay is done.
    epsilon = optimizer.epsilon / (1 - optimizer.beta_2 ** (done + 1)) ** 0.5
    adam(weights, gradients, *slots, [], steps, fused=True, amsgrad=False, maximize=False, beta1=optimizer.beta_1,
         beta2=optimizer.beta_2, lr=float(rate), weight_decay=0.0, eps=epsilon)  # fmt: skip


def logits_at_once():
    """How many logits a slice of the loss makes on a device: 8 MB stay in a CPU's cache where XLA fuses their uses.

    The others pass over memory anyway, and add a kernel's gradient to a sum once a slice; accelerators want few slices.
    """
    if keras.backend.backend() == "jax":
        return 2**21 if jax_platform() == "cpu" else 2**27
    return 2**23


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


def device_name():
    """What the first accelerator in use calls itself, such as "NVIDIA A100-SXM4-40GB"; None on a CPU."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        device = jax.devices()[0]
        return None if device.platform == "cpu" else device.device_kind
    if backend == "torch":
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else None
    import tensorflow as tf

    devices = tf.config.list_physical_devices("GPU")
    return tf.config.experimental.get_device_details(devices[0]).get("device_name", "GPU") if devices else None


def fused_attention_pays():
    """Whether the backend's fused attention beats einsums here: PyTorch always, JAX on GPUs.

    Keras's for TPUs leaves out biases, and sees no future where nothing is masked.
    """
    if keras.backend.backend() == "jax":
        return jax_platform() == "gpu"
    return keras.backend.backend() == "torch"


def recomputed(fn, args, seeds=None):
    """`fn(*args)`; on an accelerator under JAX its backward pass keeps the arguments alone and computes the rest again.

    Args:
        fn: a function of tensors.
        args: tensors or None.
        seeds: the `SeedGenerator` that `fn` draws one seed from, or None.
    """
    if keras.backend.backend() != "jax" or jax_platform() == "cpu":
        return fn(*args)
    if seeds is None:
        return _jax_remat(fn)(*args)

    def run(state, *args):
        with keras.StatelessScope([(seeds.state, state)]):
            return fn(*args)

    return _jax_remat(run)(seeds.next(), *args)


def _jax_remat(fn):
    """`jax.checkpoint`, but not undone by one around it, whose policy would hold for what is within this one too."""
    import jax

    def backward(args, gradients):
        args, gradients = jax.lax.optimization_barrier((args, gradients))  # else XLA would keep what is computed twice
        return jax.vjp(fn, *args)[1](gradients)

    run = jax.custom_vjp(fn)
    run.defvjp(lambda *args: (fn(*args), args), backward)
    return run


def remat(layer, seeds, inputs, **flags):
    """`layer(**inputs, **flags)`, keeping only its inputs for the backward pass.

    `keras.remat` alone is not enough. A random seed drawn inside would leave the recomputed trace on JAX, and
    TensorFlow differentiates by explicit arguments only. So weights and seed state go in as arguments, and the seed
    state is moved on outside. PyTorch's weights stay outside, for they may be there only while the layer runs.

    Args:
        layer: a built layer.
        seeds: the `SeedGenerator` that the layer draws from, at most 8 times a call.
        inputs: dictionary of tensors, None, or nested tuples of them.
        flags: keyword arguments that are not tensors.

    Returns:
        What the layer returns.
    """
    leaves = tree.flatten(inputs)
    # TensorFlow cannot pass booleans through a recomputed function.
    booleans = [leaf is not None and keras.backend.standardize_dtype(leaf.dtype) == "bool" for leaf in leaves]
    tensors = [ops.cast(x, "int32") if b else x for x, b in zip(leaves, booleans) if x is not None]
    outside = keras.backend.backend() == "torch"
    variables = [] if outside else [v for v in layer.variables if v is not seeds.state]
    state = seeds.state.value * 1
    seeds.state.assign(seeds.state + ops.convert_to_tensor([0, 8], dtype=seeds.state.dtype))

    def run(state, *values):
        given = iter(values[: len(tensors)])
        filled = [x if x is None else next(given) for x in leaves]
        filled = [ops.cast(x, "bool") if b else x for x, b in zip(filled, booleans)]
        restored = tree.pack_sequence_as(inputs, filled)
        mapping = [(seeds.state, state), *zip(variables, values[len(tensors) :])]
        with keras.StatelessScope(mapping):
            return layer(**restored, **flags)

    again = _jax_remat if keras.backend.backend() == "jax" else keras.remat
    return again(run)(state, *tensors, *(v.value for v in variables))


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
