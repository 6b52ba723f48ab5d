"""The files that sentence-transformers puts around a checkpoint: pooling, a dense layer, normalisation, lengths.

Plain dictionaries in, plain dictionaries out; no model here.
"""

import json
from pathlib import Path

from zoo.checkpoint import read_json, write, write_text

_FLAGS = {"first": "cls_token", "mean": "mean_tokens", "max": "max_tokens", "last": "lasttoken"}
_MODES = {"cls": "first", "mean": "mean", "max": "max", "lasttoken": "last"}
_ACTIVATIONS = {"tanh": "torch.nn.modules.activation.Tanh", "relu": "torch.nn.modules.activation.ReLU",
                "gelu": "torch.nn.modules.activation.GELU", "linear": "torch.nn.modules.linear.Identity"}  # fmt: skip
_AFTER_POOLING = ([], ["Normalize"], ["Dense"], ["Dense", "Normalize"])
_OTHERS = ("pooling_mode_mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens")


def read(directory):
    """What the files say, or nothing where there are none.

    Returns:
        (settings, directory of the dense layer's weights or None); settings are arguments of `TextEmbedder`.

    Raises:
        ValueError: modules that we do not compute, or that lie outside the directory; the message names the file.
    """
    directory = Path(directory)
    if not (directory / "modules.json").is_file():
        return {}, None
    kinds = [(entry["type"].rsplit(".", 1)[-1], entry["path"]) for entry in _modules(directory / "modules.json")]
    order = [kind for kind, _ in kinds]
    if order[:2] != ["Transformer", "Pooling"] or order[2:] not in _AFTER_POOLING:
        raise ValueError(f"{directory / 'modules.json'}: {', '.join(order)} is not supported, only Transformer and "
                         "Pooling, with or without Dense and Normalize.")  # fmt: skip
    paths = {kind: directory / path for kind, path in kinds}
    if paths["Transformer"] != directory:
        raise ValueError(f"{directory / 'modules.json'}: the Transformer must be beside it, not in {kinds[0][1]!r}.")
    settings = {"pooling": _pooling(paths["Pooling"] / "config.json"), "normalize": "Normalize" in paths}
    if "Dense" in paths:
        settings["dense"] = _dense(paths["Dense"] / "config.json")
    return {**settings, **_text(directory)}, paths.get("Dense")


def _modules(file):
    """The entries of a modules.json, checked."""
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        held = [Path(entry["path"]) for entry in entries if entry["type"].isprintable()]
        if not held or not isinstance(entries, list):
            raise ValueError(type(entries).__name__)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{file} is no list of modules with type and path: {error!r}.") from None
    if outside := [path for path in held if len(path.parts) > 1 or ".." in path.parts or path.is_absolute()]:
        raise ValueError(f"{file} points at {str(outside[0])!r}: only directories beside it are read.")
    return entries


def _pooling(file):
    said = read_json(file)
    mode = said.get("pooling_mode")
    names = [mode] if isinstance(mode, str) else mode or []
    if mode is None:
        flags = {**{f"pooling_mode_{name}": _MODES_OF[ours] for ours, name in _FLAGS.items()},
                 **{name: name for name in _OTHERS}}  # fmt: skip
        names = [name for flag, name in flags.items() if said.get(flag)]
    if len(names) != 1 or names[0] not in _MODES:
        raise ValueError(f"{file}: pooling by {' and '.join(map(str, names)) or 'nothing'} is not supported, only by "
                         f"one of {', '.join(_MODES)}.")  # fmt: skip
    if said.get("include_prompt", True) is not True:
        raise ValueError(f"{file}: include_prompt={said['include_prompt']!r} is not supported.")
    return _MODES[names[0]]


_MODES_OF = {ours: theirs for theirs, ours in _MODES.items()}


def _dense(file):
    said, names = read_json(file), {theirs: ours for ours, theirs in _ACTIVATIONS.items()}
    activation, units = said.get("activation_function", _ACTIVATIONS["tanh"]), said.get("out_features")
    if activation not in names or said.get("use_residual") or type(units) is not int or units < 1:
        raise ValueError(f"{file}: a dense layer with {said!r} is not supported.")
    return {"units": units, "activation": names[activation], "bias": bool(said.get("bias", True))}


def _text(directory):
    """How texts are cut and what is put before them."""
    names = ("sentence_bert_config.json", "tokenizer_config.json", "config_sentence_transformers.json")
    files = [directory / name for name in names]
    text, tokenizer, model = (read_json(file) if file.is_file() else {} for file in files)
    length = text.get("max_seq_length") or tokenizer.get("model_max_length")  # newer files have only the second
    if length is not None and (not isinstance(length, int | float) or length < 1):
        raise ValueError(f"{directory}: {length!r} of {names[0]} or {names[1]} is no length of texts.")
    prompts, name = model.get("prompts") or {}, model.get("default_prompt_name")
    if name is not None and not isinstance(prompts.get(name), str):
        raise ValueError(f"{files[2]}: there is no prompt {name!r}.")
    length = None if length is None or length > 10**6 else int(length)  # transformers writes 10**30 for none
    return {"max_length": length, "lowercase": bool(text.get("do_lower_case")), "prompt": prompts.get(name, "")}


def write_modules(directory, width, settings, dense=None):
    """Writes the files; `dense` holds the weights of the dense layer as sentence-transformers names them."""
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
    flags = {f"pooling_mode_{name}": ours == settings["pooling"] for ours, name in _FLAGS.items()}
    _write(directory / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **flags})
    if dense:
        said = settings["dense"]
        modules.append(("Dense", "2_Dense"))
        _write(directory / "2_Dense" / "config.json", {
            "in_features": width, "out_features": said["units"], "bias": said["bias"],
            "activation_function": _ACTIVATIONS[said["activation"]]})  # fmt: skip
        write(directory / "2_Dense", dense.items())
    if settings["normalize"]:
        modules.append(("Normalize", f"{len(modules)}_Normalize"))
    entries = [{"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
               for i, (kind, path) in enumerate(modules)]  # fmt: skip
    _write(directory / "modules.json", entries)
    _write(directory / "sentence_bert_config.json",
           {"max_seq_length": settings["max_length"], "do_lower_case": settings["lowercase"]})  # fmt: skip
    prompts, name = ({"default": settings["prompt"]}, "default") if settings["prompt"] else ({}, None)
    _write(directory / "config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": name})


def _write(file, content):
    file.parent.mkdir(exist_ok=True)
    write_text(file, json.dumps(content, indent=2) + "\n")
