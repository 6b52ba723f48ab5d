"""What CausalLM, MaskedLM and Seq2SeqLM share: a vocabulary head whose logits training never sees."""

import contextlib

import keras
from keras import ops

from zoo import backend, sharding
from zoo.generation.loop import kept, padded
from zoo.losses import chunked_cross_entropy
from zoo.tasks import accumulation
from zoo.tasks.task import Task


class LanguageModel(Task):
    """A task whose head predicts tokens.

    `call` returns logits. Under `fit` and `evaluate` with the default loss it returns hidden states instead, and loss
    and accuracy come from `zoo.losses.chunked_cross_entropy`; a loss or metrics of one's own see the logits.
    """

    _without_logits = _hides_logits = False

    def configure(self):
        self.accuracy = keras.metrics.Mean(name="accuracy")

    @property
    def metrics(self):
        """Keras's; the accuracy of the default loss is among them only where that loss is used."""
        return [m for m in super().metrics if m is not self.accuracy or self._hides_logits]

    def compile(self, optimizer="auto", loss="auto", *, metrics=None, weighted_metrics="auto", z_loss=0.0,
                label_smoothing=0.0, accumulate=1, **kwargs):  # fmt: skip
        """Keras's compile with defaults.

        Args:
            optimizer: AdamW at 5e-5 with no decay on biases and norms.
            loss: cross-entropy averaged over the labels whose weight is not 0.
            metrics, weighted_metrics: accuracy.
            z_loss: weight of log(Z) ** 2 in the default loss (Chowdhery et al. 2022).
            label_smoothing: share of the target spread over the vocabulary by the default loss.
            accumulate: slices that the rows of a batch pass in, one after the other, for want of memory. The update is
                that of the whole batch: every label of weight 1 counts the same, in whichever slice it is.
        """
        own = metrics or weighted_metrics not in ("auto", None, [])
        self._hides_logits = loss == "auto" and not own
        self._loss_options = {"z_loss": z_loss, "label_smoothing": label_smoothing}
        if not self._hides_logits and (z_loss or label_smoothing):
            raise ValueError("z_loss and label_smoothing belong to the default loss with the default metrics.")
        if not isinstance(accumulate, int) or accumulate < 1:
            raise ValueError(f"accumulate={accumulate!r} must be a whole number above 0.")
        if accumulate > 1 and self.dtype_policy.name == "mixed_float16":
            raise ValueError("accumulate does not scale losses, which mixed_float16 needs: use mixed_bfloat16.")
        self.slices = accumulate
        if self._hides_logits:
            weighted_metrics = None
        super().compile(optimizer, loss, metrics=metrics, weighted_metrics=weighted_metrics, **kwargs)

    def get_compile_config(self):
        """Keras's, with the default loss by name."""
        config = super().get_compile_config()
        if self._hides_logits:
            config |= {"loss": "auto", "weighted_metrics": "auto", **self._loss_options}
        return config | {"accumulate": self.slices}

    def log_likelihoods(self, x, labels, weights):
        """Log-probabilities of the labels whose weight is not 0, a float32 array a row, in nats."""

        def scores(x, labels):
            picked = ops.take_along_axis(ops.log_softmax(self(x), axis=-1), labels[..., None], axis=-1)
            return sharding.everywhere(picked[..., 0])

        program = kept(self, "scores", lambda: backend.compiled(scores, self.variables))
        x, labels = keras.tree.map_structure(sharding.placed, padded((x, labels), self.length_limit))
        found = ops.convert_to_numpy(program(x, labels))
        return [row[: len(weight)][weight > 0] for row, weight in zip(found, weights)]

    def decoded(self, x):
        """Logits of hidden states, or the hidden states themselves where the loss wants those."""
        return x if self._without_logits else self.head(x)

    @contextlib.contextmanager
    def _hiding_logits(self):
        self._without_logits = self._hides_logits
        try:
            yield
        finally:
            self._without_logits = False

    def step(self, *args, **kwargs):
        """Keras's, on hidden states, in slices where `compile` said so."""
        with self._hiding_logits():
            if self.slices == 1:
                return super().step(*args, **kwargs)
            _, y, weights = keras.utils.unpack_x_y_sample_weight(args[-1])
            self._per_slice = sharding.average(ops.sum(_weights(y, weights))) / self.slices
            try:
                found = accumulation.train_step(self, super().step, self.slices, *args)
            finally:
                self._per_slice = None
            return self.get_metrics_result() if found is None else found

    def test_step(self, *args, **kwargs):
        """Keras's, on hidden states."""
        with self._hiding_logits():
            return super().test_step(*args, **kwargs)

    def piece_loss(self, x, y, y_pred, sample_weight, training):
        """The default loss from hidden states, or Keras's from logits; slices of a batch are pieces as well."""
        weights = _weights(y, sample_weight)
        total = ops.sum(weights)
        counted = ops.maximum(sharding.average(total) if self._per_slice is None else self._per_slice, 1e-9)
        if not self._without_logits:
            if self._per_slice is None:
                return super().piece_loss(x, y, y_pred, sample_weight, training)
            loss = keras.Model.compute_loss(self, x, y, y_pred, sample_weight, training)
            return loss * (total / counted)
        kernel, bias, softcap = self.head.decoder()
        loss, hits = chunked_cross_entropy(self.head.hidden(y_pred), kernel, y, weights, bias, softcap,
                                           training=training, **self._loss_options)  # fmt: skip
        self.accuracy.update_state(hits / ops.maximum(total, 1e-9), total)
        return sharding.share(loss / counted + sum(self.losses))

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Keras's metrics from logits; `compute_loss` has updated the accuracy where there are none."""
        if not self._without_logits:
            return super().compute_metrics(x, y, y_pred, sample_weight=sample_weight)
        return self.get_metrics_result()


def _weights(y, sample_weight):
    return ops.ones_like(y, dtype="float32") if sample_weight is None else ops.cast(sample_weight, "float32")
