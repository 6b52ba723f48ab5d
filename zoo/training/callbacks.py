"""The clock of a training run: what is measured, validated and saved after which step. It knows no file of its own.

Keras waits for the loss of every step as soon as a callback overrides `on_train_batch_end`. So `Monitor` acts when the
next step begins, and asks for the loss only where a row is due: in between, the device never idles for Python's sake.
"""

import math
import time

import keras
from keras import ops

from zoo.training import checkpoint


class Monitor(keras.callbacks.Callback):
    """Measures a row every few steps and hands it to the reports; validates and saves checkpoints.

    The losses in a row are means over the steps since the row before. Tokens per second leave out the first step, which
    compiles, and the time of validation and saving.

    Args:
        reports: see `zoo.training.reports`.
        steps: number of the last step; the first is 1.
        tokens_per_step: positions in a batch.
        done: steps done before this `fit`, 0 unless resumed.
        every: steps between rows; the first and the last step have one too.
        validate: function of the model and the step that returns a loss, or None.
        validate_every: steps between validations; the last step has one too.
        checkpoints: directory for checkpoints, or None.
        checkpoint_every: steps between checkpoints; the last step has one too.
        checkpoint_minutes: minutes after which one is saved at the next row all the same.

    Raises:
        FloatingPointError: out of `fit`, when a loss is no finite number; nothing is saved then.
    """

    def __init__(self, reports, steps, tokens_per_step, done=0, every=10, validate=None, validate_every=100,
                 checkpoints=None, checkpoint_every=1000, checkpoint_minutes=15.0):  # fmt: skip
        super().__init__()
        self.reports, self.steps, self.tokens_per_step = reports, steps, tokens_per_step
        self.step = self.done = self.measured = done
        self.every, self.validate, self.validate_every = every, validate, validate_every
        self.checkpoints, self.checkpoint_every = checkpoints, checkpoint_every
        self.checkpoint_seconds = 60 * checkpoint_minutes
        self.val_loss = None

    def on_train_begin(self, logs=None):
        self.started = self.saved = time.monotonic()
        for report in self.reports:
            report.begin(self.done, self.steps)

    def on_train_batch_begin(self, batch, logs=None):
        if batch > 0:
            self._after_step()

    def on_epoch_end(self, epoch, logs=None):
        self._after_step()

    def on_train_end(self, logs=None):
        for report in self.reports:
            report.end()

    def _after_step(self):
        self.step += 1
        for report in self.reports:
            report.tick(self.step)
        due = self._due(self.every) or self.step == self.done + 1
        validate, save = self.validate and self._due(self.validate_every), self._due(self.checkpoint_every)
        if due or validate or save:
            self._measure(validate, save)

    def _due(self, every):
        return self.step % every == 0 or self.step == self.steps

    def _measure(self, validate, save):
        model = self.model  # on JAX this brings the variables up to date
        loss = float(model.get_metrics_result()["loss"])
        model.reset_metrics()
        now = time.monotonic()
        speed = (self.step - self.measured) * self.tokens_per_step / (now - self.started)
        row = {"step": self.step, "loss": loss, "val_loss": None, "tokens_per_second": speed}
        row["learning_rate"] = float(ops.convert_to_numpy(model.optimizer.learning_rate))
        if self.measured == self.done:
            row["tokens_per_second"] = None
        if validate:
            row["val_loss"] = self.val_loss = self.validate(model, self.step)
        for report in self.reports:
            report.row(row)
        self._check(row["loss"], "loss")
        self._check(row["val_loss"], "validation loss")
        if self.checkpoints and (save or now - self.saved > self.checkpoint_seconds):
            checkpoint.save(self.checkpoints, model, self.step)
            self.saved = time.monotonic()
        self.measured, self.started = self.step, time.monotonic()

    def _check(self, loss, what):
        if loss is not None and not math.isfinite(loss):
            self.on_train_end()
            raise FloatingPointError(
                f"The {what} is {loss} after step {self.step}, it was finite up to step {self.measured}: "
                "lower the learning rate, warm up longer, or clip gradients."
            )


def validation_loss(model, batches):
    """Mean loss per token of held-out data: every label of weight 1 counts the same, in whichever batch it is.

    Args:
        model: a compiled model whose loss is the mean over the weights of a batch.
        batches: iterable of (x, y, w) numpy batches of one shape.
    """
    total = count = 0.0
    for x, y, w in batches:
        loss = model.test_on_batch(x, y, w, return_dict=True)["loss"]  # of this batch alone
        total, count = total + float(loss) * float(w.sum()), count + float(w.sum())
    model.reset_metrics()
    return total / count
