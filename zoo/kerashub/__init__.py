"""KerasHub's presets, read without KerasHub: a `config.json` with `registered_name`, and HDF5 files of weights.

Their classes are names here and are never built. What a class computes and we do not is refused by the name of the
class and the field; what is read is saved as a Hugging Face checkpoint. It reads and never writes.
"""

import json
import re
from pathlib import Path

from zoo import families, weights
from zoo.checkpoint import read_json
from zoo.config import Config
from zoo.kerashub.h5 import Tensors
from zoo.kerashub.kinds import KINDS
from zoo.kerashub.rows import UNTIED, embedded

_REGISTERED = re.compile(r"keras_(?:hub|nlp)>(\w+)")
_KERAS = ("name", "trainable", "dtype")  # of every layer
_IGNORE = (r"^task/optimizer/", r"^optimizer/", r"/rotary_embedding/vars/0$")
VOCABULARY = "assets/tokenizer/vocabulary.json"
_HEADS = ("MaskedLM", "TextClassifier")  # tasks whose heads have weights of their own
_TASKS = (*_HEADS, "CausalLM", "Seq2SeqLM")
# Their code cuts texts as GPT-2 does, or cleans them less, where these models were trained otherwise.
_UNREAD = {"Bloom", "Falcon", "Albert"}
_CLASSES = {"DebertaV3": "DebertaV2", "Qwen": "Qwen2"}  # what transformers calls a tokenizer that has another name
_TOKENIZER = {  # field -> the values that are read, all where there are none
    "lowercase": (), "strip_accents": (), "add_prefix_space": (), "sequence_length": (None,), "split": (True,),
    "split_on_cjk": (True,), "suffix_indicator": ("##",), "oov_token": ("[UNK]",), "add_bos": (False,),
    "add_eos": (False,), "special_tokens": (), "unsplittable_tokens": (), "special_tokens_in_strings": (False,),
    "has_vision_tokens": (), "config_file": ("tokenizer.json",),
}  # fmt: skip
_OPTIONAL = ("head/bias",)  # zeros where they have none, as BART's


def describes(config):
    """Whether the contents of a config.json or tokenizer.json are KerasHub's."""
    return "registered_name" in config


def holds(directory):
    """Whether a directory is a preset of KerasHub's."""
    file = Path(directory) / "config.json"
    return file.is_file() and describes(read_json(file))


def class_of(config, suffix):
    """The name in `KINDS` of the class that a file is of, such as "GPT2" of "keras_hub>GPT2Backbone".

    Raises:
        ValueError: a class that is not one of these; the message names it.
    """
    name = config.get("registered_name")
    found = _REGISTERED.fullmatch(name) if isinstance(name, str) else None
    kind = found[1].removesuffix(suffix) if found and found[1].endswith(suffix) else None
    if kind not in KINDS:
        known = ", ".join(f"{known}{suffix}" for known in KINDS)
        raise ValueError(f"registered_name={name!r} is no class of KerasHub's that is read here; known are {known}.")
    if not isinstance(config.get("config"), dict):
        raise ValueError(f"There is no config of the {name}.")
    return kind


def read(directory, config):
    """The family, the fields of `Config`, and what a Hugging Face config.json would say of the task.

    Args:
        directory: a preset's.
        config: the contents of its config.json.

    Raises:
        ValueError: a class or a field that we do not compute.
    """
    directory, name = Path(directory), class_of(config, "Backbone")
    kind, given = KINDS[name], config["config"]
    try:
        _check(kind, given)
        family = families.by_name(kind.family if isinstance(kind.family, str) else kind.family(given))
        keys = [(key, (ours,) if isinstance(ours, str) else ours) for key, ours in kind.keys.items() if key in given]
        fields = {name: given[key] for key, ours in keys for name in ours}
        tokens = _tokens(directory, kind, family, fields["vocabulary_size"])
        fields = {**tokens, **kind.fixed, **fields, **kind.read(given)}
        fields = {**family.switches(fields), **fields}
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        reason = f"there is no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{name}Backbone: {reason}") from None
    return family, fields, _task(directory, family, fields, kind)


def _check(kind, given):
    known = {*kind.keys, *kind.only, *kind.also, *_KERAS}
    if unknown := [key for key in given if key not in known]:
        raise ValueError(f"the field {unknown[0]}={given[unknown[0]]!r} is not known here.")
    for key, allowed in kind.only.items():
        if key in given and given[key] not in allowed:
            raise ValueError(f"{key}={given[key]!r} is not supported, only {allowed}.")
    if "quantiz" in json.dumps(given.get("dtype")).lower():
        raise ValueError(f"dtype={given['dtype']!r} is quantised: only plain weights are read.")


def _tokens(directory, kind, family, size):
    """Ids of special tokens: by name in a vocabulary, else those that the family's vocabularies have."""
    if not (directory / VOCABULARY).is_file():
        usual = {key: value for key, value in family.absent.items() if key.endswith("_token_id") and value is not None}
        return {key: value for key, value in usual.items() if kind.usual and value < size}
    vocabulary, found = read_json(directory / VOCABULARY), {}
    for role, tokens in kind.roles.items():
        tokens = (tokens,) if isinstance(tokens, str) else tokens
        ids = tuple(vocabulary[token] for token in tokens if token in vocabulary)
        if ids and role in ("bos", "eos", "pad", "decoder_start"):
            found[f"{role}_token_id"] = ids if len(ids) > 1 else ids[0]
    return found


