"""FSDP2 for Keras on PyTorch: weights, gradients and slots split over processes, a unit a block and one for the rest.

`fully_shard` exchanges the parameters of modules, which Keras's variables do not look at, and so would have no effect.
Here each variable is pointed at what its module holds: whole weights while a unit runs, its own share otherwise. It
knows PyTorch's modules and Keras's variables, and no arithmetic.
"""

import contextlib
import functools

import keras
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor


class Shards:
    """A task whose weights are split over the `data` axis of a mesh; made once, before its first step.

    Args:
        task: a model that was just built.
        sizes: of the mesh's axes; weights are copied along `replica`.
    """

    def __init__(self, task, sizes):
        self.task, self.steps = task, False
        names = [name for name in ("replica", "data") if name == "data" or sizes[name] > 1]
        sizes = tuple(sizes[name] for name in names)
        mesh = init_device_mesh(task.variables[0].value.device.type, sizes, mesh_dim_names=tuple(names))
        stacks = [stack for stack in (task.backbone.encoder, task.backbone.decoder) if stack is not None]
        for stack in stacks:
            for block in stack.blocks:
                stack.add_module(block.name, block)  # PyTorch does not see layers in a list
        holders, left = _holders(task), {id(v): v for v in task.variables if _is_weight(v)}
        others = {v.value for v in task.variables if id(v) not in left}
        self.units = []
        for module in (*(block for stack in stacks for block in stack.blocks), task):
            own = [left.pop(id(v)) for v in module.variables if id(v) in left]
            self.units.append(_Unit(module, mesh, others, [(v, holders[id(v)]) for v in own]))
        self.shares = [(v, v.value) for unit in self.units for v, _ in unit.held]
        for v, share in self.shares:  # a block that is computed anew in the backward pass leaves its variables whole
            share.register_post_accumulate_grad_hook(functools.partial(setattr, v, "_value"))
        task.register_forward_hook(lambda *_: None if self.steps else self.settle())
        task.nothing = lambda: None
        register_fsdp_forward_method(task, "nothing")
        task.nothing()  # makes the task PyTorch's root, whichever unit runs first
        self.settle()

    def begin(self, overlaps):
        """A step begins: after the forward pass the task's own weights stay whole, for the loss reads them."""
        self.steps = True
        return self.averaged

    def end(self):
        """The step is over."""
        self.steps = False
        self.settle()

    def averaged(self, grads, variables):
        """The gradients, which PyTorch has averaged."""
        loose = [v.path for v, g in zip(variables, grads) if g is not None and not isinstance(g, DTensor)]
        if loose:
            raise ValueError(f"{loose[0]} was added to a model after shard='fsdp' had split it: leave shard out.")
        return grads

    def settle(self):
        """Points variables at their shares, where optimizer and files look, after a loss or whatever read them whole.

        Keras has forgotten the gradients of what the task's modules hold, which is not the shares at that time.
        """
        for v, share in self.shares:
            v._value = share
        if self.steps and torch.is_grad_enabled():
            for _, share in self.shares:
                share.grad = None
        else:
            self.task.reshard()

    @contextlib.contextmanager
    def whole(self):
        """Within it every process holds all weights."""
        for unit in self.units:
            unit.module.set_reshard_after_forward(False, recurse=False)
            unit.module.unshard()
            unit.point()
        try:
            yield
        finally:
            for unit in self.units:
                unit.module.set_reshard_after_forward(unit.module is not self.task, recurse=False)
                unit.module.reshard()
            self.settle()


class _Unit:
    """A module whose weights are gathered together, and (variable, dictionary of parameters that holds it) pairs."""

    def __init__(self, module, mesh, others, held):
        self.module, self.held = module, held
        name = type(module).__name__
        fully_shard(module, mesh=mesh, ignored_params=others)
        type(module).__name__ = name  # of PyTorch's class for it, which messages and presets name
        self.point()
        module.register_forward_pre_hook(self.point)
        module.register_forward_hook(self.point)

    def point(self, *_):
        """Points the variables at what the module holds now."""
        for v, parameters in self.held:
            v._value = parameters[v.path]


def _is_weight(variable):
    return len(variable.shape) > 0 and keras.backend.is_float_dtype(variable.dtype)


def _holders(task):
    """id of a variable -> the dictionary of parameters of the layer that owns it; outer layers' lose it.

    Weights become contiguous, as FSDP2 wants them: those of a preset are views of the file, turned.
    """
    holders = {}
    for layer in [m for m in task.modules() if isinstance(m, keras.layers.Layer)]:
        inner = {id(v) for m in layer.children() if isinstance(m, keras.layers.Layer) for v in m.variables}
        own = [v for v in layer.variables if id(v) not in inner]
        for v in own:
            v.value.data = v.value.data.contiguous()
        layer._torch_params = torch.nn.ParameterDict({v.path: v.value for v in own})
        holders |= {id(v): layer._torch_params for v in own}
    return holders


def split_slots(optimizer):
    """Makes an optimizer, not built yet, split each slot as its weight is as soon as it is made."""
    make = optimizer.add_variable_from_reference

    def made(reference_variable, *args, **kwargs):
        slot, weight = make(reference_variable, *args, **kwargs), reference_variable.value
        if isinstance(weight, DTensor) and not isinstance(slot.value, DTensor) and slot.shape == weight.shape:
            split = distribute_tensor(slot.value.data, weight.device_mesh, weight.placements, src_data_rank=None)
            slot._value = torch.nn.Parameter(split, requires_grad=False)
        return slot

    optimizer.add_variable_from_reference = made
