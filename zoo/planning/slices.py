"""Devices to compile for: a TPU slice by its name, of which no chip need be there, or virtual CPU devices.

It knows names and libtpu, and no model.
"""

import dataclasses
import importlib.util
import os
import re

from zoo.planning.chips import CHIPS, Chip


@dataclasses.dataclass(frozen=True)
class Slice:
    """Devices that take programs, a chip each where there is no other; `chip` is None on CPUs."""

    name: str
    platform: str
    devices: tuple
    chip: Chip | None


def open_slice(name):
    """The devices of a slice.

    Args:
        name: generation and shape, "v5e:4x4" or "v5p:4x4x4"; or "cpu:8", for which XLA must have been told to make so
            many devices of this machine. A host's chips stay together, so a slice of v5e is a multiple of 2x2, others
            of 2x2x1.

    Raises:
        ImportError: a TPU without libtpu.
        ValueError: a generation that is not known, or a shape that no slice has.
    """
    generation, _, shape = name.partition(":")
    if generation == "cpu":
        return Slice(name, "cpu", _virtual(name, shape), None)
    if generation not in CHIPS or not re.fullmatch(r"\d+(x\d+)+", shape):
        raise ValueError(f"topology {name!r} is none of {', '.join(CHIPS)} with a shape, as in v5e:4x4 or v5p:4x4x4.")
    if importlib.util.find_spec("libtpu") is None:
        raise ImportError(f"A plan for {name} needs libtpu, TPUs' compiler: pip install 'keras-zoo[jax,plan]'.")
    # No chip is opened: neither does a process that plans keep others out, nor need it look for chips.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    import jax
    from jax.experimental import topologies

    options = {"chip_config_name": "megacore"} if generation == "v4" else {}  # else each of its two cores is a device
    try:
        devices = topologies.get_topology_desc(name, "tpu", **options).devices
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(f"topology {name!r} is no slice: {str(error).removeprefix('INVALID_ARGUMENT: ')}") from None
    return Slice(name, "tpu", tuple(devices), CHIPS[generation])


def _virtual(name, count):
    import jax

    devices = jax.devices("cpu")
    if not count.isdecimal() or not 0 < int(count) <= len(devices):
        raise ValueError(
            f"topology {name!r}: there are {len(devices)} CPU devices; for N of them set "
            "XLA_FLAGS=--xla_force_host_platform_device_count=N."
        )
    return tuple(devices[: int(count)])
