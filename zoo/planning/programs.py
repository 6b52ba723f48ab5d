"""A compiled program, and what can be read off it: bytes, operations, and what devices send each other.

It knows JAX's programs and XLA's text, and no model.
"""

import dataclasses
import math
import re

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all")
_BYTES = {"pred": 1, "token": 0, "c64": 8, "c128": 16}
_COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.-]+) \(.*\{$")
_OPERATION = re.compile(r"\s*(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\(")
_CALLS = re.compile(r"(?:calls|to_apply|body|condition)=%?([\w.-]+)|branch_computations=\{([^}]*)\}")


@dataclasses.dataclass
class Collective:
    """All collectives of a kind that one run executes.

    Attributes:
        kind: such as "all-reduce".
        count: how many.
        bytes: of their results on a device.
        sent: bytes that a device sends, where each goes round a ring of its devices.
    """

    kind: str
    count: int = 0
    bytes: float = 0.0
    sent: float = 0.0


@dataclasses.dataclass(frozen=True)
class Program:
    """What XLA says of a program on one device.

    Attributes:
        argument_bytes, temp_bytes, peak_bytes: of the arguments, of what it needs beside them, and of both with its
            results and its code; results that take the place of arguments count once.
        fits: whether the compiler found room; where it did not, `temp_bytes` is what it was short of room for.
        flops: of matrix products on a device, loops as often as they run, or XLA's count if that is greater.
        accessed: bytes read and written.
        collectives: a list of `Collective`.
        text: the compiled program.
    """

    argument_bytes: int
    temp_bytes: int
    peak_bytes: int
    fits: bool
    flops: float
    accessed: float
    collectives: list
    text: str


# XLA's least effort to make a program fast: it compiles in a quarter of the time, with a few per cent other memory.
_QUICK = {"exec_time_optimization_effort": -1.0}


def compiled(traced, place, devices, thorough=False):
    """The `Program` of what `jax.jit(f).trace(…)` returned.

    Args:
        traced: for arguments that say how they are laid out.
        place: the `Slice`.
        devices: how many of its devices the program is for.
        thorough: whether a TPU's compiler shall optimise as it does for a run, which takes four times as long.
    """
    import jax

    counted = flops(traced.jaxpr) / devices
    arguments = sum(_local_bytes(info) for info in jax.tree.leaves(traced.args_info))
    try:
        quick = place.platform == "tpu" and not thorough
        program = traced.lower().compile(compiler_options=_QUICK if quick else None)
    except jax.errors.JaxRuntimeError as error:
        used = re.search(r"Used ([\d.]+)([KMG]) of |temporaries \(([\d.]+)([KMG])\) exceeds", str(error))
        if not used:
            raise
        number, unit = (part for part in used.groups() if part)
        size = int(float(number) * 1024 ** " KMG".index(unit))
        temporary = max(0, size - arguments) if used[1] else size
        return Program(arguments, temporary, arguments + temporary, False, counted, 0.0, [], "")
    held, text = program.memory_analysis(), program.as_text()
    cost = program.cost_analysis() or {}
    temporary = held.temp_size_in_bytes
    peak = held.argument_size_in_bytes + held.output_size_in_bytes - held.alias_size_in_bytes + temporary
    peak += held.generated_code_size_in_bytes
    told = cost.get("flops", 0.0)
    again = max(1.0, counted / told) if told else 1.0  # XLA counts the body of a loop once
    fits = place.chip is None or peak <= place.chip.memory
    return Program(held.argument_size_in_bytes, temporary, peak, fits, max(counted, told),
                   cost.get("bytes accessed", 0.0) * again, collectives(text), text)  # fmt: skip


def _local_bytes(info):
    shape = info.sharding.shard_shape(info.shape) if getattr(info, "sharding", None) else info.shape
    return math.prod(shape) * info.dtype.itemsize


def flops(jaxpr):
    """Operations of the matrix products of a traced function, loops as often as they run, over all devices."""
    total = 0
    for equation in jaxpr.eqns:
        name, given = equation.primitive.name, equation.params
        if name == "dot_general":
            (contracted, _), _ = given["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)
            continue
        times = given["length"] if name == "scan" else given["mesh"].size if name == "shard_map" else 1
        inner = [flops(getattr(part, "jaxpr", part)) for value in given.values() for part in _jaxprs(value)]
        total += times * (max(inner, default=0) if name == "cond" else sum(inner))
    return total


def _jaxprs(value):
    values = value if isinstance(value, (tuple, list)) else [value]
    return [part for part in values if hasattr(getattr(part, "jaxpr", part), "eqns")]


def collectives(text):
    """The collectives of a compiled program, in order of what a device sends for them.

    Args:
        text: of the compiled program; those within a loop count as often as it runs.

    Returns:
        A list of `Collective`, one a kind.
    """
    bodies, entry = _computations(text)
    times, found = _executions(bodies, entry), {}
    for name, lines in bodies.items():
        for line in lines if times.get(name) else []:
            match = _OPERATION.match(line)
            kind = match and match[3].removesuffix("-start")
            if kind not in KINDS:
                continue
            devices, size = _group(line), _bytes(match[2])
            if match[3].endswith("-start") and kind != "all-reduce":  # its result holds the operands too
                size *= devices / (devices + 1) if kind == "all-gather" else 0.5
            one = found.setdefault(kind, Collective(kind))
            one.count += times[name]
            one.bytes += times[name] * size
            one.sent += times[name] * _sent(kind, size, devices)
    return sorted(found.values(), key=lambda one: -one.sent)


def _sent(kind, size, devices):
    """Bytes that a device sends for a result of so many, on a ring."""
    share = (devices - 1) / devices
    return size * {"all-reduce": 2 * share, "reduce-scatter": devices - 1, "collective-permute": 1}.get(kind, share)


def _bytes(shape):
    """Of a shape as XLA writes it, or of all in a tuple."""
    total = 0
    for dtype, dims in re.findall(r"\b([a-z]\w*)\[([\d,]*)\]", shape):
        width = _BYTES.get(dtype) or int(re.search(r"\d+", dtype)[0]) / 8
        total += width * math.prod(map(int, filter(None, dims.split(","))))
    return total


def _group(line):
    """How many devices take part in one of the groups of a collective."""
    if found := re.search(r"replica_groups=\{\{([\d,]*)\}", line):
        return found[1].count(",") + 1
    if found := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(found[1])
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", line):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", found[1])}
        # An axis may be taken in part, 'axis':(before)size.
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", found[2])
        return math.prod(int(part) if part else sizes[name] for name, part in axes)
    return 2


def _computations(text):
    """Lines of each computation by its name, and the name of the one that is run."""
    bodies, entry, lines = {}, None, []
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            lines = bodies.setdefault(match[1], [])
            entry = match[1] if line.startswith("ENTRY") else entry
        else:
            lines.append(line)
    return bodies, entry


def _executions(bodies, entry):
    """How often each computation runs; a loop whose length is not written down counts once."""
    times, waiting = {}, [(entry, 1)]
    while waiting:
        name, count = waiting.pop()
        times[name] = times.get(name, 0) + count
        for line in bodies.get(name, ()):
            if "-done(" in line or "-update(" in line:
                continue
            trips = _trips(line, bodies) if " while(" in line else 1
            for one, several in _CALLS.findall(line):
                names = [one] if one else [part.strip(" %") for part in several.split(",")]
                waiting += [(called, count * trips) for called in names if called in bodies]
    return times


def _trips(line, bodies):
    if found := re.search(r'known_trip_count[":{ ]+n[": ]+(\d+)', line):
        return int(found[1])
    condition = bodies.get(re.search(r"condition=%?([\w.-]+)", line)[1], ())
    bounds = [int(n) for text in condition for n in re.findall(r" s32\[\]\S* constant\((\d+)\)", text)]
    return max(bounds, default=1)
