"""What the downstream tasks share: a head that the family describes, pairs of texts, and decoders that read the text.

`Downstream` adds a `TaskHead` to a backbone; `Classifier` adds labels to that. They know no family by name.
"""

import dataclasses
import warnings

import numpy as np
from keras import ops

from zoo import families
from zoo.families.heads import of as head_of
from zoo.tasks.heads import TaskHead
from zoo.tasks.task import Task, is_text


def is_pair(x):
    """Whether x is a tuple of two lists of strings: first texts and second texts."""
    return isinstance(x, tuple) and len(x) == 2 and all(is_text(part) and not isinstance(part, str) for part in x)


class Downstream(Task):
    """Base of the tasks with a head of their own on a backbone's hidden states.

    Args:
        backbone: a `Backbone`.
        tokenizer: a `Tokenizer`, needed for raw text only.
        head: dictionary of what differs from the family's head, see `zoo.families.heads.HeadSpec`, such as
            `{"dropout": 0.0}`.
        name: name of the model.
    """

    architectures = ("encoder", "decoder", "encoder_decoder")
    settings = ("head",)
    outputs = 1  # how many numbers the last layer gives
    labels_are_by_token = False

    def configure(self, head=None):
        backbone, kind = self.backbone, type(self).__name__
        entry = families.by_name(backbone.family) if backbone.family else None
        self.changes = dict(head or {})
        known = [field.name for field in dataclasses.fields(families.heads.HeadSpec)]
        if unknown := sorted(self.changes.keys() - set(known)):
            raise ValueError(f"A head has no {unknown[0]!r}; it has {', '.join(known)}.")
        self.spec = dataclasses.replace(head_of(entry, self.config, kind), **self.changes)
        if self.config.architecture == "encoder_decoder" and self.spec.start is None:
            raise ValueError("The config has no decoder_start_token_id: build the backbone with one.")

    def make_head(self):
        return TaskHead(self.config, self.spec, self.outputs, name="head", dtype=self.dtype_policy)

    def __call__(self, inputs, **kwargs):
        return super().__call__(self.completed(inputs), **kwargs)

    def call(self, inputs, training=False):
        return self.head(self.backbone(inputs, training=training), training=training, **self.marks(inputs))

    def marks(self, inputs):
        """Which tokens are text, and which end it: what pooling goes by."""
        seen, end = inputs.get("padding_mask"), self.spec.end
        if seen is None and inputs.get("segment_ids") is not None:
            seen = ops.not_equal(inputs["segment_ids"], 0)
        return {"seen": seen, "ends": None if end is None else ops.equal(inputs["token_ids"], end)}

    def completed(self, inputs):
        """An encoder-decoder reads the text again, moved right by one, where a batch has no decoder tokens."""
        if self.config.architecture != "encoder_decoder" or not isinstance(inputs, dict):
            return inputs
        ids = inputs.get("token_ids")
        if ids is None or "decoder_token_ids" in inputs or len(ids.shape) != 2:
            return inputs
        lib = np if isinstance(ids, np.ndarray) else ops
        if self.spec.start == "last":
            seen = inputs.get("padding_mask")
            last = lib.sum(lib.ones_like(ids) if seen is None else seen, axis=1, keepdims=True) - 1
            first = lib.take_along_axis(ids, last, axis=1)
        else:
            first = lib.full_like(ids[:, :1], self.spec.start)
        return {**inputs, "decoder_token_ids": lib.concatenate([first, ids[:, :-1]], axis=1)}

    def check(self, inputs):
        super().check(inputs)
        segments, ids = inputs.get("segment_ids"), inputs["token_ids"]
        if self.spec.pool is None:
            return
        if isinstance(segments, np.ndarray) and segments.max(initial=0) > 1:
            raise ValueError(f"segment_ids packs several texts a row, but {type(self).__name__} reads one.")
        if self.spec.end is not None and isinstance(ids, np.ndarray) and not (ids == self.spec.end).any(axis=1).all():
            row = np.flatnonzero(~(ids == self.spec.end).any(axis=1))[0]
            raise ValueError(
                f"Row {row} of token_ids does not hold the end of text {self.spec.end}, from which "
                f"{type(self).__name__} reads its output: encode texts with special tokens."
            )

    def is_raw(self, x):
        return is_text(x) or is_pair(x)

    def inputs_of(self, x):
        """Texts, or a pair of lists of texts, to the batch dictionary."""
        if is_pair(x):
            firsts, seconds = (list(part) for part in x)
            if len(firsts) != len(seconds):
                raise ValueError(f"{len(firsts)} first texts do not go with {len(seconds)} second texts.")
            x = self.tokenized(firsts, pairs=seconds)
        elif is_text(x):
            x = self.tokenized([x] if isinstance(x, str) else list(x))
        return super().inputs_of(self.completed(x))

    def tokenized(self, texts, **kwargs):
        """See `Task.tokenized`; sentence types that the model does not tell apart are left out."""
        return self.without_types(super().tokenized(texts, **kwargs))

    def without_types(self, batch):
        """A batch without sentence types that the model does not tell apart."""
        table = getattr(self.backbone.encoder, "token_type", None)
        if table is None or table.input_dim < 2:
            batch.pop("token_type_ids", None)
        return batch

    def _prepared(self, x, y=None, sample_weight=None):
        if self.labels_are_by_token and isinstance(x, dict) and y is not None and sample_weight is None:
            seen = x.get("padding_mask", x.get("segment_ids"))  # padding has no label
            sample_weight = None if seen is None else (np.asarray(seen) > 0).astype("float32")
        return super()._prepared(x, y, sample_weight)

    def prepare(self, x, y=None):
        """Texts and labels to (x, y, no weights)."""
        if y is None:
            raise ValueError(f"{type(self).__name__} needs labels: fit(x, y).")
        x = self.inputs_of(x)
        return x, self.labels_of(x, y), None

    def labels_of(self, x, y):
        """One whole number a text, each below the number of outputs."""
        return whole_numbers(y, (len(x["token_ids"]),), self.outputs)

    def get_config(self):
        return {**super().get_config(), "head": dict(self.changes)}

    @classmethod
    def read_settings(cls, path, hf, backbone, given):
        spec = head_of(families.by_name(backbone.family), backbone.config, cls.__name__)
        try:
            return {**given, "head": {**spec.read(hf), **(given.get("head") or {})}}
        except ValueError as error:
            raise ValueError(f"{path / 'config.json'}: {error}") from None

    def write_settings(self):
        return self.spec.write()


