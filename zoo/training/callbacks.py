"""The clock of a training run: what is measured, validated and saved after which step. It knows no file of its own.

Keras waits for the loss of every step as soon as a callback overrides `on_train_batch_end`. So `Monitor` acts when the
next step begins, and asks for the loss only where a row is due: in between, the device never idles for Python's sake.
"""

import collections
import itertools
import math
import signal
import statistics
import time

import keras
from keras import ops

from zoo import processes
from zoo.tasks.language_model import LanguageModel
from zoo.training import checkpoint
from zoo.training.interruption import Interrupted
from zoo.training.reports import COLUMNS


class Monitor(keras.callbacks.Callback):
    """Measures a row every few steps and hands it to the reports; validates and saves checkpoints.

    The losses in a row are means over the steps since the row before. Speeds leave out the first step, which compiles,
    and the time of validation and saving. A spike is a loss far above the 20 rows before it.

    Args:
        reports: see `zoo.training.reports`.
        steps: number of the last step; the first is 1.
        tokens_per_step: positions in a batch.
        done: steps done before this `fit`, 0 unless resumed.
        every: steps between rows; the first and the last step have one too.
        validate: function of the model and the step that returns a loss, or None.
        validate_every: steps between validations; the last step has one too.
        patience: validations without a lower loss after which training ends, at the step that follows; each lower loss
            is saved then. None: never.
        checkpoints: directory for checkpoints, or None.
        checkpoint_every: steps between checkpoints; the last step has one too.
        checkpoint_minutes: minutes after which one is saved at the next row all the same.
        keep: see `zoo.training.Saver`.
        stop: an `Interruption`; the step under way when a signal comes is the last, and is saved.
        peak_seconds: what a step's arithmetic would take at the device's peak, for model-FLOPs utilisation.
        bytes_per_token: of the validation text, for bits per byte.
        rows: function of a step that returns the (epoch, row) pairs of its batch.

    Raises:
        FloatingPointError: out of `fit`, when a loss, or the gradient of a `Grouped` optimizer, is not finite; nothing
            is saved then.
        Interrupted: out of `fit`, after a signal.
    """

    def __init__(self, reports, steps, tokens_per_step, done=0, every=10, validate=None, validate_every=100,
                 patience=None, checkpoints=None, checkpoint_every=1000, checkpoint_minutes=15.0, keep=2, stop=None,
                 peak_seconds=None, bytes_per_token=None, rows=None):  # fmt: skip
        super().__init__()
        self.reports, self.steps, self.tokens_per_step = reports, steps, tokens_per_step
        self.step = self.done = self.measured = done
        self.every, self.validate, self.validate_every, self.patience = every, validate, validate_every, patience
        self.saver = checkpoint.Saver(checkpoints, keep) if checkpoints else None
        self.checkpoint_every, self.checkpoint_seconds = checkpoint_every, 60 * checkpoint_minutes
        self.stop, self.peak_seconds, self.bytes_per_token, self.rows = stop, peak_seconds, bytes_per_token, rows
        self.val_loss, self.recent = None, collections.deque(maxlen=20)
        best = checkpoint.best(checkpoints) if checkpoints and done else None
        self.best_step, self.best_loss = best or (done, math.inf)

    def on_train_begin(self, logs=None):
        self.started = self.saved = time.monotonic()
        self.alone = processes.count() == 1
        for report in self.reports:
            report.begin(self.done, self.steps)

    def on_train_batch_begin(self, batch, logs=None):
        if batch > 0:
            self._after_step()

    def on_epoch_end(self, epoch, logs=None):
        self._after_step()

    def on_train_end(self, logs=None):
        if self.saver:
            self.saver.wait()
        for report in self.reports:
            report.end()

    def _after_step(self):
        self.step += 1
        for report in self.reports:
            report.tick(self.step)
        due = self._due(self.every) or self.step == self.done + 1
        validate, save = self.validate and self._due(self.validate_every), self._due(self.checkpoint_every)
        stopped, late = self._told(due)
        save = save or late
        if due or validate or save or stopped:
            self._measure(validate and not stopped, save or stopped)
        if stopped:
            self.on_train_end()
            raise Interrupted(self.stop.number or signal.SIGTERM)

    def _told(self, due):
        """Whether a signal came, and whether a checkpoint is overdue; of several processes to any, asked at rows."""
        if not (due or self.alone):
            return False, False
        stopped = self.stop is not None and self.stop.number is not None
        late = due and self.saver is not None and time.monotonic() - self.saved > self.checkpoint_seconds
        return [share > 0 for share in processes.mean([stopped, late])]

    def _due(self, every):
        return self.step % every == 0 or self.step == self.steps

    def _measure(self, validate, save):
        row = self._row()
        if validate:
            self._validate(row)
        for report in self.reports:
            report.row(row)
        self._check(row)
        improved = self.patience is not None and validate and self.best_step == self.step
        if self.saver and (save or improved):
            self.saver.save(self.model, self.step, row["val_loss"])
            self.saved = time.monotonic()
        if self.patience is not None and validate and self.step - self.best_step >= self.patience * self.validate_every:
            self.model.stop_training = True
        self.measured, self.started = self.step, time.monotonic()

    def _row(self):
        model, row = self.model, dict.fromkeys(COLUMNS)  # on JAX the model brings its variables up to date
        row |= {"step": self.step, "loss": float(model.get_metrics_result()["loss"])}
        now = time.monotonic()  # the loss is there only when the steps are done
        model.reset_metrics()
        row["learning_rate"] = _number(model.optimizer.learning_rate)
        if hasattr(model.optimizer, "gradient_norm"):
            row["gradient_norm"] = _number(model.optimizer.gradient_norm)
        if self.measured > self.done:
            rate = (self.step - self.measured) / (now - self.started)
            row["tokens_per_second"] = rate * self.tokens_per_step
            row["mfu"] = self.peak_seconds and rate * self.peak_seconds
        row["spike"] = self._spike(row["loss"])
        return row

    def _spike(self, loss):
        """How far a loss is above the median of the last ones, if that is far for them."""
        recent = list(self.recent)
        self.recent.append(loss)
        if len(recent) < 5:
            return None
        median = statistics.median(recent)
        deviation = 1.4826 * statistics.median(abs(x - median) for x in recent)  # a normal one's standard deviation
        return loss - median if loss - median > max(6 * deviation, 0.05 * median) else None

    def _validate(self, row):
        loss = row["val_loss"] = self.val_loss = self.validate(self.model, self.step)
        row["perplexity"] = math.exp(min(loss, 700.0)) if isinstance(self.model, LanguageModel) else None
        row["bits_per_byte"] = self.bytes_per_token and loss / math.log(2) / self.bytes_per_token
        if loss < self.best_loss:
            self.best_step, self.best_loss = self.step, loss

    def _check(self, row):
        bad = int(_number(getattr(self.model.optimizer, "first_bad", 0)))
        wrong = [(what, row[key]) for key, what in (("loss", "loss"), ("val_loss", "validation loss"))
                 if row[key] is not None and not math.isfinite(row[key])]  # fmt: skip
        if not wrong and not bad:
            return
        self.on_train_end()
        what, value = wrong[0] if wrong else ("gradient", "not finite")
        since = f"it was finite up to step {self.measured}"
        if bad:
            since = f"the gradient is not finite since step {bad}" + (f", of {self._batch(bad)}" if self.rows else "")
        raise FloatingPointError(
            f"The {what} is {value} after step {self.step}, {since}: "
            "lower the learning rate, warm up longer, or clip gradients."
        )

    def _batch(self, step):
        """The rows of a step's batch in words."""
        epochs = itertools.groupby(self.rows(step), key=lambda pair: pair[0])
        return "; ".join(f"rows {', '.join(str(row) for _, row in pairs)} of epoch {epoch}" for epoch, pairs in epochs)


def _number(value):
    return float(ops.convert_to_numpy(ops.convert_to_tensor(value)))


def validation_loss(model, batches):
    """Mean loss per token of held-out data: every label of weight 1 counts the same, in whichever batch it is.

    Args:
        model: a compiled model whose loss is the mean over the weights of a batch.
        batches: iterable of (x, y, w) numpy batches of one shape; of several processes each has its own slices.
    """
    total = count = 0.0
    for x, y, w in batches:
        loss = model.test_on_batch(x, y, w, return_dict=True)["loss"]  # of this batch alone
        total, count = total + float(loss) * float(w.sum()), count + float(w.sum())
    model.reset_metrics()
    total, count = processes.mean([total, count])
    return float(total / count)
