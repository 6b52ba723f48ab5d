"""Adapters to and from a directory: adapter_config.json and adapter_model.safetensors, which the package `peft` opens
where it knows the kind of adapter; `zoo.adapters.formats` says what they hold.
"""

import contextlib
import json
import os
import tempfile
from pathlib import Path

import numpy as np

from zoo import checkpoint, processes
from zoo.adapters.attach import PREFIX, beside, held, in_use, put, train_only
from zoo.adapters.formats import FORMATS, head_rows, task_of
from zoo.loading import weights

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_KINDS = {
    "CausalLM": "CAUSAL_LM",
    "Seq2SeqLM": "SEQ_2_SEQ_LM",
    "TextClassifier": "SEQ_CLS",
    "TokenClassifier": "TOKEN_CLS",
    "QuestionAnswerer": "QUESTION_ANS",
    "TextEmbedder": "FEATURE_EXTRACTION",
    "Backbone": "FEATURE_EXTRACTION",
}
_PLAIN = {"use_dora": False, "bias": "none", "lora_bias": False, "layer_replication": None,
          "num_transformer_submodules": 1}  # fmt: skip


class _Adapter(checkpoint.Checkpoint):
    names = (WEIGHTS,)


def save(model, directory, name=None, base=None):
    """Writes an adapter, and the heads that were trained with it. All processes bring their parts, the first writes.

    LoRA, IA³ and prompts as `peft.PeftModel.from_pretrained` reads them; bottlenecks, which peft does not have, for
    `load` alone.

    Args:
        model: a task or a `Backbone` of a family.
        directory: where to; made if it is not there.
        name: of the adapter; None: the one in use.
        base: preset or repository that the adapter is for, written down for those who open it.

    Raises:
        ValueError: no such adapter; trained weights that are neither the adapter's nor a head's; a layer whose weights
            the family's checkpoints hold in a form that has no such adapter.
    """
    name = name or in_use(model)
    adapters = held(model, name)
    form = next(form for form in FORMATS if isinstance(next(iter(adapters.values())), form.adapter))
    config, tensors = form.write(model, adapters)
    heads = _heads(model, head_rows(model, form))
    tensors |= {f"{form.base}{key}": array for key, (array, _) in heads.items()}
    config |= {
        form.key: form.kind,
        "task_type": _KINDS.get(task_of(model)),
        "base_model_name_or_path": base,
        "inference_mode": True,
        "modules_to_save": sorted({module for _, module in heads.values() if module}) or None,
    }
    if processes.is_first():
        _write(Path(directory), config, tensors)
    processes.barrier("adapter")


def _write(directory, config, tensors):
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as staged:
        (file,) = checkpoint.write(staged, tensors.items(), max_shard_size=1 << 62)
        with contextlib.suppress(FileNotFoundError):
            (directory / CONFIG).unlink()  # so that no moment shows a mixture of two adapters
        os.replace(Path(staged) / file, directory / WEIGHTS)
    checkpoint.write_text(directory / CONFIG, json.dumps(config, indent=2, sort_keys=True) + "\n")


def load(model, directory, name="default", train=None):
    """Reads an adapter that `save` or `peft` wrote, puts it on a model and in use; the rest is frozen.

    Heads that are saved with the adapter replace the model's.

    Args:
        model: of the kind and the sizes that the adapter was made for.
        directory: with adapter_config.json and adapter_model.safetensors.
        name: under which the model holds it.
        train: as in `zoo.adapters.lora`.

    Raises:
        ValueError: no adapter there, one of a kind that is not here, or one of another model; nothing is changed then.
    """
    directory = Path(directory)
    if not (directory / CONFIG).is_file():
        raise ValueError(f"{directory} holds no {CONFIG}.")
    config = checkpoint.read_json(directory / CONFIG)
    form = next((form for form in FORMATS if config.get(form.key) == form.kind), None)
    if form is None:
        read = ", ".join(form.kind for form in FORMATS if form.key == "peft_type")
        raise ValueError(f"{directory / CONFIG}: peft_type={config.get('peft_type')!r}, only {read} are read.")
    for key, value in _PLAIN.items():
        if config.get(key, value) != value:
            raise ValueError(f"{directory / CONFIG}: {key}={config[key]!r} is not supported, only {value!r}.")
    stored = _Adapter(directory)
    tensors = {full.replace(".default.", "."): np.asarray(stored.read(full), "float32") for full in stored}
    try:
        make, arrays = form.read(model, config, tensors)
        assigned = _assigned(model, form, tensors)
    except ValueError as error:
        raise ValueError(f"{directory / WEIGHTS}: {error}") from None
    beside(model, train)
    put(model, name, arrays, make)
    for place, adapter in held(model, name).items():
        for variable, array in zip(adapter.variables, arrays[place]):
            variable.assign(array)
    for variable, array in assigned:
        variable.assign(array)
    train_only(model, name, train)


def _heads(model, rows):
    """Their name -> (array, module) of what was trained beside the adapter: heads, or nothing."""
    trained = {name: v for name, v in weights(model).items() if v.trainable and f"/{PREFIX}" not in name}
    heads = {}
    for name, v in trained.items():
        if name not in rows or rows[name][1].parts > 1:
            raise ValueError(
                f"{name} is trained beside the adapter, but its files hold heads alone: freeze it, or merge the "
                "adapter and save a preset."
            )
        (theirs, *_), move = rows[name]
        heads[theirs] = np.asarray(move.save([processes.whole(v.value)])), theirs.rpartition(".")[0]
    return heads


def _assigned(model, form, tensors):
    """(variable, array) of the heads beside an adapter, which are all that is left of its tensors."""
    found, taken = weights(model), {}
    for name, (theirs, move) in head_rows(model, form).items():
        if (full := f"{form.base}{theirs[0]}") in tensors:
            taken[full] = name, found[name], move.load(tensors[full])
    if strange := sorted(tensors.keys() - taken.keys()):
        raise ValueError(f"The model has nothing for {strange[0]}.")
    for name, variable, array in taken.values():
        if tuple(variable.shape) != array.shape:
            raise ValueError(f"{name} has shape {array.shape}, not {tuple(variable.shape)}.")
    return [(variable, array) for _, variable, array in taken.values()]
