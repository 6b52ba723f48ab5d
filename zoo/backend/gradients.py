"""Backward passes that Keras has not: known gradients, and activations computed again instead of kept."""

import functools

import keras
from keras import ops, tree

from zoo.backend.devices import jax_platform


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


def remat(layer, seeds, x, inputs, **flags):
    """`layer(x, **inputs, **flags)`, keeping only its inputs for the backward pass.

    `keras.remat` alone is not enough. A random seed drawn inside would leave the recomputed trace on JAX, and
    TensorFlow differentiates by explicit arguments only. So weights and seed state go in as arguments, and the seed
    state is moved on outside. PyTorch's weights stay outside, for they may be there only while the layer runs.

    Args:
        layer: a built layer.
        seeds: the `SeedGenerator` that the layer draws from, at most 8 times a call.
        x: a tensor.
        inputs: dictionary of tensors, None, or nested tuples of them.
        flags: keyword arguments that are not tensors, `training` among them.

    Returns:
        What the layer returns.
    """
    run, state, tensors = _function(layer, seeds, inputs, flags)
    weights = [] if keras.backend.backend() == "torch" else _weights(layer, seeds)
    again = _jax_remat if keras.backend.backend() == "jax" else keras.remat
    return again(run)(x, state, *tensors, *(v.value for v in weights))


def scanned(layers, x, inputs, take, lean, recompute, **flags):
    """`x` through layers that differ in their weights alone, by a loop over their stacked weights, on JAX.

    The program holds one layer instead of all, and takes as much less time and memory to compile. The stacked weights
    are a copy.

    Args:
        layers: built layers, each with `seeds`, from a tensor to one of the same shape.
        x, inputs, flags: as in `remat`.
        take: what gives the values of a list of variables for their use, from the values that are kept.
        lean: what makes a function's backward pass take them anew.
        recompute: whether the backward pass shall keep only what goes into each layer.
    """
    import jax

    functions = [_function(layer, layer.seeds, inputs, flags) for layer in layers]
    run, _, tensors = functions[0]
    weights = [_weights(layer, layer.seeds) for layer in layers]
    states = ops.stack([state for _, state, _ in functions])
    values = [ops.stack([v.value for v in alike]) for alike in zip(*weights)]

    def layer(x, state, tensors, *values):
        return run(x, state, *tensors, *take(weights[0], values))

    layer = _jax_remat(layer) if recompute else lean(layer)
    return jax.lax.scan(lambda x, own: (layer(x, own[0], tensors, *own[1]), None), x, (states, values))[0]


def _weights(layer, seeds):
    return [v for v in layer.variables if v is not seeds.state]


def _function(layer, seeds, inputs, flags):
    """A layer as a function of (x, seed state, tensors, values of its weights), the state, and the tensors of `inputs`.

    Without values it uses the weights that the layer has.
    """
    leaves = tree.flatten(inputs)
    # TensorFlow cannot pass booleans through a recomputed function.
    booleans = [leaf is not None and keras.backend.standardize_dtype(leaf.dtype) == "bool" for leaf in leaves]
    tensors = [ops.cast(t, "int32") if b else t for t, b in zip(leaves, booleans) if t is not None]
    state = seeds.state.value * 1
    if flags["training"]:
        seeds.state.assign(seeds.state + ops.convert_to_tensor([0, 8], dtype=seeds.state.dtype))

    def run(x, state, *values):
        given = iter(values[: len(tensors)])
        filled = [leaf if leaf is None else next(given) for leaf in leaves]
        filled = [ops.cast(t, "bool") if b else t for t, b in zip(filled, booleans)]
        restored = tree.pack_sequence_as(inputs, filled)
        mapping = [(seeds.state, state), *zip(_weights(layer, seeds), values[len(tensors) :])]
        with keras.StatelessScope(mapping):
            return layer(x, **restored, **flags)

    return run, state, tensors
