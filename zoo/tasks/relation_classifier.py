"""RelationClassifier: what two entities of a text have to do with each other."""

import json
import warnings

import keras
import numpy as np
from keras import ops

from zoo import pretrained
from zoo import weights as tables
from zoo.checkpoint import Checkpoint, read_json, write, write_text
from zoo.families.heads import plain
from zoo.families.rows import linear
from zoo.loading import entry_of, load, weights
from zoo.tasks.downstream import Classifier
from zoo.tasks.task import is_text

MARKERS = ("@", "@", "#", "#")
_FOLDER = "relation"  # of a preset: what is beside the checkpoint


@keras.saving.register_keras_serializable("zoo")
class RelationClassifier(Classifier):
    """A backbone with a classifier on the states of the marks before two entities (Baldini Soares et al. 2019,
    arXiv 1906.03158, section 3.2, "entity markers, entity start").

    Called on the batch dictionary with `mask_positions` (b, 2), the places of the two marks; returns logits
    (b, num_classes), float32. `fit`, `evaluate` and `predict` take a tuple of texts, heads and tails: for each text the
    (start, end) in characters of its two entities, end excluded. Labels are numbers or names (b,).

    Args:
        backbone: an encoder or decoder `Backbone`.
        tokenizer: a `Tokenizer`, for raw text.
        num_classes, labels: number of relations, or their names in order.
        markers: what is written before and after the head, and before and after the tail. Any text will do, so that
            no token need be added; tokens of their own, as in the paper, do where the tokenizer has them.

    Example:

    ```python
    from zoo import BERTBackbone, RelationClassifier, Tokenizer

    texts, heads, tails = ["Ada wrote the notes"] * 4, [(0, 3)] * 4, [(14, 19)] * 4
    tokenizer = Tokenizer.train([*texts, "@ # @ #"], kind="wordpiece", vocabulary_size=100)
    backbone = BERTBackbone(vocabulary_size=tokenizer.vocabulary_size, num_layers=1, num_heads=2, hidden_dim=16,
                            intermediate_dim=32, max_sequence_length=32)
    model = RelationClassifier(backbone, tokenizer, labels=["author", "none"])
    model.fit((texts, heads, tails), ["author"] * 4, verbose=0)
    model.relate(texts[0], heads[0], tails[0])  # {"author": 0.9…, "none": 0.0…}
    ```
    """

    architectures = ("encoder", "decoder")
    default_name = "relation_classifier"
    settings = ("num_classes", "labels", "markers")
    preset_task = "Backbone"

    def configure(self, num_classes=None, labels=None, markers=MARKERS):
        super().configure(num_classes, labels)
        if len(markers) != 4 or not is_text(list(markers)) or not all(mark.strip() for mark in markers):
            raise ValueError(f"markers must be four texts, got {markers!r}.")
        self.markers, self.spec = tuple(markers), plain("RelationClassifier", self.config)

    def build(self, input_shape=None):
        """Creates the head's variables, for two states side by side."""
        self.head.build((None, 2 * self.config.output_dim))
        self.built = True

    def call(self, inputs, training=False):
        inputs = dict(inputs)
        places = ops.cast(inputs.pop("mask_positions"), "int32")[..., None]
        states = ops.take_along_axis(self.backbone(inputs, training=training), places, axis=1)
        return self.head(ops.reshape(states, (-1, 2 * states.shape[-1])), training=training)

    def check(self, inputs):
        if isinstance(inputs, dict) and tuple(inputs.get("mask_positions", np.empty(0)).shape[1:]) != (2,):
            raise ValueError("RelationClassifier needs mask_positions (batch, 2): the places of the two marks.")
        super().check(inputs)

    def is_raw(self, x):
        return isinstance(x, tuple) and len(x) == 3 and is_text(x[0]) and not is_text(x[1])

    def inputs_of(self, x):
        if not self.is_raw(x):
            return super().inputs_of(x)
        texts, heads, tails = x
        if not len(texts) == len(heads) == len(tails):
            raise ValueError(f"{len(texts)} texts do not go with {len(heads)} heads and {len(tails)} tails.")
        marked, places = zip(*(self._marked(i, *row) for i, row in enumerate(zip(texts, heads, tails))))
        batch = self.without_types(self.tokenized(list(marked)))
        encodings = self.tokenizer.encode_with_offsets(list(marked), max_length=self.length_limit)
        rows = enumerate(zip(encodings, places))
        found = [[self._token(i, encoding, place) for place in pair] for i, (encoding, pair) in rows]
        batch["mask_positions"] = np.array(found, "int32")
        self.check(batch)
        return batch

    def _marked(self, i, text, head, tail):
        """A text with its marks, and the characters at which those before the entities begin."""
        marks = []
        for (start, end), before, after in ((head, *self.markers[:2]), (tail, *self.markers[2:])):
            if not 0 <= start < end <= len(text):
                raise ValueError(f"Text {i} has {len(text)} characters, and an entity at {(start, end)}.")
            marks += [(start, 1, f"{before} ", len(marks)), (end, 0, f" {after}", len(marks))]
        found, done, places = "", 0, {}
        for at, opens, mark, number in sorted(marks):  # at one place what closes comes before what opens
            found += text[done:at]
            if opens:
                places[number] = len(found)
            found, done = found + mark, at
        return found + text[done:], [places[number] for number in sorted(places)]

    def _token(self, i, encoding, place):
        """The first token that reaches beyond a character."""
        for position, ((_, end), owner) in enumerate(zip(encoding.offsets, encoding.sequence_ids)):
            if owner is not None and end > place:
                return position
        raise ValueError(f"An entity of text {i} is beyond the {self.length_limit} tokens that texts are cut to.")

    def relate(self, texts, heads, tails, **kwargs):
        """A dictionary, relation -> probability; for lists a list of them.

        Args:
            texts, heads, tails: a text and two (start, end), or lists of them.
            kwargs: for `predict`.
        """
        if isinstance(texts, str):
            return self.relate([texts], [heads], [tails], **kwargs)[0]
        logits = self.predict((list(texts), list(heads), list(tails)), **{"verbose": 0, **kwargs})
        rows = ops.convert_to_numpy(ops.softmax(logits))
        return [dict(zip(self.labels, map(float, row))) for row in rows]

    def labels_of(self, x, y):
        """One number a text, from names too."""
        return super().labels_of(x, self.numbered(y))

    def get_config(self):
        config = super().get_config()
        del config["head"]
        return {**config, "markers": list(self.markers)}

    @classmethod
    def read_settings(cls, path, hf, backbone, given):
        file = path / _FOLDER / "relation.json"
        return {**(read_json(file) if file.is_file() and not {"labels", "num_classes"} & given.keys() else {}), **given}

    def load_preset(self, path, family, hf):
        report = load(self.backbone, path, family, self.config, "Backbone", family.task_of(hf))
        own = self._own_weights()
        if (path / _FOLDER).is_dir() and read_json(path / _FOLDER / "relation.json")["labels"] == list(self.labels):
            targets = {name: (tuple(v.shape), v.assign) for name, v in own.items()}
            tables.load(Checkpoint(path / _FOLDER), linear("head/out", "classifier"), targets, source=str(path))
        else:
            warnings.warn(f"{path} has no weights for {', '.join(own)}: left at random.", stacklevel=3)
            report.random_heads.extend(own)
        return report

    def save_to_preset(self, directory, dtype=None, max_shard_size=5_000_000_000):
        """Writes the backbone as `transformers.AutoModel` opens it, and the head in a folder of its own."""
        entry, own = entry_of(self.backbone), weights(self.backbone)
        pretrained.save(directory, entry, self.config, "Backbone", own, _Beside(self), dtype=dtype,
                        max_shard_size=max_shard_size)  # fmt: skip

    def _own_weights(self):
        return {name: v for name, v in weights(self).items() if name.startswith("head/")}


class _Beside:
    """What a preset holds beside the checkpoint."""

    def __init__(self, task):
        self.task = task

    def save(self, directory):
        task, folder = self.task, directory / _FOLDER
        if task.tokenizer is not None:
            task.tokenizer.save(directory)
        folder.mkdir()
        write(folder, tables.theirs(linear("head/out", "classifier"), task._own_weights(), None))
        said = {"labels": list(task.labels), "markers": list(task.markers)}
        write_text(folder / "relation.json", json.dumps(said, indent=1) + "\n")
