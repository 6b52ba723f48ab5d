"""The processes of a job on TensorFlow: the collectives of `tf.distribute`, whose strategy holds no variable here.

Each process keeps a model of its own, and tensors are summed over processes where they have to be. So Keras's `fit`,
which fails under a `MultiWorkerMirroredStrategy`, sees a model like any other.
"""

import json
import os

import keras
import numpy as np
import tensorflow as tf

_strategy = None


def start(coordinator, num_processes, process_id):
    """Joins; TF_CONFIG holds every process's address, or the ports after the coordinator's, on its host, are used."""
    global _strategy
    if coordinator is not None:
        host, _, port = coordinator.rpartition(":")
        workers = [f"{host}:{int(port) + i}" for i in range(num_processes)]
        task = {"type": "worker", "index": process_id}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": task})
    if "TF_CONFIG" in os.environ:
        _strategy = tf.distribute.MultiWorkerMirroredStrategy()


def index():
    return 0 if _strategy is None else _strategy.cluster_resolver.task_id


def count():
    return 1 if _strategy is None else _strategy.num_replicas_in_sync


def barrier(name):
    gathered(np.zeros(1))


def gathered(values):
    """Float64 (n,) of each process as (processes, n)."""
    rows = np.zeros((count(), len(values)))
    rows[index()] = values
    return _total(tf.constant(rows)).numpy()


def summed(tensors):
    """Sums of tensors over the processes, in one message or a few; inside a `tf.function`."""
    return _strategy.run(_all_reduce, args=(list(tensors),))


@tf.autograph.experimental.do_not_convert
def _all_reduce(tensors):
    tensors = [tf.identity(x) for x in tensors]  # on this process's device, without which TensorFlow finds no place
    return tf.distribute.get_replica_context().all_reduce("SUM", tensors)


@tf.function(autograph=False, reduce_retracing=True)
def _total(tensor):
    return summed([tensor])[0]


def whole(tensor):
    return keras.ops.convert_to_numpy(tensor)


def spans(tensor):
    return False
