"""Meshes on TensorFlow: a process a device, whose gradients are averaged; weights are whole on each.

The engine is `zoo.processes`. It knows gradients and Keras's variables, and no layer.
"""

import keras
import tensorflow as tf

from zoo import backend, processes
from zoo.processes import _tensorflow as collectives
from zoo.sharding.rules import Rules


def devices():
    """Number of devices, one a process."""
    return processes.count()


class Mesh(Rules):
    """A mesh whose axes `replica` and `data` count processes; made by `scope`."""

    def __init__(self, sizes, shard):
        super().__init__(sizes, shard)
        self.pieces = self.num_devices
        self.data_slice = processes.index(), self.pieces
        if sizes["model"] > 1 or shard == "fsdp":
            what = "shard='fsdp' needs KERAS_BACKEND=jax or torch"
            what = what if sizes["model"] == 1 else f"model:{sizes['model']} needs KERAS_BACKEND=jax"
            raise ValueError(
                f"{what}, for weights are not split on TensorFlow: use data:{self.pieces}, without shard, if the "
                "model fits on one device."
            )

    def average(self, tensor):
        """The mean of a tensor over the processes."""
        return self.summed([tensor])[0] / self.pieces

    def summed(self, tensors):
        """Sums of tensors over the processes."""
        return collectives.summed(tensors)

    def spread(self, task):
        """The first process's weights for all."""
        if not backend.is_uninitialised():
            weights = [v for v in task.variables if keras.backend.is_float_dtype(v.dtype)]
            for v, value in zip(weights, self.summed([v.value * float(processes.is_first()) for v in weights])):
                v.assign(value)

    def begin_step(self, task):
        """A step of a task begins; returns the function that averages its gradients."""
        return self._averaged

    def _averaged(self, grads, variables):
        means = iter(self.summed([tf.convert_to_tensor(g) for g in grads if g is not None]))
        return [g if g is None else next(means) / self.pieces for g in grads]
