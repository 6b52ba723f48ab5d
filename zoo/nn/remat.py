"""Rematerialisation of one layer: its activations are computed again in the backward pass (Chen et al. 2016)."""

import keras
from keras import ops, tree


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
