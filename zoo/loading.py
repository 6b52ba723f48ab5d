"""Where Keras models meet preset files: `from_preset`, `save_to_preset`, and the weights by the names of the tables.

Backbones and tasks share it. It knows no layer and no format.
"""

import importlib

import numpy as np
from keras import ops

from zoo import families, pretrained


def weights(model):
    """The weights of a model by their names without the model's own; seeds are left out."""
    named = {v.path.split("/", 1)[1]: v for v in model.variables}
    return {name: v for name, v in named.items() if not name.endswith("seed_generator_state")}


def arrays(model):
    """The weights as numpy arrays by name."""
    return {name: np.asarray(ops.convert_to_numpy(v.value)) for name, v in weights(model).items()}


def load(model, path, family, config):
    """Fills a model from a preset's files."""
    targets = {name: (tuple(v.shape), v.assign) for name, v in weights(model).items()}
    return pretrained.load_weights(path, family, config, targets)


def class_of(family):
    """The public backbone class of a family's entry."""
    return getattr(importlib.import_module("zoo.backbones"), family.backbone)


class LoadableBackbone:
    """Presets for `Backbone`."""

    family = None  # name of the entry in zoo.families

    @classmethod
    def from_preset(cls, preset, *, dtype=None, load_weights=True, **fields):
        """Loads a backbone from a Hugging Face checkpoint.

        Args:
            preset: a name of `zoo.presets()`, a local directory, or "hf://owner/repo[@revision]".
            dtype: a Keras dtype policy.
            load_weights: False for the shape alone, with new weights.
            fields: `Config` fields to change, such as `dropout=0.0`.

        Raises:
            ValueError: an unknown preset, another family than this class's, or weights that do not fit.
        """
        path = pretrained.resolve(preset, weights=load_weights)
        family, config, _ = pretrained.read(path)
        if cls.family not in (None, family.name):
            raise ValueError(f"{preset!r} is a {family.name} model: use {family.backbone} or Backbone.from_preset.")
        backbone = class_of(family)(config, dtype=dtype, **fields)
        if load_weights:
            load(backbone, path, family, backbone.config)
        return backbone

    def save_to_preset(self, directory, tokenizer=None, dtype=None):
        """Writes `config.json` and `model.safetensors`, as `transformers` and `from_preset` read them."""
        pretrained.save(directory, entry_of(self), self.config, "Backbone", arrays(self), tokenizer, dtype=dtype)


def entry_of(backbone):
    """The entry in `zoo.families` of a backbone, or an error for one that has none."""
    if backbone.family is None:
        raise ValueError("This Backbone has no family: build it as a GPTBackbone, BERTBackbone, … to save a preset.")
    return families.by_name(backbone.family)


class LoadableTask:
    """Presets for `Task`."""

    @classmethod
    def from_preset(cls, preset, *, dtype=None, load_weights=True, tokenizer=None, **fields):
        """Loads a task model with its tokenizer from a Hugging Face checkpoint; see `Backbone.from_preset`.

        A head that the checkpoint does not hold stays random, with a warning that names its weights.
        """
        path = pretrained.resolve(preset, weights=load_weights)
        family, config, _ = pretrained.read(path)
        backbone = class_of(family)(config, dtype=dtype, **fields)
        if tokenizer is None and pretrained.has_tokenizer(path):
            from zoo.tokenizers import Tokenizer

            tokenizer = Tokenizer.from_preset(path)
        task = cls(backbone, tokenizer)
        if load_weights:
            load(task, path, family, backbone.config)
        return task

    def save_to_preset(self, directory, dtype=None):
        """Writes config.json, model.safetensors and the tokenizer's files, for `from_preset` and `transformers` alike."""
        entry, name = entry_of(self.backbone), type(self).__name__
        pretrained.save(directory, entry, self.config, name, arrays(self), self.tokenizer, dtype=dtype)
