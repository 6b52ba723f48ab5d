"""PreferenceLM: a decoder that learns which of two answers is the better one, by direct preference optimisation."""

import keras
from keras import ops

from zoo.data.conversations import preferences
from zoo.tasks.causal_lm import CausalLM
from zoo.tasks.multiple_choice import rows_of
from zoo.tasks.text_embedder import is_triple


@keras.saving.register_keras_serializable("zoo")
class PreferenceLoss(keras.losses.Loss):
    """-log sigmoid(β ((π_w - ρ_w) - (π_l - ρ_l))) of log-likelihoods: of the better answer w and the worse one l, under
    the model (π, what it predicts) and under the reference (ρ, the labels), both (b, 2).

    Args:
        beta: β, how dear it is to leave the reference.

    Source: Rafailov et al. 2023, arXiv 2305.18290, equation 7.
    """

    def __init__(self, beta=0.1, name="loss", reduction="mean_with_sample_weight", **kwargs):
        super().__init__(name=name, reduction=reduction, **kwargs)
        if not beta > 0:
            raise ValueError(f"beta must be above 0, got {beta!r}.")
        self.beta = beta

    def call(self, y_true, y_pred):
        return ops.softplus(-self.beta * _margin(y_true, y_pred))

    def get_config(self):
        return {**super().get_config(), "beta": self.beta}


def _margin(y_true, y_pred):
    gain = y_pred - ops.cast(y_true, y_pred.dtype)
    return gain[:, 0] - gain[:, 1]


@keras.saving.register_keras_serializable("zoo")
def preferred(y_true, y_pred):
    """(b,): 1 where the better answer has gained more on the reference than the worse one."""
    return ops.cast(_margin(y_true, y_pred) > 0, "float32")


@keras.saving.register_keras_serializable("zoo")
class PreferenceLM(CausalLM):
    """A `CausalLM` that is tuned on preferences; its presets are those of a `CausalLM`.

    `fit` takes a tuple of three lists of texts: prompts, better and worse answers; or what
    `zoo.data.preferences` makes of them. Called on the latter it returns the log-likelihoods (b, 2) of the answers, on
    the batch dictionary logits. The reference is the model as it is when texts are prepared: its log-likelihoods become
    the labels, so there is no second model in memory. Dropout should be 0.

    Args:
        backbone: a decoder `Backbone`.
        tokenizer: a `Tokenizer`, for raw text.

    Example:

    ```python
    from zoo import LlamaBackbone, PreferenceLM, Tokenizer

    prompts, better, worse = ["is it so?"] * 4, ["yes"] * 4, ["no"] * 4
    tokenizer = Tokenizer.train(prompts + better + worse, kind="bpe", vocabulary_size=280)
    lm = PreferenceLM(LlamaBackbone(vocabulary_size=tokenizer.vocabulary_size, num_layers=1, num_heads=2, hidden_dim=16,
                                    intermediate_dim=32), tokenizer)
    lm.fit((prompts, better, worse), batch_size=4, verbose=0)
    ```
    """

    default_name = "preference_lm"
    preset_task = "CausalLM"
    max_length = 1024

    def call(self, inputs, training=False):
        if "answer_mask" not in inputs:
            return super().call(inputs, training=training)
        shape = inputs["token_ids"].shape
        rows = rows_of(inputs)
        weights = ops.cast(rows.pop("answer_mask")[:, 1:], "float32")
        logits = ops.log_softmax(super().call(rows, training=training)[:, :-1], axis=-1)
        labels = ops.cast(rows["token_ids"][:, 1:, None], "int32")
        found = ops.sum(ops.take_along_axis(logits, labels, axis=-1)[..., 0] * weights, axis=-1)
        return ops.reshape(found, (-1, shape[1]))

    def compile(self, optimizer="auto", loss="auto", *, weighted_metrics="auto", **kwargs):
        """Keras's compile with defaults: the loss is `PreferenceLoss()`, the metric how often the better one gains."""
        loss = PreferenceLoss() if loss == "auto" else loss
        if weighted_metrics == "auto":
            weighted_metrics = [keras.metrics.MeanMetricWrapper(preferred, name="accuracy")]
        super().compile(optimizer, loss, weighted_metrics=weighted_metrics, **kwargs)

    def check(self, inputs):
        if isinstance(inputs, dict) and "answer_mask" in inputs:
            shape = tuple(inputs["token_ids"].shape)
            if len(shape) != 3 or shape[1] != 2:
                raise ValueError(f"token_ids with an answer_mask must have shape (batch, 2, time), got {shape}.")
            inputs = {key: value for key, value in rows_of(inputs).items() if key != "answer_mask"}
        super().check(inputs)

    def is_raw(self, x):
        return is_triple(x) or super().is_raw(x)

    def inputs_of(self, x):
        if is_triple(x):
            x = preferences(self.tokenizer, *x, max_length=self.length_limit)
        return super().inputs_of(x)

    def prepare(self, x, y=None):
        """Prompts, better and worse answers to (x, the reference's log-likelihoods, no weights)."""
        if not is_triple(x) or y is not None:
            raise ValueError(
                "PreferenceLM takes (prompts, chosen, rejected), three lists of texts, or arrays and labels."
            )
        if len({len(part) for part in x}) > 1:
            raise ValueError(f"There are {', '.join(str(len(part)) for part in x)} prompts, better and worse answers.")
        x = self.inputs_of(x)
        return x, self.predict(x, batch_size=8, verbose=0), None

    def labels_of(self, x, y):
        if tuple(y.shape) != (len(x["token_ids"]), 2):
            raise ValueError(f"The reference's log-likelihoods have shape {tuple(y.shape)}, not (batch, 2).")
        return y
