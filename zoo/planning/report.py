"""A plan in numbers, words and bars: what a program costs on a chip, and what that means for training or generating.

It knows programs and chips, and no model.
"""

import json
import os
from pathlib import Path

from zoo.planning.chips import roofline


def plan(program, place, mesh, tokens, model_flops, **facts):
    """The numbers of a plan, ready for JSON.

    Args:
        program: a `Program`.
        place: the `Slice` that it is for.
        mesh: the `Mesh`.
        tokens: that a step takes or makes, over all chips.
        model_flops: operations that the model needs for a step, over all chips, without what is recomputed.
        facts: further entries, such as the batch size.

    Returns:
        A dictionary; bytes and operations are a chip's. `estimate` is None where nothing is known of the chip, or the
        program does not fit.
    """
    found = {
        "topology": place.name, "chips": mesh.num_devices,
        "mesh": {name: size for name, size in mesh.sizes.items() if size > 1}, "shard": mesh.shard, **facts,
        "argument_bytes": program.argument_bytes, "temp_bytes": program.temp_bytes, "peak_bytes": program.peak_bytes,
        "memory_bytes": place.chip and place.chip.memory, "fits": program.fits,
        "flops": program.flops, "bytes_accessed": program.accessed, "model_flops": model_flops / mesh.num_devices,
        "collectives": {one.kind: {"count": one.count, "bytes": one.bytes, "sent_bytes": one.sent}
                        for one in program.collectives},
        "notes": list(mesh.notes), "estimate": None,
    }  # fmt: skip
    if place.chip is None or not program.fits:
        return found
    times = roofline(place.chip, program.flops, program.accessed, sum(one.sent for one in program.collectives))
    found["estimate"] = {
        "step_seconds": times.seconds, "bound_by": times.bound, "compute_seconds": times.compute,
        "memory_seconds": times.memory, "links_seconds": times.links,
        "tokens_per_second_per_chip": tokens / times.seconds / mesh.num_devices,
        "model_flops_utilisation": found["model_flops"] / times.seconds / place.chip.flops,
        "figures_of_the_chip": place.chip.source,
    }  # fmt: skip
    return found


def described(found):
    """A plan as text."""
    mesh = ",".join(f"{name}:{size}" for name, size in found["mesh"].items()) or "data:1"
    lines = [f"{found['chips']} chips of {found['topology']}, mesh {mesh}, shard {found['shard']}, "
             f"batch {found['batch_size']} x {found['sequence_length']}"]  # fmt: skip
    memory, fits = found["memory_bytes"], "fits" if found["fits"] else "DOES NOT FIT"
    room = f" of {_size(memory)}: {fits}" if memory else ""
    lines += [
        "on each chip",
        f"  memory       {_size(found['peak_bytes'])}{room}",
        f"               arguments {_size(found['argument_bytes'])}, temporaries {_size(found['temp_bytes'])}",
        f"  arithmetic   {found['flops'] / 1e12:,.3f} TFLOP, of which the model's {found['model_flops'] / 1e12:,.3f}",
        f"  traffic      {_size(found['bytes_accessed'])} read and written",
    ]
    for kind, one in found["collectives"].items():
        lines.append(f"  {kind:<18} {one['count']:>5} times, results of {_size(one['bytes'])}, "
                     f"{_size(one['sent_bytes'])} sent")  # fmt: skip
    if estimate := found["estimate"]:
        lines += [
            f"estimate, if nothing waits (figures of the chip: {estimate['figures_of_the_chip']})",
            f"  step         {1e3 * estimate['step_seconds']:,.2f} ms, bound by {estimate['bound_by']} (compute "
            f"{1e3 * estimate['compute_seconds']:,.2f}, memory {1e3 * estimate['memory_seconds']:,.2f}, links "
            f"{1e3 * estimate['links_seconds']:,.2f})",
            f"  speed        {estimate['tokens_per_second_per_chip']:,.0f} tokens a second and chip, "
            f"model-FLOPs utilisation at most {estimate['model_flops_utilisation']:.0%}",
        ]
    return "\n".join(lines)


def _size(count):
    unit, name = next(((10**n, name) for n, name in ((9, "GB"), (6, "MB")) if count >= 10**n), (10**3, "kB"))
    return f"{count / unit:,.2f} {name}"


def ranked(plans):
    """Plans that fit, the fastest by its estimate first; then those that do not, the smallest first."""

    def key(found):
        speed = found["estimate"]["tokens_per_second_per_chip"] if found["estimate"] else 0.0
        return not found["fits"], -speed, found["peak_bytes"]

    return sorted(plans, key=key)


def write_json(path, content):
    """Writes a plan, or a list of them."""
    _replace(path, lambda file: file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8"))


def write_picture(path, plans):
    """Bars of memory and of time, a row a plan, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 1.8 + 0.5 * len(plans)), layout="constrained")
    space, time = figure.subplots(1, 2, sharey=True)
    names = [",".join(f"{n}:{s}" for n, s in one["mesh"].items()) + f" {one['shard']}, batch {one['batch_size']}"
             for one in plans]  # fmt: skip
    left = [0.0] * len(plans)
    for label in ("argument_bytes", "temp_bytes"):
        sizes = [one[label] / 1e9 for one in plans]
        space.barh(names, sizes, left=left, label={"argument_bytes": "arguments", "temp_bytes": "temporaries"}[label])
        left = [a + b for a, b in zip(left, sizes)]
    if plans[0]["memory_bytes"]:
        space.axvline(plans[0]["memory_bytes"] / 1e9, color="black", linestyle="--", label="memory of the chip")
    for offset, resource in ((-0.25, "compute"), (0.0, "memory"), (0.25, "links")):
        values = [1e3 * one["estimate"][f"{resource}_seconds"] if one["estimate"] else 0.0 for one in plans]
        time.barh([i + offset for i in range(len(plans))], values, height=0.25, label=resource)
    space.set(xlabel="GB on each chip", title=f"{plans[0]['topology']}: memory")
    time.set(xlabel="ms a step, each resource alone (estimate)", title="time")
    space.invert_yaxis()
    for axes in (space, time):
        axes.legend(fontsize="small")
    _replace(path, lambda file: figure.savefig(file, format="png"))


def _replace(path, write):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    write(temporary)
    os.replace(temporary, path)
