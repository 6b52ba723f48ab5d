"""TextEmbedder: one vector a text, near to those of texts that mean the same."""

import warnings

import keras
import numpy as np
from keras import ops

from zoo import backend, sharding
from zoo import weights as files
from zoo.checkpoint import Checkpoint
from zoo.families.rows import linear
from zoo.generation.loop import padded
from zoo.loading import entry_of, load, save, weights
from zoo.tasks import sentence_files
from zoo.tasks.downstream import Downstream, is_pair
from zoo.tasks.multiple_choice import rows_of, tokenized_groups
from zoo.tasks.task import is_text

_POOLINGS = ("first", "last", "mean", "max")
_DENSE = {"units": None, "activation": "tanh", "bias": True}


def is_triple(x):
    """Whether x is a tuple of three lists of strings: texts, those near to them and those far from them."""
    return isinstance(x, tuple) and len(x) == 3 and is_pair(x[:2]) and is_pair(x[1:])


@keras.saving.register_keras_serializable("zoo")
class CosineSimilarityError(keras.losses.Loss):
    """Squared error of the cosine between two vectors (b, 2, d) against a score (b,) (Reimers & Gurevych 2019)."""

    def __init__(self, name="loss", reduction="mean_with_sample_weight", **kwargs):
        super().__init__(name=name, reduction=reduction, **kwargs)

    def call(self, y_true, y_pred):
        first, second = (ops.normalize(y_pred[:, i], axis=-1) for i in range(2))
        return ops.square(ops.sum(first * second, axis=-1) - ops.cast(y_true, y_pred.dtype))


@keras.saving.register_keras_serializable("zoo")
class InBatchContrast(keras.losses.Loss):
    """Cross-entropy of telling a text's partner from those of the other texts in the batch, by cosines.

    -log(exp(cos(h_i, h'_i) / T) / sum_j exp(cos(h_i, h'_j) / T)) for vectors (b, 2, d); for (b, 3, d) the sum has the
    third vectors of all rows too, which are hard negatives. The labels are not looked at.

    Args:
        temperature: T.

    Source: Gao et al. 2021 (SimCSE), arXiv 2104.08821, equations 1 and 5.
    """

    compares_rows = True

    def __init__(self, temperature=0.05, name="loss", reduction="mean_with_sample_weight", **kwargs):
        super().__init__(name=name, reduction=reduction, **kwargs)
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature!r}.")
        self.temperature = temperature

    def call(self, y_true, y_pred):
        first, *others = (ops.normalize(y_pred[:, i], axis=-1) for i in range(y_pred.shape[1]))
        logits = ops.matmul(first, ops.transpose(ops.concatenate(others, axis=0))) / self.temperature
        return -ops.diagonal(ops.log_softmax(logits, axis=-1))

    def get_config(self):
        return {**super().get_config(), "temperature": self.temperature}


@keras.saving.register_keras_serializable("zoo")
class TripletLoss(keras.losses.Loss):
    """max(0, |a - p| - |a - n| + margin) for vectors (b, 3, d): an anchor, a positive, a negative, Euclidean distances.

    The labels are not looked at.

    Args:
        margin: by how much the negative should be farther away.

    Source: Reimers & Gurevych 2019, arXiv 1908.10084, section 3.
    """

    def __init__(self, margin=1.0, name="loss", reduction="mean_with_sample_weight", **kwargs):
        super().__init__(name=name, reduction=reduction, **kwargs)
        self.margin = margin

    def call(self, y_true, y_pred):
        anchor = y_pred[:, 0]
        near, far = (ops.sqrt(ops.sum(ops.square(anchor - y_pred[:, i]), axis=-1) + 1e-12) for i in (1, 2))
        return ops.relu(near - far + self.margin)

    def get_config(self):
        return {**super().get_config(), "margin": self.margin}