def has_tokenizer(directory):
    """Whether there is a tokenizer, and `tokenizer` reads it."""
    file = Path(directory) / "tokenizer.json"
    name = str(read_json(file).get("registered_name")) if file.is_file() else ""
    return name.endswith("Tokenizer") and name.split(">")[-1].removesuffix("Tokenizer") in KINDS.keys() - _UNREAD


def tokenizer(directory):
    """What `transformers` would write in a tokenizer_config.json; {} where no KerasHub tokenizer is there.

    Raises:
        ValueError: one that is not read here, or a field that changes its ids and is not known.
    """
    file = Path(directory) / "tokenizer.json"
    content = read_json(file) if file.is_file() else {}
    if not describes(content):
        return {}
    name = class_of(content, "Tokenizer")
    kind, given = KINDS[name], content["config"]
    if name in _UNREAD:
        raise ValueError(f"{file}: the vocabulary of a {name}Tokenizer alone does not say how to cut a text.")
    if unknown := [key for key in given if key not in (*_KERAS, *_TOKENIZER, "vocabulary", "merges", "proto")]:
        raise ValueError(f"{file}: the field {unknown[0]}={given[unknown[0]]!r} is not known here.")
    for key, allowed in _TOKENIZER.items():
        if key in given and allowed and given[key] not in allowed:
            raise ValueError(f"{file}: {key}={given[key]!r} is not supported, only {allowed}.")
    beside = Path(directory) / "preprocessor.json"
    preprocessor = read_json(beside).get("config") if beside.is_file() else None
    start = preprocessor.get("add_start_token", True) if isinstance(preprocessor, dict) else True
    tokens = {role: token if isinstance(token, str) else token[0] for role, token in kind.roles.items()}
    return {
        "tokenizer_class": _CLASSES.get(name, name) + "Tokenizer",
        "add_bos_token": bool(start), "add_eos_token": False,
        "do_lower_case": bool(given.get("lowercase")), "strip_accents": bool(given.get("strip_accents")),
        "add_prefix_space": bool(given.get("add_prefix_space")),
        **{f"{role}_token": token for role, token in tokens.items() if role != "decoder_start"},
    }  # fmt: skip


def _made_for(directory):
    """The task and the settings of a task.json: ("CausalLM", {...}), or (None, {}) where there is none of ours."""
    file = directory / "task.json"
    content = read_json(file) if file.is_file() else {}
    name, settings = content.get("registered_name"), content.get("config")
    found = _REGISTERED.fullmatch(name) if isinstance(name, str) else None
    task = next((task for task in _TASKS if found and found[1].endswith(task)), None)
    return task, settings if task and isinstance(settings, dict) else {}


def _task(directory, family, config, kind):
    """What `transformers` would write in a config.json of the task that a preset was made for."""
    task, settings = _made_for(directory)
    if task not in family.architectures or (task in _HEADS and task not in kind.heads):
        return {"model_type": family.model_types[0]}
    hf = {"model_type": family.model_types[0], "architectures": [family.architectures[task]]}
    if task != "TextClassifier":
        return hf
    count = settings.get("num_classes")
    if type(count) is not int or not 0 < count < 1e6:
        raise ValueError(f"{directory / 'task.json'}: num_classes={count!r} must be a positive integer.")
    only = {"activation": ("linear", None), "hidden_dim": (None, config["hidden_dim"])}
    for key, allowed in only.items():
        if settings.get(key) not in allowed:
            raise ValueError(f"{directory / 'task.json'}: {key}={settings[key]!r} is not supported, only {allowed}.")
    rate = settings.get("dropout", 0.0)
    spec = family.heads(Config.from_dict(config))[task]
    return {**hf, "num_labels": count, **dict.fromkeys(spec.keys, rate)}


def load(directory, config, targets, task):
    """Streams a preset's weights into a model; see `zoo.weights.load`.

    Args:
        directory: the preset's.
        config: the model's `Config`.
        targets: our name -> (shape, assign).
        task: the model's task, "Backbone" without a head.
    """
    directory = Path(directory)
    name = class_of(read_json(directory / "config.json"), "Backbone")
    kind, same_task = KINDS[name], _made_for(directory)[0] == task
    if same_task and task in kind.unlike:
        raise ValueError(f"{directory}: {name}{task} cannot be read: {kind.unlike[task]}.")
    tensors = Tensors(directory, task=same_task and task in kind.heads)
    rows = {**embedded(untied=not config.tie_embeddings and UNTIED in tensors), **kind.rows(config)}
    for stack, block in kind.blocks.items():
        rows |= block.rows(stack, config)
    if same_task:
        rows |= kind.heads.get(task, {})
    return weights.load(tensors, rows, targets, ignore=_IGNORE, optional=_OPTIONAL, source=str(directory))
