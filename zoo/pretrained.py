"""Presets: a name, a directory or a Hub repository -> files, and files -> a family, its `Config` and its weights.

A preset is a Hugging Face checkpoint, both when read and when written; KerasHub's are read too. This module knows no
backend: weights leave and enter as numpy.
"""

import difflib
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from zoo import families, hub, kerashub, weights
from zoo.checkpoint import Checkpoint, read_json, write, write_text
from zoo.config import Config
from zoo.registry import presets
from zoo.tensorflow_files import TensorFlowFiles, read_config

# What would be read in place of what is saved, or beside it.
_REPLACED = [*hub.SAFE, *hub.PICKLED, "modules.json", "generation_config.json"]


def resolve(preset, revision=None, weights=True):
    """The local directory of a preset, downloaded if need be.

    Args:
        preset: a local directory, "hf://owner/repo[@revision]", or a name of `presets()`; tried in this order.
        revision: branch, tag or commit of a Hub repository.
        weights: False to leave out the weights, which are most of the bytes.

    Raises:
        ValueError: nothing is there; the message says what was tried.
    """
    preset = os.fspath(preset)
    if any((Path(preset) / name).is_file() for name in hub.CONFIGS) or any(Path(preset).glob("*.index")):
        return hub.contained(Path(preset))
    if preset.startswith(hub.PREFIX):
        return hub.fetch(preset, revision, weights)
    if preset in presets():
        return hub.fetch(presets()[preset].source, revision, weights)
    tried = f"{Path(preset).absolute()} " + ("has no config.json" if Path(preset).is_dir() else "is no directory")
    near = difflib.get_close_matches(preset, presets(), n=3) or [*presets()][:6]
    hint = f" For one on the Hub write hf://{preset}." if preset.count("/") == 1 and preset[0].isalnum() else ""
    raise ValueError(f"No preset {preset!r}: {tried}, and no preset has that name (near: {', '.join(near)}).{hint}")


def read(path, weights=False):
    """The family, its `Config` and the whole config.json of a preset's directory, as `transformers` would write it.

    Args:
        path: a local directory.
        weights: whether the weights will be loaded too, so that there must be files large enough for them.

    Raises:
        ValueError: no config.json, or a value in it that is not supported; the message names file, key and value.
    """
    file, hf = read_config(path)
    try:
        family, fields, hf = kerashub.read(path, hf) if kerashub.describes(hf) else _read_hugging_face(hf)
        config = Config.from_dict(fields)
        if weights:
            _check_sizes(config, sum(file.stat().st_size for file in Path(path).iterdir() if file.is_file()))
        return family, config, hf
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: {error}") from None


def _read_hugging_face(hf):
    if "model_type" not in hf:
        raise ValueError("there is no model_type.")
    classes = hf.get("architectures") or []
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"architectures={classes!r} must be a list of names.")
    if hf.get("quantization_config"):
        raise ValueError(f"quantization_config={hf['quantization_config']!r}: only plain weights are read.")
    family = families.by_model_type(hf["model_type"])
    return family, family.read(hf), hf


def _check_sizes(config, held):
    """Refuses sizes that need more weights than there are bytes, before memory is taken for them."""
    width, embedded = config.hidden_dim, config.resolved_embedding_dim
    depth = config.num_distinct_blocks or max(config.num_layers, config.resolved_decoder_layers)
    sizes = {
        "vocabulary_size": config.vocabulary_size * embedded,
        "num_layers": depth * width * config.intermediate_dim,
        "num_heads": config.num_heads * config.resolved_head_dim * width,
        "intermediate_dim": config.intermediate_dim * width,
        "max_sequence_length": config.max_sequence_length * embedded * (config.position == "learned"),
        "num_token_types": config.num_token_types * embedded * (config.architecture != "decoder"),
    }
    for name, size in sizes.items():
        if size > held:
            raise ValueError(f"{name}={getattr(config, name)} needs more weights than the {held} bytes beside it.")


def task_of(hf_config):
    """Name of the task whose class a config.json asks for, such as "CausalLM"; None where it does not say."""
    return families.by_model_type(hf_config.get("model_type")).task_of(hf_config)


