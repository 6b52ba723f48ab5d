"""Models over many devices: a mesh in words, one rule for every weight of every family, an error for what cannot be.

A weight is split by what its path ends with, so no family, head or optimizer needs a rule of its own; the slots of an
optimizer lie as their weights do. The engine is `keras.distribution` on JAX. It knows names and sizes, and no layer.
"""

import contextlib
import math
import re
import sys

import keras

DATA_AXES = ("replica", "data")  # the batch is split over all of these; weights, with "fsdp", over data alone
AXES = (*DATA_AXES, "model")
SHARDS = ("none", "fsdp")

# What a path ends with: the axis that is split over model, and the fields of `Config` that must divide with it.
_RULES = (
    (r"query/(kernel|lora_kernel_b)", 1, "num_heads"),
    (r"query/bias", 0, "num_heads"),
    (r"(key|value)/(kernel|lora_kernel_b)", 1, "num_key_value_heads"),
    (r"(key|value)/bias", 0, "num_key_value_heads"),
    (r"(attn|cross)/out/(kernel|lora_kernel_a)", 0, "num_heads"),
    (r"(gate|up)/(kernel|lora_kernel_b)", 1, None),
    (r"(gate|up)/bias", 0, None),
    (r"(out|down)/(kernel|lora_kernel_a)", 0, None),
    (r"token/(embeddings|lora_embeddings_a)", 0, None),
    (r"head/kernel", 1, None),
    (r"head/bias", 0, None),
)
_PATTERNS = tuple((re.compile(rf"(.*/)?{pattern}"), axis, heads) for pattern, axis, heads in _RULES)


def parse(mesh):
    """A mesh in words, "data:4,model:2", to a size for each axis, 1 for those that are not named.

    Args:
        mesh: axes of `AXES` and their sizes, whose product is the number of devices. The batch is split over `replica`
            and `data`, weights over `model`, and with shard="fsdp" over `data` too.

    Returns:
        A dictionary with `replica`, `data` and `model`.

    Raises:
        ValueError: anything else.

    >>> parse("data:4,model:2")
    {'replica': 1, 'data': 4, 'model': 2}
    """
    sizes = {}
    for part in mesh.split(","):
        name, _, size = (word.strip() for word in part.partition(":"))
        if name not in AXES:
            raise ValueError(f"mesh {mesh!r} has an axis {name!r}; axes are {', '.join(AXES)}, as in data:4,model:2.")
        if name in sizes:
            raise ValueError(f"mesh {mesh!r} names the axis {name} twice: give it one size.")
        if not size.isdecimal() or int(size) < 1:
            raise ValueError(f"mesh {mesh!r} gives the axis {name} no size: write {name}:2, say.")
        sizes[name] = int(size)
    return {name: sizes.get(name, 1) for name in AXES}


@contextlib.contextmanager
def scope(mesh, shard="none"):
    """Within it, models are built, loaded, trained and run on a mesh of devices; results are those of one device.

    Args:
        mesh: such as "data:4,model:2", see `parse`. Of more devices than it needs, the first are used.
        shard: "none", or "fsdp" to split weights and optimizer slots over `data` as well (Rajbhandari et al. 2020,
            ZeRO-3), so that each device holds its share of them alone.

    Yields:
        The `Mesh`; its `notes` say what could not be split.

    Raises:
        ValueError: a mesh that the backend or the devices cannot honour; the message names one that works.

    Example:

    ```python
    with zoo.sharding.scope("data:4,model:2", shard="fsdp"):
        lm = zoo.CausalLM.from_preset("gpt2")
        lm.fit(texts)
    ```
    """
    with make(mesh, shard).scope() as _:
        yield keras.distribution.distribution()


def make(mesh, shard="none"):
    """The `Mesh` that `scope` makes current; see there."""
    sizes = parse(mesh)
    if shard not in SHARDS:
        raise ValueError(f"shard={shard!r} is none of {', '.join(SHARDS)}.")
    _check_backend(f"mesh {mesh!r}")
    needed, held = math.prod(sizes.values()), keras.distribution.get_device_count()
    if needed > held:
        raise ValueError(f"mesh {mesh!r} needs {needed} devices, there are {held}: use {_nearest(sizes, held)!r}.")
    if shard == "fsdp" and needed == 1:
        other = f"use 'data:{held}', all devices there are" if held > 1 else "leave shard out"
        raise ValueError(f"shard='fsdp' has nothing to split over with mesh {mesh!r}, which is one device: {other}.")
    return Mesh(sizes, shard)


