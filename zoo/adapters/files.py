"""Adapters to and from a directory that the package `peft` opens: adapter_config.json and adapter_model.safetensors.

It knows presets' tables of names, and leaves shapes to `zoo.adapters.peft`.
"""

import collections
import contextlib
import json
import os
import re
import tempfile
from pathlib import Path

import numpy as np
from keras import ops

from zoo import checkpoint
from zoo.adapters import peft
from zoo.adapters.attach import beside, held, in_use, kernels, put, train_only
from zoo.adapters.layers import LoRA
from zoo.loading import entry_of, weights
from zoo.weights import rows_of

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_KINDS = {
    "CausalLM": "CAUSAL_LM",
    "Seq2SeqLM": "SEQ_2_SEQ_LM",
    "TextClassifier": "SEQ_CLS",
    "TokenClassifier": "TOKEN_CLS",
    "QuestionAnswerer": "QUESTION_ANS",
    "TextEmbedder": "FEATURE_EXTRACTION",
}
_PLAIN = {"use_dora": False, "fan_in_fan_out": None, "bias": "none", "lora_bias": False, "layer_replication": None}


class _Adapter(checkpoint.Checkpoint):
    names = (WEIGHTS,)


def save(model, directory, name=None, base=None):
    """Writes a LoRA adapter, and the heads that were trained with it, as `peft.PeftModel.from_pretrained` reads them.

    Args:
        model: a task or a `Backbone` of a family.
        directory: where to; made if it is not there.
        name: of the adapter; None: the one in use.
        base: preset or repository that the adapter is for, written down for those who open it.

    Raises:
        ValueError: no such adapter; trained weights that are neither the adapter's nor a head's; a layer whose weights
            the family's checkpoints hold in a form that has no LoRA.
    """
    name = name or in_use(model)
    adapters = held(model, name)
    rows, widths = _rows(model), _widths(model)
    own = {kernel: (*map(ops.convert_to_numpy, (adapter.a, adapter.b)), adapter.scale)
           for kernel, adapter in adapters.items()}  # fmt: skip
    tensors, ranks = peft.to_tensors(rows, widths, own)
    heads = _heads(model, rows)
    tensors |= {f"{peft.BASE}{key}": array for key, (array, _) in heads.items()}
    (rank, scale), _ = collections.Counter(ranks.values()).most_common(1)[0]
    others = {module: one for module, one in ranks.items() if one != (rank, scale)}
    config = {
        "peft_type": "LORA",
        "task_type": _KINDS.get(_task(model)),
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": _plain(rank * scale),
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": peft.targets(ranks, peft.modules(rows, widths)),
        "rank_pattern": {module: total for module, (total, _) in others.items()},
        "alpha_pattern": {module: _plain(total * factor) for module, (total, factor) in others.items()},
        "modules_to_save": sorted({module for _, module in heads.values()}) or None,
        "fan_in_fan_out": _is_conv1d(rows, widths, ranks),
    }
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as staged:
        (file,) = checkpoint.write(staged, tensors.items(), max_shard_size=1 << 62)
        with contextlib.suppress(FileNotFoundError):
            (directory / CONFIG).unlink()  # so that no moment shows a mixture of two adapters
        os.replace(Path(staged) / file, directory / WEIGHTS)
    checkpoint.write_text(directory / CONFIG, json.dumps(config, indent=2, sort_keys=True) + "\n")


def load(model, directory, name="default", train=None):
    """Reads a LoRA adapter that `save` or `peft` wrote, puts it on a model and in use; the rest is frozen.

    Heads that are saved with the adapter replace the model's.

    Args:
        model: of the kind and the sizes that the adapter was made for.
        directory: with adapter_config.json and adapter_model.safetensors.
        name: under which the model holds it.
        train: as in `zoo.adapters.lora`.

    Raises:
        ValueError: no adapter there, one that does something else than LoRA, or one of another model; nothing is
            changed then.
    """
    directory = Path(directory)
    if not (directory / CONFIG).is_file():
        raise ValueError(f"{directory} holds no {CONFIG}.")
    config = checkpoint.read_json(directory / CONFIG)
    if config.get("peft_type") != "LORA":
        raise ValueError(f"{directory / CONFIG}: peft_type={config.get('peft_type')!r}, only 'LORA' is read.")
    for key, value in _PLAIN.items():
        if value is not None and config.get(key, value) != value:
            raise ValueError(f"{directory / CONFIG}: {key}={config[key]!r} is not supported, only {value!r}.")
    rows, widths = _rows(model), _widths(model)
    pairs, heads = _read(directory, config, peft.modules(rows, widths), entry_of(_backbone(model)).prefix)
    found = peft.from_tensors(rows, widths, pairs)
    layers = kernels(model)
    for kernel, (a, _, _) in found.items():
        if a.shape[0] != layers[kernel].kernel.shape[0]:
            raise ValueError(f"The adapter of {kernel} has {a.shape[0]} inputs, not {layers[kernel].kernel.shape[0]}.")
    assigned = _assigned(model, rows, heads, directory)
    beside(model, train)

    def make(kernel, inputs, outputs, **named):
        a, _, scale = found[kernel]
        return LoRA(inputs, outputs, a.shape[1], scale, **named)

    put(model, name, {kernel: layers[kernel] for kernel in found}, make)
    for kernel, adapter in held(model, name).items():
        adapter.a.assign(found[kernel][0])
        adapter.b.assign(found[kernel][1])
    for variable, array in assigned:
        variable.assign(array)
    train_only(model, name, train)