def has_tokenizer(path):
    """Whether a directory holds a file that `zoo.Tokenizer` reads, or says that it needs none, as ByT5 does."""
    if kerashub.holds(path):
        return kerashub.has_tokenizer(path)
    names = ("tokenizer.json", "vocab.txt", "vocab.json", "encoder.json", "spiece.model", "sentencepiece.bpe.model",
             "tokenizer.model", "spm.model")  # fmt: skip
    said = [Path(path) / name for name in ("tokenizer_config.json", "config.json")]
    byte = any(read_json(file).get("tokenizer_class") == "ByT5Tokenizer" for file in said if file.is_file())
    return byte or any((Path(path) / name).is_file() for name in names)


def load_weights(path, family, config, targets, task="Backbone", made_for=None):
    """Streams a preset's weights into a model; see `zoo.weights.load`.

    Args:
        path: a preset's directory.
        family, config: what `read` returned.
        targets: our name -> (shape, assign).
        task: the model's task, "Backbone" without a head.
        made_for: the task that the preset was made for.
    """
    if kerashub.holds(path):
        return kerashub.load(path, config, targets, task)
    spec = family.heads(config).get(task)
    older = TensorFlowFiles.is_in(path) and not Checkpoint.is_in(path)
    return weights.load(
        TensorFlowFiles(path) if older else Checkpoint(path), family.rows(config, task, made_for), targets,
        prefix=family.prefix, aliases=family.aliases(config),
        ignore=(*family.ignored, *(spec.ignore if spec else ())),
        optional=family.optional, source=str(path),
    )  # fmt: skip


def save(directory, family, config, task, arrays, tokenizer=None, dtype=None, max_shard_size=5_000_000_000, extra=None,
         files=None):  # fmt: skip
    """Writes a preset that `transformers` opens; an interrupted save leaves an older preset as it was.

    Args:
        directory: where to; made if it is not there. Files that are no part of a preset are left alone.
        family, config: of the model.
        task: name of the task, "Backbone" without a head.
        arrays: our name -> array or variable; one at a time is converted.
        tokenizer: anything with `save(directory)`.
        dtype: dtype to store, such as "bfloat16"; None keeps the arrays' own.
        max_shard_size: bytes of one file of weights.
        extra: further keys for the config.json, such as `id2label`.
        files: further files of JSON, name -> content.

    Raises:
        ValueError: a model that the family's config.json or tensor names cannot express; nothing is written then.
    """
    if adapted := [name for name in arrays if "/adapter_" in name]:
        raise ValueError(f"The model has adapters ({adapted[0]}, …): save those with zoo.adapters.save, or merge them.")
    directory = Path(directory)
    if integers := [name for name, array in arrays.items() if "int" in str(array.dtype)]:
        raise ValueError(f"{integers[0]} is quantised, which presets are not: save the preset before quantize, or keep "
                         "the model with model.save('m.keras').")  # fmt: skip
    dtype = np.dtype(dtype or next(iter(arrays.values())).dtype)
    hf = {**family.write(config, task, dtype.name), **(extra or {})}
    strip = f"{family.prefix}." if task == "Backbone" else ""
    tensors = ((name.removeprefix(strip), x) for name, x in weights.theirs(family.rows(config, task), arrays, dtype))
    directory.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.absolute().parent))
    try:
        write(staged, tensors, max_shard_size)
        if tokenizer is not None:
            tokenizer.save(staged)
        for name, content in {**(files or {}), "config.json": hf}.items():
            write_text(staged / name, json.dumps(content, indent=2, sort_keys=True) + "\n")
        _publish(staged, directory)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _publish(staged, directory):
    """Swaps finished files in for those that they replace.

    config.json leaves first and arrives last, so that no moment shows a mixture of two presets; what fails on the way
    is undone.
    """
    new = sorted(path.relative_to(staged).as_posix() for path in staged.rglob("*") if path.is_file())
    held = {path.relative_to(directory).as_posix() for pattern in _REPLACED for path in directory.glob(pattern)}
    old = sorted(held | {name for name in new if (directory / name).is_file()})
    moves = [(directory / name, staged / "replaced" / name) for name in sorted(old, key="config.json".__ne__)]
    moves += [(staged / name, directory / name) for name in sorted(new, key="config.json".__eq__)]
    done = []
    try:
        for source, target in moves:
            target.parent.mkdir(parents=True, exist_ok=True)
            done.append((source, target))
            os.replace(source, target)
    except BaseException:
        for source, target in reversed(done):
            if target.exists() and not source.exists():
                os.replace(target, source)
        raise
