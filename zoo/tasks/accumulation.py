"""One update from a batch that does not fit: its rows pass in slices, whose gradients are averaged.

Keras's own train step runs on each slice with an optimizer that only adds gradients up, so the loss, the metrics and
the random numbers stay Keras's. It knows no loss: the caller sees to it that the mean of the slices' is the batch's.
"""

import keras
from keras import ops, tree

from zoo import backend


class Sums:
    """Stands in for an optimizer: adds gradients to its sums and leaves the weights alone."""

    variables = ()

    def __init__(self, sums=None):
        self.sums = sums

    def scale_loss(self, loss):
        """The loss; one optimizer's scale is not known here."""
        return loss

    def apply(self, grads, variables=None):
        """Adds the gradients; None stays None."""
        grads = [g if g is None else ops.convert_to_tensor(g) for g in grads]
        self.sums = grads if self.sums is None else [_add(s, g) for s, g in zip(self.sums, grads)]

    def apply_gradients(self, pairs):
        """As `apply`, from pairs of gradient and variable."""
        self.apply([g for g, _ in pairs])

    def stateless_apply(self, sums, grads, variables):
        """As `apply`, on JAX: the sums are the optimizer's state."""
        return variables, [_add(s, g) for s, g in zip(sums, grads)]


def _add(total, gradient):
    return total if gradient is None else gradient if total is None else total + gradient


def split(data, count):
    """(b, …) to (count, b / count, …) for each tensor of a batch; a ValueError where that leaves a rest.

    Row r goes to slice r % count, so that rows that are spread over devices stay where they are.
    """

    def cut(x):
        rows = x.shape[0]
        if rows is not None and rows % count:
            raise ValueError(f"accumulate={count} does not divide a batch of {rows} rows: choose another batch_size.")
        return ops.swapaxes(ops.reshape(x, (-1 if rows is None else rows // count, count, *x.shape[1:])), 0, 1)

    return tree.map_structure(lambda x: None if x is None else cut(x), data)


def train_step(model, step, count, *args):
    """Keras's `train_step` of a model in `count` slices.

    Args:
        model: a compiled model.
        step: its `train_step` for a slice; its optimizer is exchanged meanwhile.
        count: number of slices.
        args: what Keras gives: (data,), or on JAX (state, data).

    Returns:
        What Keras's step returns on JAX; None elsewhere, where the model's metrics have the logs.
    """
    optimizer, pieces = model.optimizer, split(args[-1], count)
    run = {"jax": _jax, "torch": _torch, "tensorflow": _tensorflow}[keras.backend.backend()]
    try:
        return run(model, step, count, optimizer, *args[:-1], pieces)
    finally:
        model.optimizer = optimizer


def _jax(model, step, count, optimizer, state, pieces):
    trainable, other, slots, metrics = state
    model.optimizer = Sums()
    leaves = tree.flatten(pieces)
    present = [x for x in leaves if x is not None]

    def body(carry, values):
        given = iter(values)
        data = tree.pack_sequence_as(pieces, [x if x is None else next(given) for x in leaves])
        _, (_, *carry) = step((trainable, *carry), data)
        return [list(values) for values in carry], ()

    start = [list(other), [ops.zeros(v.shape, v.dtype) for v in trainable], list(metrics)]
    (other, sums, metrics), _ = backend.scan(body, start, present, count)
    model.optimizer = optimizer
    trainable, slots = optimizer.stateless_apply(slots, [s / count for s in sums], trainable)
    with keras.StatelessScope(list(zip(model.metrics_variables, metrics))):
        logs = model.get_metrics_result()
    return logs, (trainable, other, slots, metrics)


def _torch(model, step, count, optimizer, pieces):
    model.optimizer = sums = Sums()
    for i in range(count):
        step(_piece(pieces, i))
    with backend.no_gradients():
        means = [s if s is None else s / count for s in sums.sums]
        optimizer.apply(means, model.trainable_weights)


def _tensorflow(model, step, count, optimizer, pieces):
    weights = model.trainable_weights

    def body(carry, index):
        model.optimizer = sums = Sums(list(carry))
        step(_piece(pieces, index[0]))
        return sums.sums, index[0]

    sums, _ = backend.scan(body, [ops.zeros(v.shape, v.dtype) for v in weights], [ops.arange(count)], count)
    model.optimizer = optimizer  # replicas of one process share it, and go on in turn from here
    optimizer.apply([s / count for s in sums], weights)


def _piece(pieces, i):
    return tree.map_structure(lambda x: None if x is None else x[i], pieces)