def whole_numbers(y, shape, size, what="label"):
    """Labels as an int32 array.

    Raises:
        ValueError: another number of them than inputs, something else than integers, or one outside 0 … size - 1.
    """
    y = np.asarray(y)
    if y.shape != tuple(shape):
        if y.ndim == len(shape) == 1:
            raise ValueError(f"{len(y)} {what}s do not go with {shape[0]} texts.")
        raise ValueError(f"{what}s have shape {y.shape}, the inputs need {tuple(shape)}.".capitalize())
    if y.dtype.kind not in "iub":
        raise ValueError(f"{what}s must be whole numbers, got {y.dtype}.".capitalize())
    if y.size and (y.min() < 0 or y.max() >= size):
        wrong = y.min() if y.min() < 0 else y.max()
        raise ValueError(f"The {what} {wrong} is outside 0 to {size - 1}.")
    return y.astype("int32")


class Classifier(Downstream):
    """Base of the tasks with labels.

    Args:
        num_classes: how many labels there are.
        labels: their names in the order of their numbers; numbers alone are `LABEL_0`, `LABEL_1`, … as in
            `transformers`.
        backbone, tokenizer, head, name: as in `Downstream`.
    """

    settings = ("num_classes", "labels", "head")

    def configure(self, num_classes=None, labels=None, head=None):
        kind = type(self).__name__
        if labels is None and num_classes is None:
            raise ValueError(f"{kind} needs num_classes, or labels, a list of their names.")
        if labels is None:
            if type(num_classes) is not int or num_classes < 1:
                raise ValueError(f"num_classes must be a positive integer, got {num_classes!r}.")
            labels = [f"LABEL_{i}" for i in range(num_classes)]
        if num_classes not in (None, len(labels)):
            raise ValueError(f"num_classes={num_classes} does not go with {len(labels)} labels.")
        if not is_text(list(labels)) or len(set(labels)) != len(labels):
            raise ValueError(f"labels must be different strings, got {list(labels)!r}.")
        self.labels = tuple(labels)
        super().configure(head)

    @property
    def outputs(self):
        return len(self.labels)

    @property
    def num_classes(self):
        """Number of labels."""
        return len(self.labels)

    @property
    def id2label(self):
        """Number -> name."""
        return dict(enumerate(self.labels))

    @property
    def label2id(self):
        """Name -> number."""
        return {label: i for i, label in enumerate(self.labels)}

    def numbered(self, y):
        """Labels with their names replaced by their numbers."""
        if not is_text(y):
            return y
        known = self.label2id
        if unknown := [label for label in y if label not in known]:
            raise ValueError(f"The label {unknown[0]!r} is none of {', '.join(map(repr, self.labels[:20]))}.")
        return np.array([known[label] for label in y], "int32")

    def get_config(self):
        return {**super().get_config(), "labels": list(self.labels)}

    @classmethod
    def read_settings(cls, path, hf, backbone, given):
        settings = super().read_settings(path, hf, backbone, given)
        stored = stored_labels(path, hf)
        made_for = families.by_name(backbone.family).task_of(hf)
        wanted = len(given["labels"]) if given.get("labels") else given.get("num_classes")
        if made_for == cls.__name__ and wanted not in (None, len(stored)):
            raise ValueError(
                f"{path} has a head for {len(stored)} labels ({', '.join(stored[:20])}), not for {wanted}: build a "
                f"{cls.__name__} with a new one on Backbone.from_preset."
            )
        if made_for == cls.__name__ and given.get("labels"):
            _check_names(path, stored, list(given["labels"]))
        if wanted is None and made_for not in (cls.__name__, None):
            raise ValueError(f"{path} was made for another task, so {cls.__name__} needs num_classes, or labels.")
        if not given.get("labels") and wanted in (None, len(stored)):
            settings["labels"] = stored
        return settings

    def write_settings(self):
        numbers = {str(i): label for i, label in enumerate(self.labels)}
        return {**super().write_settings(), "id2label": numbers, "label2id": self.label2id}


