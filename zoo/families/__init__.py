"""The families of language models we read and write: data only, one file each, and the registry that finds them."""

import difflib
import importlib

from zoo.families.family import Family

_NAMES = (
    "gpt2", "gptj", "gpt_neox", "opt", "bloom", "falcon", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2",
    "gemma3", "phi", "phi3", "olmo2", "smollm3", "granite", "stablelm",
    "bert", "roberta", "xlm_roberta", "camembert", "distilbert", "albert", "electra", "deberta_v3", "modernbert",
    "mpnet", "nomic_bert",
    "t5", "mt5", "umt5", "bart", "mbart", "pegasus", "marian",
)  # fmt: skip
_FAMILIES = {name: importlib.import_module(f"zoo.families.{name}").FAMILY for name in _NAMES}

__all__ = ["Family", "by_backbone", "by_model_type", "by_name", "families"]


def families():
    """All families, by name."""
    return dict(_FAMILIES)


def by_name(name):
    """The family that recipes call `name`, such as "gpt2"."""
    return _find(_FAMILIES, name, "family")


def by_model_type(model_type):
    """The family that reads a config.json's `model_type`."""
    return _find({kind: f for f in _FAMILIES.values() for kind in f.model_types}, model_type, "model_type")


def by_backbone(name):
    """The family of a backbone class, such as "GPTBackbone"."""
    return _find({family.backbone: family for family in _FAMILIES.values()}, name, "backbone")


def _find(known, name, kind):
    if name in known:
        return known[name]
    near = difflib.get_close_matches(str(name), known, n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise ValueError(f"Unknown {kind} {name!r}: {hint}Known are {', '.join(sorted(known))}.")
