"""What differs between JAX, TensorFlow and PyTorch, each difference behind one function with one contract.

The only module, beside the engines of training and distribution, that imports a backend, and then only the one in use.
"""

import keras
from keras import ops, tree


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


def fused_attention_pays():
    """Whether the backend's fused attention beats einsums here: PyTorch always, JAX on an accelerator."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() != "cpu"
    return keras.backend.backend() == "torch"


def remat(layer, seeds, inputs, **flags):
    """`layer(**inputs, **flags)`, keeping only its inputs for the backward pass.

    `keras.remat` alone is not enough. A random seed drawn inside would leave the recomputed trace on JAX, and
    TensorFlow differentiates by explicit arguments only. So weights and seed state go in as arguments, and the seed
    state is moved on outside.

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
    variables = [v for v in layer.variables if v is not seeds.state]
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

    return keras.remat(run)(state, *tensors, *(v.value for v in variables))
