"""TextClassifier: one label, several labels, or numbers, for a text or a pair of texts."""

import keras
import numpy as np
from keras import ops

from zoo.tasks.downstream import Classifier, whole_numbers
from zoo.tasks.task import is_text

PROBLEMS = ("single_label_classification", "multi_label_classification", "regression")


@keras.saving.register_keras_serializable("zoo")
class TextClassifier(Classifier):
    """A backbone with the classification head of its family (Devlin et al. 2019, section 4.1).

    Called on the batch dictionary; returns logits (b, num_classes), float32. `fit`, `evaluate` and `predict` take
    texts, a tuple of two lists (first and second texts), or the dictionary. Labels are whole numbers or names (b,);
    with `multi_label_classification` 0/1 (b, num_classes) or a list of names a text; with `regression` numbers (b,) or
    (b, num_classes).

    Args:
        backbone: a `Backbone` of any shape.
        tokenizer: a `Tokenizer`, for raw text.
        num_classes, labels: number of outputs, or their names in order.
        problem_type: one of `PROBLEMS`; None: regression for one output, else a single label.
        head: dictionary of what differs from the family's head, such as `{"dropout": 0.0}`.

    Raises:
        ValueError: labels that do not fit, or the like; the message says which.

    Example:

    ```python
    from zoo import BERTBackbone, TextClassifier, Tokenizer

    texts, labels = ["a fine film", "a dull film"] * 4, ["good", "bad"] * 4
    tokenizer = Tokenizer.train(texts, kind="wordpiece", vocabulary_size=100)
    backbone = BERTBackbone(vocabulary_size=tokenizer.vocabulary_size, num_layers=1, num_heads=2, hidden_dim=16,
                            intermediate_dim=32, max_sequence_length=16)
    classifier = TextClassifier(backbone, tokenizer, labels=["bad", "good"])
    classifier.fit(texts, labels, verbose=0)
    classifier.classify("a fine film")  # [{"bad": 0.4…, "good": 0.5…}]
    ```
    """

    default_name = "text_classifier"
    settings = ("num_classes", "labels", "problem_type", "head")

    def configure(self, num_classes=None, labels=None, problem_type=None, head=None):
        super().configure(num_classes, labels, head)
        one = len(self.labels) == 1
        self.problem_type = problem_type or ("regression" if one else "single_label_classification")
        if self.problem_type not in PROBLEMS:
            raise ValueError(f"problem_type must be one of {PROBLEMS}, got {problem_type!r}.")
        if one and self.problem_type == "single_label_classification":
            raise ValueError("One class leaves nothing to tell apart: give num_classes=2 or problem_type='regression'.")

    def make_loss(self):
        reduction = {"reduction": "mean_with_sample_weight", "name": "loss"}
        if self.problem_type == "regression":
            return keras.losses.MeanSquaredError(**reduction)
        if self.problem_type == "multi_label_classification":
            return keras.losses.BinaryCrossentropy(from_logits=True, **reduction)
        return super().make_loss()

    def make_metrics(self):
        if self.problem_type == "regression":
            return [keras.metrics.MeanAbsoluteError(name="mae")]
        if self.problem_type == "multi_label_classification":
            return [keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)]
        return super().make_metrics()

    def labels_of(self, x, y):
        count = len(x["token_ids"])
        if len(y) != count:
            raise ValueError(f"{len(y)} labels do not go with {count} texts.")
        if self.problem_type == "single_label_classification":
            return whole_numbers(self.numbered(y), (count,), len(self.labels))
        if self.problem_type == "multi_label_classification" and all(is_text(row) or len(row) == 0 for row in y):
            y = self._indicators(y)
        y = np.asarray(y)
        if y.dtype.kind not in "iubf" or y.size != count * len(self.labels):
            raise ValueError(f"Labels must be {len(self.labels)} numbers a text, got {y.dtype} of shape {y.shape}.")
        y = y.reshape(count, -1).astype("float32")
        if self.problem_type == "multi_label_classification" and not np.isin(y, (0, 1)).all():
            raise ValueError("Labels of several at a time must be 0 or 1 for each, or lists of names.")
        return y

    def _indicators(self, rows):
        y = np.zeros((len(rows), len(self.labels)), "float32")
        for i, row in enumerate(rows):
            y[i, self.numbered(list(row)) if len(row) else []] = 1
        return y

    def classify(self, x, **kwargs):
        """A dictionary a text: label -> probability, or for regression label -> number.

        Args:
            x: a text, texts, a pair of lists, or the dictionary.
            kwargs: for `predict`.
        """
        logits = self.predict(x, **{"verbose": 0, **kwargs})
        squash = {"regression": lambda v: v, "multi_label_classification": ops.sigmoid}
        values = ops.convert_to_numpy(squash.get(self.problem_type, ops.softmax)(logits))
        return [dict(zip(self.labels, map(float, row))) for row in values]

    def get_config(self):
        return {**super().get_config(), "problem_type": self.problem_type}

    @classmethod
    def read_settings(cls, path, hf, backbone, given):
        settings = super().read_settings(path, hf, backbone, given)
        if "labels" in settings and hf.get("problem_type"):
            settings.setdefault("problem_type", hf["problem_type"])
        return settings

    def write_settings(self):
        return {**super().write_settings(), "problem_type": self.problem_type}
