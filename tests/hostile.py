"""Ways to damage a preset: each function takes a generator and a directory, and changes files in it.

The preset is a small GPT-2, whole or in shards; `outside` is a directory that nothing may be read from.
"""

import json
import os
import pickle
import shutil
import struct

import numpy as np
from safetensors.numpy import load_file, save_file

SIZES = ("vocab_size", "n_layer", "n_head", "n_embd", "n_positions", "n_inner")
VALUES = (None, True, False, 0, 1, -1, 2**31, 10**12, 10**400, 0.5, 1e400, float("nan"), "", "12", "gelu", [], [1], {},
          {"a": []})  # fmt: skip


def weights(rng, at):
    """A file of weights, an index or a config.json."""
    return at / rng.choice(sorted(p.name for p in at.iterdir() if p.suffix in (".safetensors", ".json")))


def tensors(rng, at):
    """A file of weights."""
    return at / rng.choice(sorted(p.name for p in at.glob("*.safetensors")))


def edited(path, change):
    """Rewrites a JSON file; what `change` returns may be any text."""
    held = json.loads(path.read_text())
    text = change(held)
    path.write_text(text if isinstance(text, str) else json.dumps(held))


def header(path, change):
    """Rewrites the header of a safetensors file and leaves its data."""
    held = path.read_bytes()
    size = int.from_bytes(held[:8], "little")
    entries = json.loads(held[8 : 8 + size])
    text = change(entries)
    text = (text if isinstance(text, str) else json.dumps(entries)).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + held[8 + size :])


def one(rng, entries):
    """An entry of a safetensors header."""
    return entries[rng.choice(sorted(set(entries) - {"__metadata__"}))]


def truncated(rng, at, outside):
    path = weights(rng, at)
    path.write_bytes(path.read_bytes()[: rng.integers(path.stat().st_size)])


def flipped(rng, at, outside):
    path = weights(rng, at)
    held = bytearray(path.read_bytes())
    for i in rng.integers(len(held) if rng.random() < 0.5 else min(len(held), 2000), size=rng.integers(1, 9)):
        held[i] ^= 1 << rng.integers(8)
    path.write_bytes(held)


def garbage(rng, at, outside):
    path = weights(rng, at)
    noise = rng.bytes(int(rng.integers(1, 200)))
    path.write_bytes(noise if rng.random() < 0.5 else path.read_bytes() + noise)


def length(rng, at, outside):
    path = tensors(rng, at)
    size = (0, 1, 7, 2**20, 2**31, 2**62, 2**64 - 1)[rng.integers(7)]
    path.write_bytes(struct.pack("<Q", size) + path.read_bytes()[8:])


def offsets(rng, at, outside):
    begin, end = (int(x) for x in rng.integers(-100, 100_000, 2))

    def change(entries):
        one(rng, entries)["data_offsets"] = [begin, end] if rng.random() < 0.7 else VALUES[rng.integers(len(VALUES))]

    header(tensors(rng, at), change)


def vast(rng, at, outside):
    def change(entries):
        one(rng, entries)["shape"] = [2**40, 2**40] if rng.random() < 0.5 else [2**63, 0]

    header(tensors(rng, at), change)


def dtype(rng, at, outside):
    def change(entries):
        one(rng, entries)["dtype"] = str(rng.choice(["F16", "I32", "BF16", "F8_E4M3", "BOOL", "F99", ""]))

    header(tensors(rng, at), change)


def repeated(rng, at, outside):
    path = weights(rng, at)
    twice = lambda held: json.dumps(held)[:-1] + ", " + json.dumps({rng.choice(sorted(held)): 5})[1:]  # noqa: E731
    (header if path.suffix == ".safetensors" else edited)(path, twice)


def reshaped(rng, at, outside):
    path = tensors(rng, at)
    held = load_file(path)
    name = rng.choice(sorted(held))
    x = held[name]
    others = [x.reshape(-1), x[None], x[:-1], np.concatenate([x, x]), x.T.copy(), x[..., :0].copy()]
    held[name] = others[rng.integers(6)]
    save_file(held, path)


def stored(rng, at, outside):
    """Tensors as other numbers: a correct load for floats, an error for integers."""
    path = tensors(rng, at)
    kind = ["float16", "float64", "int8", "int64", "bool"][rng.integers(5)]
    save_file({name: x.astype(kind) for name, x in load_file(path).items()}, path)


