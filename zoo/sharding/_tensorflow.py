"""Meshes on TensorFlow: processes with a device each, or one with several; weights are whole on each.

The engine is `zoo.processes`, or a `MirroredStrategy`. It knows gradients and Keras's variables, and no layer.
"""

import functools
import math

import keras
import tensorflow as tf

from zoo import backend, processes
from zoo.processes import _tensorflow as collectives
from zoo.sharding.rules import Rules


def devices():
    """Number of devices: one a process, or all of this one."""
    return processes.count() if processes.count() > 1 else len(_local_devices())


def _local_devices():
    return tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")


def Mesh(sizes, shard):
    """A mesh whose axes `replica` and `data` count processes, or the devices of one; made by `scope`."""
    count = math.prod(sizes.values())
    if sizes["model"] > 1 or shard == "fsdp":
        what = "shard='fsdp' needs KERAS_BACKEND=jax or torch"
        what = what if sizes["model"] == 1 else f"model:{sizes['model']} needs KERAS_BACKEND=jax"
        raise ValueError(
            f"{what}, for weights are not split on TensorFlow: use data:{count}, without shard, if the model fits "
            "on one device."
        )
    return (Replicas if count > processes.count() else Processes)(sizes, shard)


class Processes(Rules):
    """A mesh of processes, which average what they find."""

    def __init__(self, sizes, shard):
        super().__init__(sizes, shard)
        self.pieces = self.num_devices
        self.data_slice = processes.index(), self.pieces

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


@functools.cache
def _mirrored(count):
    """One strategy for all meshes of so many devices: a second would number its sums as the first did."""
    return tf.distribute.MirroredStrategy([device.name for device in _local_devices()[:count]])


class Replicas(Rules):
    """A mesh of this process's devices, replicas of a `MirroredStrategy`, which Keras's loop deals each batch out to.

    They are traced in turn, in threads that wait for each other wherever something is summed. Elsewhere there is one
    model, on the first device. Keras adds up losses and gradients of replicas, so what each has is a share.
    """

    def __init__(self, sizes, shard):
        super().__init__(sizes, shard)
        self.pieces = self.num_devices
        self._strategy = _mirrored(self.pieces)

    def begin(self):
        """Variables have a copy on each device from here on."""
        self._scope = self._strategy.scope()
        self._scope.__enter__()

    def end(self):
        """As it was before `begin`."""
        self._scope.__exit__(None, None, None)

    def average(self, tensor):
        """The mean of a tensor over the replicas; itself outside a step."""
        return self._reduced("MEAN", [tensor])[0]

    def summed(self, tensors):
        """Sums of tensors over the replicas; themselves outside a step, where variables are read as sums."""
        return self._reduced("SUM", tensors)

    def _reduced(self, operation, tensors):
        replica, tensors = tf.distribute.get_replica_context(), [tf.convert_to_tensor(x) for x in tensors]
        return tensors if replica is None else replica.all_reduce(operation, tensors)

    def spread(self, task):
        """Keras's loop shall not look at a first batch, which a generator gives but once: everything is built."""
        task._distribute_strategy = None  # so it asks for the one in force

    def on_each(self, fn):
        """Calls a function of the replica's number in each."""
        run = tf.function(self._strategy.run, autograph=False)
        run(lambda: fn(tf.distribute.get_replica_context().replica_id_in_sync_group))

    def share(self, loss):
        """What a loss over an average piece's labels counts in the sum over the replicas."""
        return loss / self.pieces

    def settle(self, task, loss):
        """The same for all replicas, so that Keras's mean by rows is right when they have not equally many."""
        if task._per_slice is not None:  # in a loop, where replicas cannot wait for each other
            return loss
        return loss + tf.stop_gradient(self.average(loss) - loss)

    def begin_step(self, task):
        """A step of a task begins; returns the function that sums its gradients."""
        return self._added

    def _added(self, grads, variables):
        """The sums on the first replica, and zeros on others: Keras adds up what an optimizer clipped on each."""
        sums = iter(self.summed([g for g in grads if g is not None]))
        number = tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group)
        sums = sums if number == 0 else map(tf.zeros_like, sums)
        return [g if g is None else next(sums) for g in grads]