def _check_backend(what):
    if (name := keras.backend.backend()) != "jax":
        raise ValueError(
            f"{what} needs KERAS_BACKEND=jax: on {name} Keras would train on one device without a word. "
            "Change the backend, or leave the mesh out."
        )


def _nearest(sizes, devices):
    """The mesh of all devices whose model axis is the largest that divides both them and the one asked for."""
    model = math.gcd(sizes["model"], devices)
    named = [f"{name}:{size}" for name, size in (("data", devices // model), ("model", model)) if size > 1]
    return ",".join(named or ["data:1"])


def current():
    """The `Mesh` in force, or None."""
    mesh = keras.distribution.distribution()
    return mesh if isinstance(mesh, Mesh) else None


def planned(config):
    """A backbone's `Config` as it is, once the mesh in force is known to have something to split.

    Raises:
        ValueError: an axis that divides nothing of the model, or a distribution that the backend would ignore.
    """
    if keras.distribution.distribution() is not None:
        _check_backend("keras.distribution")
    if mesh := current():
        mesh.plan(config)
    return config


def gathering(loss, groups):
    """`loss` of lists of values, as one that takes them as they are split and gathers each where it is used.

    Without it the compiler may rather move activations, which are larger. Neither forward nor backward pass keeps a
    weight that was gathered: the backward pass gathers anew, and a gradient is split as soon as it is summed.

    Args:
        loss: a differentiable function whose first arguments are the values of `groups`.
        groups: lists of Keras variables.

    Returns:
        A function of the same arguments; `loss` itself where no mesh splits weights over data.
    """
    mesh = current()
    if mesh is None or mesh.shard != "fsdp":
        return loss
    import jax

    def run(*args, **kwargs):
        def inner(*values):
            return loss(*map(gathered, groups, values), *args[len(groups) :], **kwargs)

        return jax.checkpoint(inner, policy=_saveable)(*args[: len(groups)])

    return run


def gathered(variables, values):
    """Values of variables, each laid out as if weights were not split over data; their gradients are split again."""
    mesh = current()
    if mesh is None or mesh.shard != "fsdp":
        return values
    import jax

    def gather(variable, value):
        split = mesh.split(variable.path, variable.shape) if _is_weight(variable) else []
        ruled = mesh.ruled(variable.path, variable.shape) if split else []
        if split == ruled:
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


@contextlib.contextmanager
def batches(x, batch_size=None):
    """Within it, batches of these rows are whole on every device if the last one cannot be split as the others are.

    Args:
        x: arrays in any nesting; anything else, such as a loader, changes nothing.
        batch_size: rows in a batch; None for Keras's 32.
    """
    mesh, size = current(), batch_size or 32
    rows = next((len(a) for a in keras.tree.flatten(x) if getattr(a, "ndim", 0)), 0) if mesh else 0
    before = mesh and mesh.whole
    if rows > size and (rows % size) % mesh.num_model_replicas and size % mesh.num_model_replicas == 0:
        mesh.whole = True
        mesh.note(f"{rows} rows in batches of {size} leave {rows % size}, which {mesh.num_model_replicas} parts of "
                  "data do not divide: every batch is whole on every device")  # fmt: skip
    try:
        yield
    finally:
        if mesh:
            mesh.whole = before


def placed(array):
    """An array as a tensor, with its rows over the data axes of the mesh in force."""
    tensor, mesh = keras.ops.convert_to_tensor(array), current()
    return tensor if mesh is None else keras.distribution.distribute_tensor(tensor, mesh.get_data_layout(tensor.shape))


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


class Mesh(keras.distribution.ModelParallel):
    """A Keras distribution whose layouts come from the rules above; made by `scope`.

    Attributes:
        sizes: of the axes `replica`, `data` and `model`.
        shard: "none" or "fsdp".
        notes: sentences, one for each kind of weight or batch that is whole on every device although an axis should
            split it; each has been printed.
        whole: whether batches are whole on every device, whatever their size.
    """

    def __init__(self, sizes, shard):
        devices = keras.distribution.list_devices()[: math.prod(sizes.values())]
        device_mesh = keras.distribution.DeviceMesh(tuple(sizes.values()), tuple(sizes), devices)
        self.sizes, self.shard, self.notes, self.whole, self._config = dict(sizes), shard, [], False, None
        layout_map = keras.distribution.LayoutMap(device_mesh)
        super().__init__(layout_map=layout_map, batch_dim_name="data", auto_shard_dataset=False)

    @property
    def num_model_replicas(self):
        """Parts that a batch is split into."""
        return math.prod(self.sizes[name] for name in DATA_AXES)

    def get_data_layout(self, data_shape):
        """Rows over all data axes, or whole on every device where they do not divide."""
        split = [()] * len(data_shape)
        if data_shape and data_shape[0] % self.num_model_replicas:
            self.note(f"{data_shape[0]} rows are whole on every device, for {self.num_model_replicas} parts of data "
                      "do not divide them")  # fmt: skip
        elif data_shape and not self.whole:
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

    def split(self, path, shape):
        """The mesh axes over which each dimension of a variable is split.

        Args:
            path: of the variable, such as "gpt_backbone/decoder/block_0/attn/query/kernel".
            shape: of the variable.

        Returns:
            A list of tuples of axis names, one a dimension.
        """
        split = self.ruled(path, shape)
        if self.shard == "fsdp":
            for name in ("data", "model"):
                if self.sizes[name] > 1 and not any(name in names for names in split):
                    self._split_further(path, shape, split, name)
        return split

    def ruled(self, path, shape):
        """The same for shard="none": one dimension over model, if whole heads or units come to each device."""
        split, size = [()] * len(shape), self.sizes["model"]
        found = [(axis, field) for pattern, axis, field in _PATTERNS if pattern.fullmatch(path)]
        for axis, field in found[:1] if size > 1 else []:
            units = shape[axis] if field is None or self._config is None else _heads(self._config, field)
            if units % size or shape[axis] % size:
                what = f"size {units}" if field is None else f"{field}={units}"
                self.note(f"{_kind(path)} is not split over model:{size}, which does not divide {what}")
            else:
                split[axis] = ("model",)
        return split

    def _split_further(self, path, shape, split, name):
        """Splits over an axis what it has not split yet: a whole dimension, from the last, else one that is split."""
        size = self.sizes[name]
        for i in sorted(range(len(shape)), key=lambda i: (bool(split[i]), -i)):
            if shape[i] % (size * math.prod(self.sizes[other] for other in split[i])) == 0:
                split[i] += (name,)
                return
        self.note(f"{_kind(path)} of shape {tuple(shape)} is not split over {name}:{size}, which divides none of it")

    def plan(self, config):
        """Takes the number of heads from a `Config`, and checks that each axis divides something of it."""
        self._config, model, data = config, self.sizes["model"], self.sizes["data"]
        sizes = {name: _heads(config, name) for name in ("num_heads", "num_key_value_heads")}
        sizes |= {name: getattr(config, name) for name in ("intermediate_dim", "vocabulary_size")}
        _check_divides("model", model, sizes)
        if self.shard == "fsdp":
            _check_divides("data", data, {"hidden_dim": config.hidden_dim, **sizes})

    def note(self, text):
        """Keeps a sentence, and prints it unless it has been."""
        if text not in self.notes:
            self.notes.append(text)
            print(f"note: {text}", file=sys.stderr)


def _heads(config, field):
    return config.resolved_key_value_heads if field == "num_key_value_heads" else config.num_heads


def _check_divides(axis, size, sizes):
    if all(units % size for units in sizes.values()):
        best = max(n for n in range(1, size) if not any(units % n for units in sizes.values()))
        listed = ", ".join(f"{name}={units}" for name, units in sizes.items())
        raise ValueError(f"{axis}:{size} divides nothing of this model ({listed}): use {axis}:{best}.")


def _kind(path):
    """A path for all blocks at once."""
    return re.sub(r"block_\d+", "block_*", path.split("/", 1)[-1])