def missing(rng, at, outside):
    path = tensors(rng, at)
    held = load_file(path)
    for name in rng.choice(sorted(held), min(len(held), int(rng.integers(1, 4))), replace=False):
        del held[name]
    save_file(held, path)


def strange(rng, at, outside):
    path = tensors(rng, at)
    held = load_file(path)
    name = rng.choice(sorted(held))
    other = [f"{name}.more", name.replace("h.", "h.1"), "../x", "a" * 5000, "decoder.weight"][rng.integers(5)]
    held[other] = held[name]
    save_file(held, path)


def wrong_value(rng, at, outside):
    def change(held):
        held[rng.choice([*SIZES, *sorted(held)])] = VALUES[rng.integers(len(VALUES))]

    edited(at / "config.json", change)


def swapped(rng, at, outside):
    """Another value somewhere in a JSON file."""

    def change(held):
        for _ in range(rng.integers(1, 4)):
            key = rng.choice(sorted(held)) if isinstance(held, dict) else int(rng.integers(len(held)))
            if not isinstance(held[key], dict | list) or not held[key]:
                break
            held, parent = held[key], held
        else:
            held, key = parent, key
        held[key] = VALUES[rng.integers(len(VALUES))]

    edited(at / rng.choice(sorted(p.name for p in at.glob("*.json"))), change)


def wrong_size(rng, at, outside):
    def change(held):
        held[rng.choice(SIZES)] = int(rng.choice([1, 2, 3, 5, 8, 9, 17, 64, 10**6, 10**9, 2**62]))

    edited(at / "config.json", change)


def lost_key(rng, at, outside):
    edited(at / "config.json", lambda held: held.pop(rng.choice(sorted(held))) and None)


def unknown(rng, at, outside):
    others = ["gpt3", "", "../gpt2", "__import__('os')", 7, None, ["gpt2"], "llama", "bert"]

    def change(held):
        held["model_type"] = others[rng.integers(9)]

    edited(at / "config.json", change)


def pointed(rng, at, outside):
    """An index whose paths leave the directory."""
    path = at / "model.safetensors.index.json"
    if not path.exists():
        shutil.move(at / "model.safetensors", at / "model-1.safetensors")
        names = load_file(at / "model-1.safetensors")
        path.write_text(json.dumps({"weight_map": dict.fromkeys(names, "model-1.safetensors")}))
    os.symlink(outside, at / "sub")
    target = outside / "model.safetensors"
    other = [f"../{outside.name}/model.safetensors", str(target), "sub/model.safetensors", "model-1.safetensors\0", "",
             ".", "..", "config.json", "nothing.safetensors", f"..\\{outside.name}\\model.safetensors",
             f"file://{target}", 3, None, ["a"]][rng.integers(14)]  # fmt: skip

    def change(held):
        held["weight_map"][rng.choice(sorted(held["weight_map"]))] = other
        if rng.random() < 0.3:
            held["weight_map"] = dict.fromkeys(held["weight_map"], other)

    edited(path, change)


def linked(rng, at, outside):
    """A file that is a link to elsewhere, or no file at all."""
    path = weights(rng, at)
    path.unlink()
    kind = rng.integers(5)
    target = outside / ("config.json" if path.suffix == ".json" else "model.safetensors")
    if kind < 2:
        os.symlink([target, os.path.relpath(target, at)][kind], path)
    elif kind == 2:
        os.symlink(path, path)
    elif kind == 3:
        os.mkfifo(path)
    else:
        path.mkdir()


class Trap:
    """What unpickling would run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def pickled(rng, at, outside):
    trap = pickle.dumps({"transformer.wte.weight": Trap(outside / "trap")})
    if rng.random() < 0.5:
        tensors(rng, at).write_bytes(trap)
    else:
        for path in at.glob("model*"):
            path.unlink()
        (at / "pytorch_model.bin").write_bytes(trap)


MUTATIONS = [truncated, flipped, garbage, length, offsets, vast, dtype, repeated, reshaped, stored, missing, strange,
             wrong_value, swapped, wrong_size, lost_key, unknown, pointed, linked, pickled]  # fmt: skip