def _backbone(model):
    return getattr(model, "backbone", model)


def _task(model):
    kind = type(model).__name__
    return kind if kind in entry_of(_backbone(model)).architectures else "Backbone"


def _rows(model):
    """Our name -> (their names, move), as the model's own preset would write them."""
    entry, task = entry_of(_backbone(model)), _task(model)
    strip = f"{entry.prefix}." if task == "Backbone" else ""
    rows = rows_of(entry.rows(_backbone(model).config, task), weights(model))
    return {name: (tuple(one.removeprefix(strip) for one in theirs), move) for name, (theirs, move) in rows.items()}


def _widths(model):
    return {name: layer.kernel.shape[1] for name, layer in kernels(model).items()}


def _heads(model, rows):
    """Their name -> (array, module) of what was trained beside the adapter: heads, or nothing."""
    found = weights(model)
    trained = {name: v for name, v in found.items() if v.trainable and "/adapter_" not in name}
    heads = {}
    for name, v in trained.items():
        theirs, move = rows.get(name, ((), None))
        if not name.startswith("head/") or not theirs or move.parts > 1:
            raise ValueError(
                f"{name} is trained beside the adapter, but peft's format holds heads alone: freeze it, or merge the "
                "adapter and save a preset."
            )
        heads[theirs[0]] = np.asarray(move.save([ops.convert_to_numpy(v)])), theirs[0].rpartition(".")[0]
    return heads


def _is_conv1d(rows, widths, ranks):
    """Whether the adapted modules store (in, out)."""
    known = peft.modules(rows, widths)
    return not all(peft.upright(module, *known[module], widths) for module in ranks)


def _plain(number):
    return int(number) if float(number).is_integer() else float(number)


def _pattern(patterns, module, default):
    """peft's value for a module: that of the first pattern which its name ends with."""
    return next((value for key, value in (patterns or {}).items() if re.match(rf"(.*\.)?({key})$", module)), default)


def _read(directory, config, known, prefix):
    """module -> (A, B, scale), and their name -> array of what else is there."""
    tensors = _Adapter(directory)
    halves, heads = {}, {}
    for full in tensors:
        name = full.removeprefix(peft.BASE).replace(".default.", ".")
        module, found, half = name.removesuffix(".weight").rpartition(".lora_")
        if found and half in ("A", "B"):
            spellings = (module, f"{prefix}.{module}", module.removeprefix(f"{prefix}."))
            module = next((one for one in spellings if one in known), module)
            halves.setdefault(module, {})[half] = np.asarray(tensors.read(full), "float32")
        elif "lora_" in name or not full.startswith(peft.BASE):
            raise ValueError(f"{directory / WEIGHTS} holds {full}, which is no LoRA of a linear layer.")
        else:
            heads[name] = np.asarray(tensors.read(full), "float32")
    if broken := [module for module, pair in halves.items() if len(pair) != 2]:
        raise ValueError(f"{directory / WEIGHTS} holds only half of the adapter of {broken[0]}.")
    pairs = {}
    for module, pair in halves.items():
        alpha = _pattern(config.get("alpha_pattern"), module, config.get("lora_alpha", 8))
        rank = len(pair["A"])
        scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
        pairs[module] = pair["A"], pair["B"], scale
    return pairs, heads


def _assigned(model, rows, heads, directory):
    """(variable, array) of the heads beside an adapter."""
    found, taken = weights(model), {}
    for name, (theirs, move) in rows.items():
        if theirs and theirs[0] in heads:
            taken[theirs[0]] = found[name], move.load(heads[theirs[0]])
    if strange := sorted(heads.keys() - taken.keys()):
        raise ValueError(f"{directory / WEIGHTS} holds {strange[0]}, which the model does not have.")
    for name, (variable, array) in taken.items():
        if tuple(variable.shape) != array.shape:
            raise ValueError(f"{directory / WEIGHTS}: {name} has shape {array.shape}, not {tuple(variable.shape)}.")
    return list(taken.values())
