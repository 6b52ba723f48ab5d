"""Adapters on a model: put on its layers, counted, switched, merged.

Several may hang on a model under different names; at most one is in use. It knows no files, and not what they compute.
"""

import contextlib
import math
import re

import keras
from keras import ops

from zoo.loading import weights
from zoo.nn.layers import Dense
from zoo.nn.variants.dense import Adaptable
from zoo.tasks.downstream import Downstream

PREFIX, TOKENS = "adapter_", "token/embeddings"
_NAME = re.compile(r"\w+")


def places(model):
    """Name of a matrix -> its layer, for all that can have adapters: dense layers, and tables such as the tokens'."""
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, Adaptable)]
    named = ((layer, "kernel" if isinstance(layer, Dense) else "embeddings") for layer in layers)
    return {f"{layer.path.split('/', 1)[1]}/{matrix}": layer for layer, matrix in named}


def kernels(model):
    """Name of a kernel -> its dense layer."""
    return {name: layer for name, layer in places(model).items() if isinstance(layer, Dense)}


def chosen(model, pattern):
    """Those whose name the pattern is found in.

    Raises:
        ValueError: there are none.
    """
    held = kernels(model)
    found = {name: layer for name, layer in held.items() if re.search(pattern, name)}
    if not found:
        kinds = sorted({re.sub(r"block_\d+", "block_N", name) for name in held})
        raise ValueError(f"{pattern!r} matches no kernel of a dense layer; there are {', '.join(kinds)}.")
    return found


def put(model, name, wanted, make):
    """Adds an adapter to layers and puts it in use.

    Args:
        model: the model that has the layers.
        name: of the adapter.
        wanted: names of matrices.
        make: function of (name of a matrix, its two sizes, name=) to an `Adapter`.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"An adapter's name has letters, digits and _ alone, got {name!r}.")
    if name in names(model):
        raise ValueError(f"The model has an adapter {name!r} already: choose another name.")
    layers = places(model)
    for place in wanted:
        layer = layers[place]
        matrix = layer.kernel if isinstance(layer, Dense) else layer.embeddings
        adapter = make(place, *matrix.shape, name=PREFIX + name)
        with contextlib.ExitStack() as scopes:
            for part in layer.path.split("/"):
                scopes.enter_context(keras.name_scope(part))
            adapter.build()
        with _unlocked(layer):
            setattr(layer, adapter.name, adapter)
        layer.adapters[name] = adapter
    use(model, name)


@contextlib.contextmanager
def _unlocked(layer):
    """Lets a built layer take something on, as Keras does in its `enable_lora`."""
    layer._tracker.unlock()
    try:
        yield
    finally:
        layer._tracker.lock()


def names(model):
    """The names of a model's adapters."""
    return sorted({name for layer in places(model).values() for name in layer.adapters})


def held(model, name):
    """Name of a matrix -> its adapter of this name.

    Raises:
        ValueError: there is none.
    """
    found = {place: layer.adapters[name] for place, layer in places(model).items() if name in layer.adapters}
    if not found:
        raise ValueError(f"The model has no adapter {name!r}; it has {', '.join(names(model)) or 'none'}.")
    return found


def in_use(model):
    """The name of the adapter in use, or None."""
    return next((layer.used for layer in places(model).values() if layer.used is not None), None)


def use(model, name):
    """Puts one of a model's adapters in use, or with None none of them: the model is then as it was without.

    Heads that were trained beside an adapter stay as they are.
    """
    if name is not None:
        held(model, name)
    for layer in places(model).values():
        layer.used = name if name in layer.adapters else None
        for key, adapter in layer.adapters.items():
            for v in adapter.variables:
                v.trainable = key == name
    forget(model)


def beside(model, train=None):
    """Name -> weight that is trained beside an adapter: what `train` matches, or by default the head of a task that is
    no language model, which a checkpoint of another task lacks.

    Raises:
        ValueError: a pattern that matches nothing.
    """
    pattern = train or ("^head/" if isinstance(model, Downstream) else "$^")
    held = {name: v for name, v in weights(model).items() if "/" + PREFIX not in name}
    found = {name: v for name, v in held.items() if re.search(pattern, name)}
    if train and not found:
        raise ValueError(f"train={train!r} matches no weight, such as {next(iter(held))}.")
    return found


def train_only(model, name, train=None):
    """Freezes all weights but those of an adapter, and those `beside` it."""
    own = {id(v) for adapter in held(model, name).values() for v in adapter.variables}
    freeze_but(model, own | {id(v) for v in beside(model, train).values()})


def freeze_but(model, kept):
    """Freezes the weights whose identity is not among `kept`, until adapters are removed or merged."""
    frozen = model.__dict__.setdefault("_frozen", {})
    for v in model.trainable_variables:
        if id(v) not in kept:
            frozen[v.path] = v
            v.trainable = False
    forget(model)


def merge(model):
    """Works the adapter in use into the weights, takes all adapters away and lets all weights train again.

    Raises:
        ValueError: no adapter in use, one of a kind that is no change of weights, or quantised weights.
    """
    if in_use(model) is None:
        raise ValueError("The model uses no adapter: there is nothing to merge.")
    layers = {name: layer for name, layer in places(model).items() if layer.used is not None}
    if quantised := [name for name, layer in layers.items() if layer.quantization_mode]:
        raise ValueError(f"{quantised[0]} is quantised: merging would round the adapter away. Load plain weights.")
    for layer in layers.values():
        kernel, bias = layer.adapter.merged(layer)
        layer.kernel.assign(ops.cast(kernel, layer.kernel.dtype))
        if bias is not None:
            layer.bias.assign(ops.cast(bias, layer.bias.dtype))
    remove(model)


def remove(model):
    """Takes all adapters away, without merging, and lets all weights train again."""
    for layer in places(model).values():
        for adapter in layer.adapters.values():
            with _unlocked(layer):
                delattr(layer, adapter.name)
                layer._tracker.untrack(adapter)
        layer.adapters.clear()
        layer.used = None
    for v in model.__dict__.pop("_frozen", {}).values():
        v.trainable = True
    forget(model)


def trained(model):
    """A sentence: how many weights are trained, and of how many.

    >>> from zoo import GPTBackbone, adapters
    >>> adapters.trained(GPTBackbone(vocabulary_size=9, num_layers=1, num_heads=1, hidden_dim=4, intermediate_dim=8,
    ...                              max_sequence_length=8))
    'trained: 248 of 248 weights (100.00 %)'
    """
    count, total = (sum(math.prod(v.shape) for v in found)
                    for found in (model.trainable_variables, weights(model).values()))  # fmt: skip
    return f"trained: {count:,} of {total:,} weights ({count / total:.2%})".replace("%", " %")


def forget(model):
    """Drops compiled programs, which hold the variables that there were."""
    for attribute in ("train_function", "test_function", "predict_function"):
        if hasattr(model, attribute):
            setattr(model, attribute, None)
    for attribute in ("_decode_programs", "_embed_program"):
        model.__dict__.pop(attribute, None)
