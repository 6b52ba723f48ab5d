"""A mesh in words, "data:4,model:2": read, written, and the nearest one that so many devices can honour.

It knows names and sizes, and no device.
"""

import math

DATA_AXES = ("replica", "data")  # the batch is split over all of these; weights, with "fsdp", over data alone
AXES = (*DATA_AXES, "model")
SHARDS = ("none", "fsdp")


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


def checked(mesh, shard, devices, processes=1):
    """The sizes of a mesh that so many devices, in equal number in each process, can honour.

    Raises:
        ValueError: it needs more of them, leaves a process without any, or cuts a model over parts of processes; or
            `shard` has nothing to split over. The message names a mesh that works.
    """
    sizes = parse(mesh)
    if shard not in SHARDS:
        raise ValueError(f"shard={shard!r} is none of {', '.join(SHARDS)}.")
    needed = math.prod(sizes.values())
    if needed > devices:
        raise ValueError(f"mesh {mesh!r} needs {needed} devices, there are {devices}: use {nearest(sizes, devices)!r}.")
    if processes > 1 and needed < devices:
        raise ValueError(f"mesh {mesh!r} leaves {devices - needed} of the {devices} devices in {processes} processes "
                         f"idle: use {nearest(sizes, devices)!r}.")  # fmt: skip
    model, each = sizes["model"], devices // processes
    if processes > 1 and model % each and each % model:
        other = nearest({**sizes, "model": math.gcd(model, each)}, devices)
        raise ValueError(f"mesh {mesh!r} splits a model over parts of processes, which have {each} devices each: "
                         f"use {other!r}.")  # fmt: skip
    if shard == "fsdp" and needed == 1:
        other = f"use 'data:{devices}', all devices there are" if devices > 1 else "leave shard out"
        raise ValueError(f"shard='fsdp' has nothing to split over with mesh {mesh!r}, which is one device: {other}.")
    return sizes


def nearest(sizes, devices):
    """The mesh of all devices whose model axis is the largest that divides both them and the one asked for."""
    model = math.gcd(sizes["model"], devices)
    named = [f"{name}:{size}" for name, size in (("data", devices // model), ("model", model)) if size > 1]
    return ",".join(named or ["data:1"])
