"""The processes of a job on JAX: `jax.distributed`, whose coordinator is the first process."""

import os

import jax
import numpy as np
from jax.experimental import multihost_utils

HEARTBEAT = 30  # seconds of silence after which a process counts as dead, and the others stop
LEAVING = 30  # seconds that a process which is done waits for the others


def start(coordinator, num_processes, process_id):
    """Joins; JAX knows TPU pods, SLURM and Open MPI by itself."""
    if coordinator is None and os.environ.get("SLURM_NTASKS") == "1":
        return  # JAX would let the one task see one GPU alone
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id, heartbeat_timeout_seconds=HEARTBEAT,
                                   shutdown_timeout_seconds=LEAVING)  # fmt: skip
    except ValueError as error:
        if coordinator is not None or "coordinator_address" not in str(error):
            raise  # else there is no cluster around


def index():
    return jax.process_index()


def count():
    return jax.process_count()


def barrier(name):
    multihost_utils.sync_global_devices(name)


def gathered(values):
    """Float64 (n,) of each process as (processes, n): as bits, for devices may know no float64."""
    return np.asarray(multihost_utils.process_allgather(values.view("uint32"))).view("float64")


def whole(tensor):
    return np.asarray(multihost_utils.process_allgather(tensor, tiled=True) if spans(tensor) else tensor)


def spans(tensor):
    return not (tensor.is_fully_addressable or tensor.is_fully_replicated)
