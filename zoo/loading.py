"""Where Keras models meet preset files: `from_preset`, `save_to_preset`, and the weights by the names of the tables.

Backbones and tasks share it. It knows no layer and no format.
"""

import functools
import gc
import importlib
import tempfile

from zoo import backend, card, families, hub, pretrained, processes, sharding


def weights(model):
    """The weights of a model by their names without the model's own; seeds are left out."""
    named = {v.path.split("/", 1)[1]: v for v in model.variables}
    return {name: v for name, v in named.items() if not name.endswith("seed_generator_state")}


def load(model, path, family, config, task="Backbone", made_for=None):
    """Fills a model from a preset's files; see `zoo.pretrained.load_weights`."""
    targets = {name: (tuple(v.shape), functools.partial(backend.give, v)) for name, v in weights(model).items()}
    return pretrained.load_weights(path, family, config, targets, task, made_for)


def save(model, directory, entry, task, tokenizer, **options):
    """Writes a model's preset; see `zoo.pretrained.save`. All processes bring their parts, and the first writes."""
    held = {name: processes.Whole(v) for name, v in weights(model).items()}
    pretrained.save(directory, entry, model.config, task, held, tokenizer, writes=processes.is_first(), **options)
    processes.barrier("preset")


def class_of(family):
    """The public backbone class of a family's entry."""
    return getattr(importlib.import_module("zoo.backbones"), family.backbone)


def quickly(fn):
    """A function during which nothing is collected: making a model's layers would have every module walked over."""

    @functools.wraps(fn)
    def run(*args, **kwargs):
        enabled = gc.isenabled()
        gc.disable()
        try:
            return fn(*args, **kwargs)
        finally:
            if enabled:
                gc.enable()

    return run


class Pushable:
    """Upload to the Hub, for whatever has `save_to_preset`."""

    def push_to_hub(self, repository, *, private=None, revision=None, message="Upload a preset", license=None,
                    base_model=None, **kwargs):  # fmt: skip
        """Uploads the preset, with a model card, to a repository of the Hugging Face Hub; HF_TOKEN gives the right to.

        Args:
            repository: "owner/repo", made if it is not there.
            private, revision, message: see `zoo.hub.push`.
            license, base_model: for the card, see `zoo.card.write`.
            kwargs: see `save_to_preset`.

        Returns:
            The address of the commit.

        Raises:
            ValueError: a model that cannot be saved, or a Hub that does not take it.
        """
        with tempfile.TemporaryDirectory() as directory:
            self.save_to_preset(directory, **kwargs)
            task = getattr(self, "preset_task", None) or type(self).__name__
            card.write(directory, repository.removeprefix(hub.PREFIX), task, license, base_model)
            return hub.push(directory, repository, private, revision, message)


class LoadableBackbone(Pushable):
    """Presets for `Backbone`."""

    family = None  # name of the entry in zoo.families

    @classmethod
    @quickly
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
        family, config, _ = pretrained.read(path, load_weights)
        if cls.family not in (None, family.name):
            raise ValueError(f"{preset!r} is a {family.name} model: use {family.backbone} or Backbone.from_preset.")
        with backend.uninitialised(load_weights):
            backbone = class_of(family)(config, dtype=dtype, **fields)
        if load_weights:
            load(backbone, path, family, backbone.config)
        return backbone

    def save_to_preset(self, directory, tokenizer=None, dtype=None, max_shard_size=5_000_000_000):
        """Writes `config.json` and `model.safetensors`, as `transformers` and `from_preset` read them.

        Args:
            directory: where to; an older preset there is replaced when all of the new one is written.
            tokenizer: a `Tokenizer` to save beside it.
            dtype: dtype to store, such as "bfloat16"; None for that of the weights.
            max_shard_size: bytes of a file of weights above which another is begun.
        """
        save(self, directory, entry_of(self), "Backbone", tokenizer, dtype=dtype, max_shard_size=max_shard_size)


def entry_of(backbone):
    """The entry in `zoo.families` of a backbone, or an error for one that has none."""
    if backbone.family is None:
        raise ValueError("This Backbone has no family: build it as a GPTBackbone, BERTBackbone, … to save a preset.")
    return families.by_name(backbone.family)


class LoadableTask(Pushable):
    """Presets for `Task`."""

    settings = ()  # names of the arguments that a task adds to its base's
    preset_task = None  # name of the task whose presets it reads and writes, where not its own

    @classmethod
    @quickly
    def from_preset(cls, preset, *, dtype=None, load_weights=True, tokenizer=None, **fields):
        """Loads a task model with its tokenizer from a Hugging Face checkpoint; see `Backbone.from_preset`.

        A head that the checkpoint does not hold stays random, with a warning that names its weights. `fields` may also
        hold the task's own arguments, such as `num_classes`.
        """
        path = pretrained.resolve(preset, weights=load_weights)
        family, config, hf = pretrained.read(path, load_weights)
        given = {name: fields.pop(name) for name in cls.settings if name in fields}
        with backend.uninitialised(load_weights):
            backbone = class_of(family)(family.body(config, cls.preset_task or cls.__name__), dtype=dtype, **fields)
        if tokenizer is None and pretrained.has_tokenizer(path):
            from zoo.tokenizers import Tokenizer

            tokenizer = Tokenizer.from_preset(path)
        settings = cls.read_settings(path, hf, backbone, given)
        with backend.uninitialised(load_weights):
            task = cls(backbone, tokenizer, **settings)
        if load_weights and (new := task.load_preset(path, family, hf).random_heads):
            with sharding.nowhere():
                fresh, held = weights(cls(backbone, tokenizer, **settings)), weights(task)
            for name in new:
                backend.give(held[name], processes.whole(fresh[name].value))
        return task

    @classmethod
    def read_settings(cls, path, hf, backbone, given):
        """The task's own arguments: what the user has `given`, and for the rest what the preset's files say."""
        return given

    def load_preset(self, path, family, hf):
        """Fills the model from a preset's files; returns the `zoo.weights.Report`."""
        return load(self, path, family, self.config, self.preset_task or type(self).__name__, family.task_of(hf))

    def write_settings(self):
        """Keys of config.json for the task's own arguments."""
        return {}

    def write_files(self):
        """Further files of JSON that the task's presets hold, name -> content."""
        return {}

    def save_to_preset(self, directory, dtype=None, max_shard_size=5_000_000_000):
        """Writes config.json, model.safetensors and the tokenizer's files; see `Backbone.save_to_preset`."""
        entry, extra = entry_of(self.backbone), self.write_settings()
        name = self.preset_task or type(self).__name__
        save(self, directory, entry, name, self.tokenizer, dtype=dtype, extra=extra, max_shard_size=max_shard_size,
             files=self.write_files())  # fmt: skip
