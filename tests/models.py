"""Small models and the two ways to run one, for tests: forward as one compiled program, and gradients by name.

And what of a test's parameters backends have no time for that compile.
"""

import keras
import numpy as np
import pytest
from keras import ops

from zoo import backend
from zoo.loading import weights

TINY = {"vocabulary_size": 96, "num_layers": 1, "num_heads": 4, "hidden_dim": 32, "intermediate_dim": 48,
        "max_sequence_length": 32}  # fmt: skip


def parameters(values, compiled):
    """All values as parameters of a test, of which backends that compile have time for `compiled` alone."""
    return [value if value in compiled else pytest.param(value, marks=pytest.mark.uncompiled) for value in values]


def run(model, inputs, method=None):
    """The model's output as numpy."""
    tensors = {k: ops.convert_to_tensor(np.asarray(v)) for k, v in inputs.items()}
    return ops.convert_to_numpy(quickly(method or (lambda x: model(x)), model.variables)(tensors))


def quickly(fn, variables):
    """`fn` as it runs soonest once or a few times: compiled on JAX, operation by operation elsewhere."""
    return fn if keras.backend.backend() == "tensorflow" else backend.compiled(fn, variables)


def randomise(model, seed=0, scale=0.1):
    """Random values everywhere: no weight stays at a value that would hide a mistake."""
    rng = np.random.default_rng(seed)
    for name, v in sorted(weights(model).items()):
        base = 1.0 if name.endswith("scale") else 0.0
        v.assign(base + rng.normal(size=v.shape).astype("float32") * scale)
    return model


def total_loss(model, inputs, labels, weight, training=False):
    """The sum of weighted cross-entropies, not their mean."""
    logits = model(inputs, training=training)
    losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    return ops.sum(losses * weight)


def gradients(model, inputs, labels, weight, training=False):
    """name -> gradient of `total_loss`, as numpy."""
    found = weights(model)
    names = [name for name in found if found[name].trainable]
    variables = [found[name] for name in names]
    tensor = ops.convert_to_tensor
    inputs = {k: tensor(np.asarray(v)) for k, v in inputs.items()}
    labels, weight = tensor(np.asarray(labels)), tensor(np.asarray(weight, "float32"))
    compute = lambda: total_loss(model, inputs, labels, weight, training)  # noqa: E731
    name = keras.backend.backend()
    if name == "jax":
        import jax

        def loss(values):
            with keras.StatelessScope(list(zip(variables, values))):
                return compute()

        grads = jax.jit(jax.grad(loss))([v.value for v in variables])
    elif name == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = compute()
        grads = [tf.convert_to_tensor(g) for g in tape.gradient(value, [v.value for v in variables])]
    else:
        model.zero_grad()
        compute().backward()
        grads = [v.value.grad for v in variables]
    return {n: np.asarray(ops.convert_to_numpy(g)) for n, g in zip(names, grads)}


def relative_error(a, b):
    """Largest difference over the largest value."""
    return np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(np.asarray(b)).max()
