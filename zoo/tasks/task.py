"""What all tasks share: raw text or arrays into Keras's loop, compile defaults, presets and saving.

A task is a plain `keras.Model`. It knows the batch dictionary and the tokenizer's methods, no family and no file.
"""

import keras
import numpy as np
from keras import ops

from zoo import pretrained, sharding
from zoo.batch import check_batch
from zoo.loading import LoadableTask
from zoo.nn.head import Head
from zoo.quantization import Quantizable
from zoo.tokenizers import Tokenizer


def is_text(x):
    """Whether x is a string, or a list, tuple or array of strings."""
    if isinstance(x, str):
        return True
    if isinstance(x, np.ndarray):
        return x.dtype.kind == "U" or (x.dtype == object and x.size > 0 and isinstance(x.flat[0], str))
    return isinstance(x, (list, tuple)) and len(x) > 0 and all(isinstance(t, str) for t in x)


class Task(LoadableTask, Quantizable, keras.Model):
    """Base of the task models.

    Args:
        backbone: a `Backbone` of a shape that the task can use.
        tokenizer: a `Tokenizer`, needed for raw text only.
        name: name of the model.
        settings: further arguments of the task, those in its `settings`.
    """

    architectures = ()  # the backbone shapes it can use
    max_length = None  # tokens that texts are cut to; None: what the model can take

    def __init__(self, backbone, tokenizer=None, *, name=None, trainable=True, **settings):
        super().__init__(name=name or self.default_name, dtype=backbone.dtype_policy, trainable=trainable)
        kind = type(self).__name__
        if backbone.config.architecture not in self.architectures:
            raise ValueError(
                f"{kind} needs a backbone that is an {' or '.join(self.architectures)}; "
                f"{type(backbone).__name__} is an {backbone.config.architecture}."
            )
        if tokenizer is not None and tokenizer.vocabulary_size > backbone.config.vocabulary_size:
            raise ValueError(
                f"The tokenizer has {tokenizer.vocabulary_size} tokens, the backbone "
                f"vocabulary_size={backbone.config.vocabulary_size}: build the backbone for this tokenizer."
            )
        self.backbone, self.tokenizer = backbone, tokenizer
        self.configure(**settings)
        self.head = self.make_head()
        self.build()
        sharding.spread(self)
        self.compile()

    def configure(self):
        """Takes a task's `settings`, before the head is made."""

    def make_head(self):
        """The layer on top of the backbone: the vocabulary head, where a task does not say otherwise."""
        return Head(self.config, self.backbone.token, name="head", dtype=self.dtype_policy)

    def build(self, input_shape=None):
        """Creates the head's variables, under the task's own path."""
        self.head.build((None, None, self.config.output_dim))
        self.built = True

    @property
    def config(self):
        """The backbone's `Config`."""
        return self.backbone.config

    def check(self, inputs):
        """Raises a ValueError for a batch that the model cannot take; see `zoo.batch`."""
        check_batch(inputs, self.config)

    def __call__(self, inputs, **kwargs):
        self.check(inputs)
        return super().__call__(inputs, **kwargs)

    def compile(self, optimizer="auto", loss="auto", *, weighted_metrics="auto", **kwargs):
        """Keras's compile with defaults: AdamW at 5e-5 with no decay on biases and norms, the task's loss over the
        valid labels alone, its metrics."""
        if optimizer == "auto":
            optimizer = keras.optimizers.AdamW(5e-5, weight_decay=0.01, name="adamw")
            optimizer.exclude_from_weight_decay(var_names=["bias", "scale"])
        if loss == "auto":
            loss = self.make_loss()
        if weighted_metrics == "auto":
            weighted_metrics = self.make_metrics()
        if isinstance(optimizer, str):
            optimizer = keras.optimizers.get(optimizer)
        if optimizer is not None and not optimizer.built:
            sharding.prepared(optimizer)
        if sharding.pieces() > 1:
            sharding.check_compiled(loss, kwargs.setdefault("jit_compile", False))
        super().compile(optimizer=optimizer, loss=loss, weighted_metrics=weighted_metrics, **kwargs)

    def make_loss(self):
        """The loss of `compile`: cross-entropy, where a task does not say otherwise."""
        # Keras's default reduction divides by padding too.
        return keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction="mean_with_sample_weight", name="loss"
        )

    def make_metrics(self):
        """The weighted metrics of `compile`."""
        return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]

    def compile_from_config(self, config):
        """Called by `keras.models.load_model`, which leaves this to models that override `compile`."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def compute_loss_and_updates(self, trainable_variables, non_trainable_variables, *args, **kwargs):
        """Keras's on JAX, with weights that lie split over the batch's devices gathered where they are used."""
        groups = self.trainable_variables, self.non_trainable_variables
        loss = sharding.gathering(super().compute_loss_and_updates, groups)
        return loss(trainable_variables, non_trainable_variables, *args, **kwargs)

    slices, _per_slice = 1, None  # that a batch's rows pass in, and the labels of an average one while they do

    def make_train_function(self, force=False):
        """Keras's; the replicas of one process on TensorFlow cannot make an optimizer's variables while they trace."""
        if sharding.pieces() > 1 and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        super().make_train_function(force)

    def train_step(self, *args, **kwargs):
        """Keras's, where gradients of pieces of a batch are averaged before weights are moved."""
        with sharding.together(self):
            return self.step(*args, **kwargs)

    def test_step(self, *args, **kwargs):
        """Keras's."""
        with sharding.together(self):
            return super().test_step(*args, **kwargs)

    def predict_on_batch(self, x):
        """Keras's; refused where each of several devices would predict all rows."""
        if sharding.replicates():
            raise ValueError("predict_on_batch gives each row once a device on a mesh of one process: use predict.")
        return super().predict_on_batch(x)

    def step(self, *args, **kwargs):
        """Keras's `train_step`, on what this program sees of a batch."""
        return super().train_step(*args, **kwargs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Keras's of a batch; of a piece, such that the mean over the pieces is that of the batch."""
        return sharding.settle(self, self.piece_loss(x, y, y_pred, sample_weight, training))

    def piece_loss(self, x, y, y_pred, sample_weight, training):
        """Keras's loss times this piece's share of the weights, over an average piece's."""
        loss = super().compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)
        if sharding.pieces() == 1:
            return loss
        if sample_weight is None or getattr(self.loss, "reduction", None) != "mean_with_sample_weight":
            sample_weight = ops.ones_like(keras.tree.flatten(x)[0][:, 0])  # rows count alike
        total = sum(ops.sum(ops.cast(w, "float32")) for w in keras.tree.flatten(sample_weight))
        return loss * (total / ops.maximum(sharding.average(total), 1e-9))

    def get_metrics_result(self):
        """Keras's, over all processes once a batch is done."""
        with sharding.over_processes(self.metrics_variables if self._per_slice is None else ()):
            return super().get_metrics_result()

    def predict_step(self, *args):
        """Keras's; on JAX, where the state comes first, with weights gathered as in `compute_loss_and_updates`."""
        if len(args) < 2:
            return super().predict_step(*args)
        groups = self.trainable_variables, self.non_trainable_variables
        state = tuple(map(sharding.gathered, groups, args[0]))
        outputs, others = super().predict_step(state, args[1])
        return keras.tree.map_structure(sharding.everywhere, outputs), others

    def prepare(self, x, y=None):
        """Text, or a dictionary, to the model's (x, y, sample_weight); what a task adds to its base."""
        raise NotImplementedError

    def fit(self, x=None, y=None, *, sample_weight=None, validation_data=None, **kwargs):
        """Keras's fit; `x` may also be raw text, and so may `validation_data`.

        One row a text, padded to the longest. Packed rows and fresh masks each epoch come from `zoo.data.pretraining`.
        """
        self._check_precision()
        if self.is_raw(x) or isinstance(x, dict):
            sharding.only_alone("fit on arrays or text")
        x, y, sample_weight = self._prepared(x, y, sample_weight)
        if isinstance(validation_data, (tuple, list)) and not is_text(validation_data):
            validation_data = self._prepared(*validation_data)
        elif is_text(validation_data):
            validation_data = self._prepared(validation_data)
        size = kwargs.get("batch_size")
        held_out = validation_data, kwargs.get("validation_batch_size") or size
        with sharding.in_one_order(), sharding.batches(((x, y, sample_weight), size), held_out) as (ours, held_out):
            (x, y, sample_weight), options = ours
            kwargs |= options | {f"validation_{name}": value for name, value in held_out[1].items()}
            return super().fit(x, y, sample_weight=sample_weight, validation_data=held_out[0], **kwargs)

    def _check_precision(self):
        adapted = any("/adapter_" in v.path for v in self.trainable_variables)
        if (self.quantization or self.backbone.quantization) and not adapted:
            raise ValueError("The weights are quantised, and integers do not train: train before quantize.")
        if any(v.dtype in ("bfloat16", "float16") for v in self.trainable_variables):
            raise ValueError(
                f"dtype={self.dtype_policy.name!r} keeps weights in half precision, whose updates round to nothing: "
                "train with dtype='mixed_bfloat16'."
            )

    def evaluate(self, x=None, y=None, *, sample_weight=None, **kwargs):
        """Keras's evaluate; `x` may also be raw text."""
        x, y, sample_weight = self._prepared(x, y, sample_weight)
        with sharding.batches(((x, y, sample_weight), kwargs.get("batch_size"))) as [((x, y, weight), options)]:
            return super().evaluate(x, y, sample_weight=weight, **{**kwargs, **options})

    def predict(self, x, **kwargs):
        """Keras's predict: logits for raw text or the batch dictionary."""
        x = self.inputs_of(x)
        if sharding.pieces() > 1:  # each process has all results
            return super().predict(x, **kwargs)
        with sharding.batches((x, kwargs.get("batch_size"))) as [(x, options)]:
            return super().predict(x, **{**kwargs, **options})

    def _prepared(self, x, y=None, sample_weight=None):
        if not self.is_raw(x) and not isinstance(x, dict):
            return x, y, sample_weight  # a loader, a dataset, or nothing
        if isinstance(x, dict) and y is not None:
            x = self.inputs_of(x)
            return x, self.labels_of(x, y), sample_weight
        x, y, weight = self.prepare(x, y)
        self.check(x)
        if weight is None or sample_weight is None:
            return x, y, sample_weight if weight is None else weight
        return x, y, weight * sample_weight

    def is_raw(self, x):
        """Whether x is raw text of a kind that the task prepares."""
        return is_text(x)

    def labels_of(self, x, y):
        """Labels as the loss takes them, checked against the inputs they go with."""
        expected = next(x[key].shape for key in ("decoder_token_ids", "mask_positions", "token_ids") if key in x)
        if tuple(y.shape) != tuple(expected):
            name = type(self).__name__
            raise ValueError(f"Labels have shape {tuple(y.shape)}, but {name} predicts {tuple(expected)}.")
        size = self.config.vocabulary_size
        if isinstance(y, np.ndarray) and y.size and (y.min() < 0 or y.max() >= size):
            raise ValueError(
                f"Labels run from {y.min()} to {y.max()}, the vocabulary from 0 to {size - 1}: "
                "give ignored places weight 0 and any valid label."
            )
        return y

    def inputs_of(self, x):
        """Raw text to the batch dictionary; a dictionary is checked and passed on."""
        if is_text(x):
            x = self.tokenized([x] if isinstance(x, str) else list(x))
        if isinstance(x, dict):
            x = {k: np.asarray(v) if isinstance(v, list) else v for k, v in x.items()}
            self.check(x)
        return x

    def tokenized(self, texts, **kwargs):
        """Texts to `token_ids` and `padding_mask`, cut at `length_limit`."""
        if self.tokenizer is None:
            raise ValueError(
                f"This {type(self).__name__} has no tokenizer, so it takes no text: "
                "give it one, or the dictionary {'token_ids': ids}."
            )
        return self.tokenizer.batch(texts, max_length=self.length_limit, **kwargs)

    @property
    def length_limit(self):
        """The most tokens a text is cut to, or None: `max_length`, and what the model can take."""
        return min((n for n in (self.max_length, self.backbone.position_limit) if n), default=None)

    def get_config(self):
        return {"name": self.name, "trainable": self.trainable, "quantization": self.quantization,
                "backbone": keras.saving.serialize_keras_object(self.backbone)}  # fmt: skip

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        backbone, quantized = keras.saving.deserialize_keras_object(config.pop("backbone")), config.pop("quantization")
        return cls(backbone, **config).requantize(quantized)

    def save_assets(self, directory):
        """Called by `model.save`: the tokenizer travels in the `.keras` file."""
        if self.tokenizer is not None:
            self.tokenizer.save(directory)

    def load_assets(self, directory):
        """Called by `keras.models.load_model`."""
        if pretrained.has_tokenizer(directory):
            self.tokenizer = Tokenizer.from_preset(directory)
