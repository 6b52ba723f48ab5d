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
    if "TF_CONFIG" not in os.environ:
        return
    config = json.loads(os.environ["TF_CONFIG"])
    hosts = [worker.rpartition(":")[0] for worker in config["cluster"]["worker"]]
    mine, gpus = config["task"]["index"], tf.config.list_physical_devices("GPU")
    if gpus:  # the processes of a host take one each
        tf.config.set_visible_devices(gpus[hosts[:mine].count(hosts[mine]) % len(gpus)], "GPU")
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
    return summed([tf.constant(rows)])[0].numpy()


@tf.function(autograph=False)
def summed(tensors):
    """Sums of a list of tensors over the processes."""
    return _strategy.run(_all_reduce, args=(tensors,))


def _all_reduce(tensors):
    tensors = [tf.identity(x) for x in tensors]  # on this process's device, without which TensorFlow finds no place
    options = tf.distribute.experimental.CommunicationOptions(bytes_per_pack=25_000_000)
    return tf.distribute.get_replica_context().all_reduce("SUM", tensors, options)


def whole(tensor):
    return keras.ops.convert_to_numpy(tf.convert_to_tensor(tensor))  # of several copies on devices, the first


def spans(tensor):
    return False
