"""What each kind of adapter is in files: its part of adapter_config.json, and its tensors.

LoRA, IA³ and prompts are as the package `peft` has them; bottlenecks, which it lacks, under our own names and with
`zoo_type` in place of `peft_type`. It opens no file, and leaves the shapes of peft's tensors to `zoo.adapters.peft`.
"""

import collections
import re

import numpy as np

from zoo import processes
from zoo.adapters import peft
from zoo.adapters.attach import TOKENS, kernels
from zoo.adapters.layers import IA3, Bottleneck, LoRA, Prompt
from zoo.adapters.methods import prompted
from zoo.loading import entry_of, weights
from zoo.weights import rows_of, same


def backbone_of(model):
    """A task's backbone, or the backbone itself."""
    return getattr(model, "backbone", model)


def task_of(model):
    """The name of the task whose checkpoints its family has."""
    kind = getattr(model, "preset_task", None) or type(model).__name__
    return kind if kind in entry_of(backbone_of(model)).architectures else "Backbone"


def peft_rows(model):
    """Our name -> (their names, move), as the model's own preset would write them."""
    entry, task = entry_of(backbone_of(model)), task_of(model)
    strip = f"{entry.prefix}." if task == "Backbone" else ""
    rows = rows_of(entry.rows(backbone_of(model).config, task), weights(model))
    return {name: (tuple(one.removeprefix(strip) for one in theirs), move) for name, (theirs, move) in rows.items()}


def own_rows(model):
    """The same under our own names."""
    return {name: ((name,), same) for name in weights(model)}


def head_rows(model, form):
    """The same of heads; those of some tasks have no place in their files, and our own names."""
    rows = own_rows(model) | {name: row for name, row in form.rows(model).items() if row[0]}
    return {name: row for name, row in rows.items() if name.startswith("head/")}


def widths(model):
    """Our kernel -> its number of outputs."""
    return {name: layer.kernel.shape[1] for name, layer in kernels(model).items()}


class LoRAFormat:
    """peft's `LORA`."""

    adapter, key, kind, base, rows = LoRA, "peft_type", "LORA", peft.BASE, staticmethod(peft_rows)

    @staticmethod
    def write(model, adapters):
        rows, sizes = peft_rows(model), widths(model)
        own = {kernel: (processes.whole(adapter.a.value), processes.whole(adapter.b.value), adapter.scale)
               for kernel, adapter in adapters.items()}  # fmt: skip
        tensors, ranks = peft.to_tensors(rows, sizes, own)
        known = peft.modules(rows, sizes)
        (rank, scale), _ = collections.Counter(ranks.values()).most_common(1)[0]
        others = {module: one for module, one in ranks.items() if one != (rank, scale)}
        config = {
            "r": rank,
            "lora_alpha": _plain(rank * scale),
            "lora_dropout": 0.0,
            "bias": "none",
            "target_modules": peft.targets(ranks, known),
            "rank_pattern": {module: total for module, (total, _) in others.items()},
            "alpha_pattern": {module: _plain(total * factor) for module, (total, factor) in others.items()},
            "fan_in_fan_out": _is_conv1d(known, sizes, ranks),
        }
        return config, tensors

    @staticmethod
    def read(model, config, tensors):
        rows, sizes = peft_rows(model), widths(model)
        halves = collections.defaultdict(dict)
        for half in "AB":
            for module, array in _taken(model, tensors, f".lora_{half}.weight", rows, sizes).items():
                halves[module][half] = array
        if broken := [module for module, pair in halves.items() if len(pair) != 2]:
            raise ValueError(f"Only half of the adapter of {broken[0]} is there.")
        pairs = {}
        for module, pair in halves.items():
            alpha, rank = _pattern(config.get("alpha_pattern"), module, config.get("lora_alpha", 8)), len(pair["A"])
            scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
            pairs[module] = pair["A"], pair["B"], scale
        found = peft.from_tensors(rows, sizes, pairs)
        _check_inputs(model, {kernel: len(a) for kernel, (a, _, _) in found.items()})

        def make(kernel, inputs, outputs, **named):
            a, _, scale = found[kernel]
            return LoRA(inputs, outputs, a.shape[1], scale, **named)

        return make, {kernel: (a, b) for kernel, (a, b, _) in found.items()}


