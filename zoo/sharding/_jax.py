"""Meshes on JAX: a Keras distribution whose layouts come from the rules, and weights gathered where they are used.

The engine is `keras.distribution`: one program over all devices of all processes, partitioned by the compiler.
"""

import keras
import numpy as np

from zoo import backend, processes
from zoo.sharding.rules import Rules
from zoo.sharding.words import DATA_AXES


def devices():
    """Number of devices, over all processes."""
    return keras.distribution.get_device_count()


class Layout(keras.distribution.TensorLayout):
    """Keras's layout, but a dimension may be split over several axes: `split` is a tuple of names for each."""

    def __init__(self, split, device_mesh):
        super().__init__((None,) * len(split), device_mesh)
        self.split = tuple(split)

    @property
    def backend_layout(self):
        """A `jax.sharding.NamedSharding`."""
        from jax.sharding import NamedSharding, PartitionSpec

        return NamedSharding(self.device_mesh.backend_mesh, PartitionSpec(*(names or None for names in self.split)))


class Mesh(Rules, keras.distribution.ModelParallel):
    """`Rules` as a Keras distribution; made by `scope`."""

    def __init__(self, sizes, shard, devices=None):
        import jax

        Rules.__init__(self, sizes, shard)
        if devices is None:
            found = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
            devices = [f"{device.platform}:{device.id}" for device in found]
        devices = devices[: self.num_devices]
        each, model = self.num_devices // processes.count(), sizes["model"]
        parts = max(1, each // model)  # of the batch, on the devices of a process
        self.data_slice = processes.index() * each // model // parts, self.num_model_replicas // parts
        device_mesh = keras.distribution.DeviceMesh(tuple(sizes.values()), tuple(sizes), devices)
        layout_map = keras.distribution.LayoutMap(device_mesh)
        keras.distribution.ModelParallel.__init__(
            self, layout_map=layout_map, batch_dim_name="data", auto_shard_dataset=False
        )

    def begin(self):
        """Keras places what it makes from here on."""
        keras.distribution.set_distribution(self)

    def end(self):
        """As it was before `begin`."""
        keras.distribution.set_distribution(None)

    def parts(self, rows):
        """See `zoo.sharding.parts`."""
        return 1 if self.whole or not rows or rows % self.num_model_replicas else self.num_model_replicas

    def get_data_layout(self, data_shape):
        """Rows over all data axes, or whole on every device where they do not divide; of this process's slice."""
        count = 1 if self.whole else self.data_slice[1]
        layout = self.rows_layout((data_shape[0] * count, *data_shape[1:]) if data_shape else ())
        if count > 1 and data_shape and not layout.split[0]:
            raise ValueError(
                f"A batch of {data_shape[0]} rows in each of {count} slices does not divide into the "
                f"{self.num_model_replicas} parts of the mesh: give each process a multiple of "
                f"{self.num_model_replicas // count} rows."
            )
        return layout

    def rows_layout(self, shape):
        """The same of a batch of all processes."""
        split = [()] * len(shape)
        if shape and shape[0] % self.num_model_replicas:
            self.note(f"{shape[0]} rows are whole on every device, for {self.num_model_replicas} parts of data "
                      "do not divide them")  # fmt: skip
        elif shape and not self.whole:
            split[0] = DATA_AXES
        return self.layout(split)

    def get_variable_layout(self, variable):
        """As the optimizer says, or by the rules."""
        split = self.split(variable.path, variable.shape) if _is_weight(variable) else [()] * len(variable.shape)
        return self.layout(split)

    def get_tensor_layout(self, path):
        """None: what flows between layers is laid out by the compiler."""
        return None

    def layout(self, split):
        """The `Layout` of a tensor on this mesh, from the names of the axes that split each dimension."""
        return Layout(split, self.device_mesh)


def placed(mesh, array):
    """An array, the same in every process, as a tensor with its rows over the data axes."""
    array = np.asarray(array)
    return backend.spread(array, mesh.rows_layout(array.shape).backend_layout)


def everywhere(mesh, tensor):
    """A tensor of a compiled program, whole in every process."""
    return keras.distribution.distribute_tensor(tensor, mesh.layout([()] * len(tensor.shape)))


def apart(mesh, tensor):
    """A tensor with its first dimension over the data axes, and the others as the compiler likes."""
    from jax.sharding import NamedSharding, PartitionSpec

    free = [PartitionSpec.UNCONSTRAINED] * (len(tensor.shape) - 1)
    layout = NamedSharding(mesh.device_mesh.backend_mesh, PartitionSpec(DATA_AXES, *free))
    return keras.distribution.distribute_tensor(tensor, layout)


def gathering(mesh, loss, groups):
    """See `zoo.sharding.gathering`; for a mesh that splits weights over data."""

    def run(*args, **kwargs):
        def inner(*values):
            full = [gathered(mesh, group, part) for group, part in zip(groups, values)]
            return loss(*full, *args[len(groups) :], **kwargs)

        # Around a loop of blocks, which keeps none itself, it would keep what goes into each of them twice.
        return (inner if mesh.scans else lean(inner))(*args[: len(groups)])

    return run


def lean(fn):
    """See `zoo.sharding.lean`; for a mesh that splits weights over data."""
    import jax

    return jax.checkpoint(fn, policy=_saveable)


def gathered(mesh, variables, values, late=False):
    """See `zoo.sharding.gathered`, or `gathered_late`; for a mesh that splits weights over data."""
    import jax

    def gather(variable, value):
        split = mesh.split(variable.path, variable.shape) if _is_weight(variable) else []
        ruled = mesh.ruled(variable.path, variable.shape) if split else []
        if split == ruled or mesh.in_loop(variable.path) != late:
            return value
        kept, whole, lay = mesh.layout(split), mesh.layout(ruled), keras.distribution.distribute_tensor
        fetch = jax.custom_vjp(lambda x: lay(x, whole))
        fetch.defvjp(lambda x: (lay(x, whole), None), lambda _, gradient: (lay(gradient, kept),))
        return fetch(value)

    return [gather(*pair) for pair in zip(variables, values, strict=True)]


def _saveable(primitive, *_, **__):
    """Whether the backward pass may keep a result: not a weight that was gathered, cast or turned."""
    return primitive.name not in ("sharding_constraint", "convert_element_type", "transpose")


def _is_weight(variable):
    return len(variable.shape) > 0 and keras.backend.is_float_dtype(variable.dtype)
