"""The processes of a job on PyTorch: `torch.distributed`, as torchrun starts it; gloo on CPUs, NCCL on GPUs."""

import atexit
import datetime
import os

import keras
import numpy as np
import torch
from torch import distributed
from torch.distributed.tensor import DTensor

SILENCE = datetime.timedelta(minutes=5)  # in a step, if no connection breaks before, until a process counts as dead
PATIENCE = datetime.timedelta(days=1)  # at a barrier, where one may prepare data; a connection that breaks ends it

_host = None  # the group for what lies in the host's memory


def start(coordinator, num_processes, process_id):
    """Joins; torchrun tells by RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT."""
    global _host
    if coordinator is None and "RANK" not in os.environ:
        return
    given = {}
    if coordinator is not None:
        given = {"init_method": f"tcp://{coordinator}", "world_size": num_processes, "rank": process_id}
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", (process_id or 0) % gpus)))
    distributed.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=SILENCE, **given)
    _host = distributed.new_group(backend="gloo", timeout=PATIENCE)
    atexit.register(distributed.destroy_process_group)


def index():
    return distributed.get_rank() if distributed.is_initialized() else 0


def count():
    return distributed.get_world_size() if distributed.is_initialized() else 1


def barrier(name):
    distributed.barrier(_host)


def gathered(values):
    """Float64 (n,) of each process as (processes, n)."""
    mine = torch.from_numpy(values)
    each = [torch.empty_like(mine) for _ in range(count())]
    distributed.all_gather(each, mine, group=_host)
    return np.stack([values.numpy() for values in each])


def whole(tensor):
    return keras.ops.convert_to_numpy(tensor.full_tensor() if spans(tensor) else tensor)


def spans(tensor):
    return isinstance(tensor, DTensor)