@keras.saving.register_keras_serializable("zoo")
class TextEmbedder(Downstream):
    """A backbone, pooling, and perhaps a dense layer and normalisation, as sentence-transformers stacks them.

    Called on the batch dictionary; returns (b, d), float32; on arrays (b, n, t) it returns (b, n, d). `fit` takes two
    lists of texts and a score in [-1, 1] for each pair, the cosine that their vectors should have; compiled with
    `loss=InBatchContrast()` it learns from pairs alone, or from three lists, the last of hard negatives, as it does
    with `loss=TripletLoss()`.

    Args:
        backbone: an encoder or decoder `Backbone`; of an encoder-decoder, its encoder alone.
        tokenizer: a `Tokenizer`, for raw text.
        pooling: "mean", "first", "last" or "max" of the tokens; None: "last" for decoders, else "mean".
        normalize: whether vectors have length 1.
        dense: dictionary with `units`, and perhaps `activation` ("tanh", "relu", "gelu", "linear") and `bias`, of a
            layer after pooling; None: there is none.
        max_length: tokens that texts are cut to; None: what the model can take.
        lowercase: whether texts are lower-cased first.
        prompt: what is put before each text.

    Example:

    ```python
    from zoo import BERTBackbone, TextEmbedder, Tokenizer

    texts = ["a cat on a mat", "a kitten on a rug"]
    tokenizer = Tokenizer.train(texts, kind="wordpiece", vocabulary_size=100)
    backbone = BERTBackbone(vocabulary_size=tokenizer.vocabulary_size, num_layers=1, num_heads=2, hidden_dim=16,
                            intermediate_dim=32, max_sequence_length=16)
    embedder = TextEmbedder(backbone, tokenizer, normalize=True)
    vectors = embedder.embed(texts)  # (2, 16), float32
    vectors @ vectors.T              # cosines
    ```
    """

    architectures = ("encoder", "decoder")
    default_name = "text_embedder"
    settings = ("pooling", "normalize", "dense", "max_length", "lowercase", "prompt")

    def configure(self, pooling=None, normalize=False, dense=None, max_length=None, lowercase=False, prompt=""):
        if pooling not in (None, *_POOLINGS):
            raise ValueError(f"pooling must be one of {', '.join(_POOLINGS)}, got {pooling!r}.")
        if max_length is not None and (type(max_length) is not int or max_length < 1):
            raise ValueError(f"max_length must be a positive integer, got {max_length!r}.")
        head = {"pool": pooling} if pooling else {}
        if dense is not None:
            dense = {**_DENSE, **dense}
            if dense.keys() != _DENSE.keys() or type(dense["units"]) is not int or dense["units"] < 1:
                raise ValueError(f"dense must have units and perhaps activation and bias, got {dense!r}.")
            head |= {"dense": "linear", "units": dense["units"], "activation": dense["activation"],
                     "dense_bias": dense["bias"]}  # fmt: skip
        super().configure(head)
        self.options = {"pooling": self.spec.pool, "normalize": normalize, "dense": dense, "max_length": max_length,
                        "lowercase": lowercase, "prompt": prompt}  # fmt: skip

    @property
    def length_limit(self):
        return min((n for n in (self.options["max_length"], super().length_limit) if n), default=None)

    def call(self, inputs, training=False):
        shape = inputs["token_ids"].shape
        x = super().call(rows_of(inputs) if len(shape) == 3 else inputs, training=training)
        x = ops.normalize(x, axis=-1) if self.options["normalize"] else x
        return ops.reshape(x, (-1, shape[1], x.shape[-1])) if len(shape) == 3 else x

    def make_loss(self):
        return CosineSimilarityError()

    def make_metrics(self):
        return []

    def check(self, inputs):
        paired = isinstance(inputs, dict) and "token_ids" in inputs and len(inputs["token_ids"].shape) == 3
        super().check(rows_of(inputs) if paired else inputs)

    def tokenized(self, texts, **kwargs):
        """See `Task.tokenized`; the prompt comes first."""
        texts = [self.options["prompt"] + text for text in texts]
        return super().tokenized([t.lower() for t in texts] if self.options["lowercase"] else texts, **kwargs)

    def is_raw(self, x):
        return is_triple(x) or super().is_raw(x)

    def inputs_of(self, x):
        if is_pair(x) or is_triple(x):
            if len({len(part) for part in x}) > 1:
                raise ValueError(f"{len(x[0])} first texts do not go with {len(x[1])} second texts.")
            x = tokenized_groups(self, list(zip(*x)))
        return super().inputs_of(x)

    def prepare(self, x, y=None):
        """Texts, scores or None to (x, scores, no weights); without scores these are 0, which some losses overlook."""
        if y is None and isinstance(self.loss, InBatchContrast | TripletLoss):
            x = self.inputs_of(x)
            return x, np.zeros(len(x["token_ids"]), "float32"), None
        return super().prepare(x, y)

    def labels_of(self, x, y):
        y = np.asarray(y)
        if y.shape != (len(x["token_ids"]),):
            raise ValueError(f"Scores of shape {y.shape} do not go with {len(x['token_ids'])} pairs of texts.")
        if y.dtype.kind not in "iuf" or (y.size and not -1 <= y.min() <= y.max() <= 1):
            raise ValueError(f"Scores are cosines between -1 and 1, got {y.min()!r} to {y.max()!r}.")
        return y.astype("float32")

    def embed(self, texts, batch_size=32, normalize=None):
        """Vectors of texts.

        Args:
            texts: a text, or a list of texts.
            batch_size: texts computed at a time, those of similar length together.
            normalize: whether vectors have length 1; None: as the model says.

        Returns:
            A float32 array (number of texts, d), or (d,) for one text.
        """
        if not is_text(texts):
            raise ValueError(f"embed takes a text or a list of texts, got {type(texts).__name__}.")
        rows = [texts] if isinstance(texts, str) else list(texts)
        order, found = np.argsort([-len(text) for text in rows], kind="stable"), None
        for start in range(0, len(rows), batch_size):
            chosen = order[start : start + batch_size]
            vectors = self._vectors(self._padded([rows[i] for i in chosen], min(batch_size, len(rows))))
            found = np.empty((len(rows), vectors.shape[1]), "float32") if found is None else found
            found[chosen] = vectors[: len(chosen)]
        if self.options["normalize"] if normalize is None else normalize:
            found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return found[0] if isinstance(texts, str) else found

    def _padded(self, texts, count):
        """The batch dictionary of `count` rows and of a bucket's length, so that few programs are compiled."""
        return padded(self.inputs_of(texts + texts[-1:] * (count - len(texts))), self.length_limit)

    def _vectors(self, x):
        program = self.__dict__.get("_embed_program")
        if program is None:
            run = lambda inputs: sharding.everywhere(Downstream.call(self, inputs))  # noqa: E731
            program = self.__dict__["_embed_program"] = backend.compiled(run, self.variables)
        return ops.convert_to_numpy(program({key: sharding.placed(value) for key, value in x.items()}))

    def get_config(self):
        config = super().get_config()
        del config["head"]
        return {**config, **self.options}

    @classmethod
    def read_settings(cls, path, hf, backbone, given):
        return {**sentence_files.read(path)[0], **given}

    def load_preset(self, path, family, hf):
        report = load(self.backbone, path, family, self.config, type(self).__name__, family.task_of(hf))
        targets = {name: (tuple(v.shape), v.assign) for name, v in self._own_weights().items()}
        held = sentence_files.read(path)[1]
        if targets and held is None:
            warnings.warn(f"{path} has no weights for {', '.join(targets)}: left at random.", stacklevel=3)
            report.random_heads.extend(targets)
        elif targets:
            files.load(Checkpoint(held), self._dense_rows(), targets, source=str(held))
        return report

    def save_to_preset(self, directory, dtype=None, max_shard_size=5_000_000_000):
        """Writes a preset that `sentence_transformers.SentenceTransformer` and `transformers.AutoModel` open too."""
        entry, kind = entry_of(self.backbone), type(self).__name__
        kind = kind if kind in entry.architectures else "Backbone"
        save(self.backbone, directory, entry, kind, _Beside(self, dtype), dtype=dtype,
             max_shard_size=max_shard_size)  # fmt: skip

    def _own_weights(self):
        """Those beside the backbone's, by name."""
        return {name: v for name, v in weights(self).items() if name.startswith("head/")}

    def _dense_rows(self):
        return linear("head/dense", "linear", self.spec.dense_bias)


class _Beside:
    """What a preset holds beside the checkpoint: the tokenizer's files and those of sentence-transformers."""

    def __init__(self, task, dtype):
        self.task, self.dtype = task, dtype

    def save(self, directory):
        task, dtype = self.task, np.dtype(self.dtype) if self.dtype else None
        if task.tokenizer is not None:
            task.tokenizer.save(directory)
        dense = dict(files.theirs(task._dense_rows(), task._own_weights(), dtype))
        sentence_files.write_modules(directory, task.config.output_dim, task.options, dense)