def _check_names(path, stored, given):
    """What a head learnt as one label must not silently come out as another."""
    if sorted(stored) == sorted(given) and stored != given:
        raise ValueError(f"{path} has these labels in another order: give {', '.join(stored[:20])}, or none.")
    if stored != given and not unnamed(stored):
        warnings.warn(f"{path} has a head for the labels {', '.join(stored[:20])}, which are now called "
                      f"{', '.join(map(str, given[:20]))}.", stacklevel=2)  # fmt: skip


def unnamed(labels):
    """Whether labels are those of `transformers` for heads without names."""
    return list(labels) == [f"LABEL_{i}" for i in range(len(labels))]


def stored_labels(path, hf):
    """The names of the labels in a config.json, in the order of their numbers; two unnamed ones where it has none."""
    names, count = hf.get("id2label"), hf.get("num_labels", 2)
    if names is None and type(count) is int and 0 < count < 1_000_000:
        return [f"LABEL_{i}" for i in range(count)]
    try:
        names = {int(number): str(name) for number, name in names.items()}
        return [names[i] for i in range(len(names))]
    except (AttributeError, TypeError, ValueError, KeyError):
        said = f"num_labels={count!r}" if names is None else f"id2label={names!r}"
        raise ValueError(f"{path / 'config.json'}: {said} does not number labels from 0 on.") from None