class IA3Format:
    """peft's `IA3`."""

    adapter, key, kind, base, rows = IA3, "peft_type", "IA3", peft.BASE, staticmethod(peft_rows)

    @staticmethod
    def write(model, adapters):
        rows, sizes = peft_rows(model), widths(model)
        own = {kernel: (processes.whole(one.scale.value), one.on_inputs) for kernel, one in adapters.items()}
        tensors, kinds = peft.vectors_to_tensors(rows, sizes, own)
        known = peft.modules(rows, sizes)
        chosen, inner = peft.feedforwards(kinds, known)
        fan = _is_conv1d(known, sizes, kinds)
        return {"target_modules": chosen, "feedforward_modules": inner, "fan_in_fan_out": fan}, tensors

    @staticmethod
    def read(model, config, tensors):
        rows, sizes = peft_rows(model), widths(model)
        found = peft.vectors_from_tensors(rows, sizes, _taken(model, tensors, ".ia3_l", rows, sizes))
        _check_inputs(model, {kernel: len(vector) for kernel, (vector, inner) in found.items() if inner})

        def make(kernel, inputs, outputs, **named):
            return IA3(inputs, outputs, found[kernel][1], **named)

        return make, {kernel: (vector,) for kernel, (vector, _) in found.items()}


class PromptFormat:
    """peft's `PROMPT_TUNING`, whose vectors come after the scale that some families give tokens'."""

    adapter, key, kind, base, rows = Prompt, "peft_type", "PROMPT_TUNING", "base_model.", staticmethod(peft_rows)

    @staticmethod
    def write(model, adapters):
        shape = backbone_of(model).config
        vectors = processes.whole(adapters[TOKENS].vectors.value) * np.float32(shape.embedding_scale)
        config = {
            "num_virtual_tokens": len(vectors),
            "token_dim": vectors.shape[1],
            "num_transformer_submodules": 1,
            "num_attention_heads": shape.num_heads,
            "num_layers": shape.num_layers,
            "prompt_tuning_init": "RANDOM",
        }
        return config, {"prompt_embeddings": vectors}

    @staticmethod
    def read(model, config, tensors):
        if "prompt_embeddings" not in tensors:
            raise ValueError("There are no prompt_embeddings.")
        vectors = tensors.pop("prompt_embeddings") / np.float32(backbone_of(model).config.embedding_scale)
        width = backbone_of(model).token.output_dim
        if vectors.shape[1] != width:
            raise ValueError(f"The prompt's vectors have {vectors.shape[1]} features, the model's tokens {width}.")
        return prompted(model, len(vectors)), {TOKENS: (vectors,)}


class BottleneckFormat:
    """Ours: weights by the kernel they are beside."""

    adapter, key, kind, base, rows = Bottleneck, "zoo_type", "BOTTLENECK", "", staticmethod(own_rows)

    @staticmethod
    def write(model, adapters):
        held = [(f"{kernel}/{v.name}", v) for kernel, one in adapters.items() for v in one.variables]
        config = {"activation": next(iter(adapters.values())).activation}
        return config, {name: processes.whole(v.value) for name, v in held}

    @staticmethod
    def read(model, config, tensors):
        found = {}
        for kernel, layer in kernels(model).items():
            arrays = [tensors.pop(f"{kernel}/{name}", None) for name in ("down", "down_bias", "up", "up_bias")]
            if arrays[0] is None:
                continue
            width, size = layer.kernel.shape[1], arrays[0].shape[-1]
            if [None if a is None else a.shape for a in arrays] != [(width, size), (size,), (size, width), (width,)]:
                raise ValueError(f"The adapter of {kernel} is not one of {width} outputs, or not whole.")
            found[kernel] = arrays

        def make(kernel, inputs, outputs, **named):
            return Bottleneck(outputs, len(found[kernel][1]), config["activation"], **named)

        return make, found


FORMATS = (LoRAFormat, IA3Format, PromptFormat, BottleneckFormat)


def _is_conv1d(known, sizes, adapted):
    """Whether the adapted modules store (in, out)."""
    return not all(peft.upright(module, *known[module], sizes) for module in adapted)


def _plain(number):
    return int(number) if float(number).is_integer() else float(number)


def _pattern(patterns, module, default):
    """peft's value for a module: that of the first pattern which its name ends with."""
    return next((value for key, value in (patterns or {}).items() if re.match(rf"(.*\.)?({key})$", module)), default)


def _taken(model, tensors, end, rows, sizes):
    """Takes the tensors whose names end like this out of all: module, as the model's rows call it -> array."""
    prefix, known, found = entry_of(backbone_of(model)).prefix, peft.modules(rows, sizes), {}
    for full in [name for name in tensors if name.endswith(end)]:
        module = full.removeprefix(peft.BASE).removesuffix(end)
        spellings = (module, f"{prefix}.{module}", module.removeprefix(f"{prefix}."))
        found[next((one for one in spellings if one in known), module)] = tensors.pop(full)
    return found


def _check_inputs(model, sizes):
    layers = kernels(model)
    for kernel, size in sizes.items():
        if size != layers[kernel].kernel.shape[0]:
            raise ValueError(f"The adapter of {kernel} has {size} inputs, not {layers[kernel].kernel.shape[0]}.")
