"""Meshes on TensorFlow: several devices of one process, which Keras's `fit` feeds, or a process a device.

The engines are `tf.distribute.MirroredStrategy`, and `zoo.processes`. Weights are whole on every device. It knows
Keras's loop and optimizers, and no layer.
"""

import contextlib

import keras
import tensorflow as tf

from zoo import backend, processes
from zoo.processes import _tensorflow as collectives
from zoo.sharding.rules import Rules


def devices():
    """Number of devices: a process's each, or those of this one."""
    return processes.count() if processes.count() > 1 else len(_local())


def _local():
    return tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")


class Mesh(Rules):
    """A mesh whose axes `replica` and `data` count devices or processes; made by `scope`."""

    def __init__(self, sizes, shard):
        super().__init__(sizes, shard)
        self.pieces, self.apart = self.num_devices, processes.count() > 1
        self.data_slice = (processes.index(), self.pieces) if self.apart else (0, 1)
        if sizes["model"] > 1 or shard == "fsdp":
            what = "shard='fsdp' needs KERAS_BACKEND=jax or torch"
            what = what if sizes["model"] == 1 else f"model:{sizes['model']} needs KERAS_BACKEND=jax"
            raise ValueError(
                f"{what}, for weights are not split on TensorFlow: use data:{self.pieces}, without shard, if the "
                "model fits on one device."
            )
        self._strategy, self._scope = None, contextlib.ExitStack()
        if self.pieces > 1 and not self.apart:
            self._strategy = tf.distribute.MirroredStrategy([device.name for device in _local()[: self.pieces]])
            self.loss_scale = 1 / self.pieces

    def begin(self):
        """Variables are made for all devices from here on."""
        if self._strategy is not None:
            self._scope.enter_context(self._strategy.scope())

    def end(self):
        """As it was before `begin`."""
        self._scope.close()

    def average(self, tensor):
        """The mean of a tensor over the pieces."""
        if self.apart:
            return self.summed([tensor])[0] / self.pieces
        context = _context()  # None where Keras only tries a model out
        return tensor if context is None else context.all_reduce("MEAN", tensor)

    def summed(self, tensors):
        """Sums of tensors over the processes."""
        return collectives.summed(tensors)

    def spread(self, task):
        """The first process's weights for all; devices of one process have the same from the start."""
        if self.apart and not backend.is_uninitialised():
            weights = [v for v in task.variables if keras.backend.is_float_dtype(v.dtype)]
            for v, value in zip(weights, self.summed([v.value * float(processes.is_first()) for v in weights])):
                v.assign(value)

    def prepared(self, optimizer):
        """Keras sums gradients over devices only after it has clipped them. Here they have been summed before."""
        optimizer._all_reduce_sum_gradients = lambda pairs: pairs

    def begin_step(self, task):
        """The function that averages gradients, or on several devices sums them, for Keras divides losses there."""
        return self._averaged

    def _averaged(self, grads, variables):
        given = [tf.convert_to_tensor(g) for g in grads if g is not None]
        if self.apart:
            given = [g / self.pieces for g in self.summed(given)]
        elif self.pieces > 1:
            given = _context().all_reduce("SUM", given)
        given = iter(given)
        return [g if g is None else next(given) for g in grads]


def _context():
    return tf.distribute.get_replica_context()
