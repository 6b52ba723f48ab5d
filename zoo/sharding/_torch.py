"""Meshes on PyTorch: a process a device, gradients averaged while the backward pass goes on, or FSDP2.

The engine is `torch.distributed`; `zoo.processes` has joined it. It knows parameters and Keras's loop, and no layer.
"""

import contextlib

import torch
from torch import distributed

from zoo import backend, processes
from zoo.sharding._torch_fsdp import Shards, split_slots
from zoo.sharding.rules import Rules

BUCKET = 25_000_000  # bytes of gradients that are sent together


def devices():
    """Number of devices, one a process."""
    return processes.count()


class Mesh(Rules):
    """A mesh whose axes `replica` and `data` count processes; made by `scope`."""

    def __init__(self, sizes, shard):
        super().__init__(sizes, shard)
        if sizes["model"] > 1:
            raise ValueError(
                f"model:{sizes['model']} needs KERAS_BACKEND=jax, for weights are not split over model on PyTorch: "
                f"use data:{self.num_devices} with shard='fsdp', which splits them over data."
            )
        self.pieces = self.num_devices
        self.data_slice = processes.index(), self.pieces

    def average(self, tensor):
        """The mean of a tensor over the processes."""
        return self.summed([tensor])[0] / self.pieces

    def summed(self, tensors):
        """Sums of tensors over the processes, in one message; what Keras only tries out is left alone."""
        if any(x.is_meta for x in tensors):
            return tensors
        flat = torch.cat([x.detach().reshape(-1) for x in tensors])
        distributed.all_reduce(flat)
        return [part.view(x.shape) for part, x in zip(flat.split([x.numel() for x in tensors]), tensors)]

    def spread(self, task):
        """Lays a task that was just built out over the processes: the first one's weights, whole or split."""
        task.__dict__["ddp_model"] = task  # else Keras 3.16 wraps it in DDP, and gradients are averaged twice
        for v in () if backend.is_uninitialised() else task.variables:
            distributed.broadcast(v.value.data, 0)
        split = self.shard == "fsdp"
        task.__dict__["pieces"] = Shards(task, self.sizes) if split else Gradients(self.pieces)

    def prepared(self, optimizer):
        """An optimizer that is not built yet will split its slots as weights are split."""
        if self.shard == "fsdp":
            split_slots(optimizer)

    def begin_step(self, task):
        """A step of a task begins; returns the function that averages its gradients."""
        return task.pieces.begin(overlaps=task.slices == 1)

    def end_step(self, task):
        """The step is over."""
        task.pieces.end()

    def settle(self, task, loss):
        """A loss was computed: weights that were gathered for it are not needed before the backward pass."""
        task.pieces.settle()
        return loss

    def complete(self, task):
        """A context in which every process holds all weights."""
        return task.pieces.whole()


class Gradients:
    """Means of gradients over processes, a bucket at a time, each sent as soon as the backward pass has filled it."""

    def __init__(self, count):
        self.count, self.parameters, self.buckets, self.hooks, self.overlaps = count, [], [], [], False

    def begin(self, overlaps):
        """A step begins; without `overlaps` nothing is sent before all gradients are there."""
        self.overlaps, self.sent, self.missing = overlaps, [], [len(bucket) for bucket in self.buckets]
        return self.averaged

    def end(self):
        """The step is over: nobody waits for gradients."""
        self.overlaps = False

    def settle(self):
        """Nothing was gathered."""

    def whole(self):
        """A context in which every process holds all weights, as it always does."""
        return contextlib.nullcontext()

    def averaged(self, grads, variables):
        """The means of a step's gradients; None stays None, and must be None everywhere."""
        given = {v.value: g for v, g in zip(variables, grads) if g is not None}
        if [id(p) for p in given] != [id(p) for p in self.parameters]:
            self._watch(list(given))
        while len(self.sent) < len(self.buckets):
            self._send([given[p] for p in self.buckets[len(self.sent)]])
        means = {}
        for bucket, (flat, work) in zip(self.buckets, self.sent):
            work.wait()
            parts = flat.div_(self.count).split([p.numel() for p in bucket])
            means |= {p: part.view(p.shape) for p, part in zip(bucket, parts)}
        return [g if g is None else means[v.value] for v, g in zip(variables, grads)]

    def _watch(self, parameters):
        """Makes the buckets, from the last weight, whose gradient comes first; what was sent before is sent again."""
        for hook in self.hooks:
            hook.remove()
        for _, work in self.sent:
            work.wait()
        self.parameters, self.buckets, self.sent, room = parameters, [], [], 0
        for p in reversed(parameters):
            if room < p.nbytes:
                self.buckets, room = [*self.buckets, []], BUCKET
            self.buckets[-1].append(p)
            room -= p.nbytes
        self._bucket_of = {p: i for i, bucket in enumerate(self.buckets) for p in bucket}
        self.hooks = [p.register_post_accumulate_grad_hook(self._arrived) for p in parameters]

    def _arrived(self, parameter):
        """Counts a gradient, and sends what is complete, in the same order everywhere."""
        if not self.overlaps:
            return
        self.missing[self._bucket_of[parameter]] -= 1
        while len(self.sent) < len(self.buckets) and not self.missing[len(self.sent)]:
            self._send([p.grad for p in self.buckets[len(self.sent)]])

    def _send(self, grads):
        flat = torch.cat([g.reshape(-1) for g in grads])
        self.sent.append((flat, distributed.all_reduce(flat, async_op=True)))
