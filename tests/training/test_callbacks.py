"""What `Monitor` measures, against a loop of single steps; the reports; and the stop at NaN."""

import csv
import io
import os
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

import zoo
from tests.models import parameters
from zoo import training
from zoo.training.reports import COLUMNS, Report, read_rows

pytestmark = pytest.mark.backends
IDS = np.random.default_rng(0).integers(0, 20, (7, 4, 9)).astype("int32")
WEIGHTS = (np.random.default_rng(1).random((7, 4, 8)) < np.linspace(0.2, 1, 7)[:, None, None]).astype("float32")
BATCHES = [({"token_ids": ids[:, :-1]}, ids[:, 1:], w) for ids, w in zip(IDS, WEIGHTS)]


@pytest.fixture(scope="module")
def start():
    return [np.array(keras.ops.convert_to_numpy(v.value)) for v in model().variables]


def model(values=None, rate=1e-2):
    backbone = zoo.GPTBackbone(vocabulary_size=20, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16,
                               max_sequence_length=8, dropout=0.0)  # fmt: skip
    lm = zoo.CausalLM(backbone)
    for variable, value in zip(lm.variables, values or []):
        variable.assign(value)
    lm.compile(keras.optimizers.SGD(rate, name="sgd"), weighted_metrics=[])
    return lm


class Kept(Report):
    """Keeps rows in memory."""

    def __init__(self):
        self.rows, self.ended = [], 0

    def row(self, row):
        self.rows.append(row)

    def end(self):
        self.ended += 1


def fit(lm, monitor, batches=BATCHES):
    lm.fit((batch for batch in batches), steps_per_epoch=len(batches), shuffle=False, verbose=0, callbacks=[monitor])


def test_speed_counts_the_wait_for_the_device(start, monkeypatch):
    """Steps are dispatched before they are done: asking for the loss is what waits for them."""
    kept, lm = Kept(), model(start)
    ask = lm.get_metrics_result

    def slow():
        time.sleep(0.2)
        return ask()

    monkeypatch.setattr(lm, "get_metrics_result", slow)
    fit(lm, training.Monitor([kept], steps=7, tokens_per_step=32, every=3))
    assert all(row["tokens_per_second"] < 3 * 32 / 0.2 for row in kept.rows[1:])


def test_rows_are_means_since_the_last_row(start):
    kept, lm, twin = Kept(), model(start), model(start)
    fit(lm, training.Monitor([kept], steps=7, tokens_per_step=32, every=3))
    losses = [twin.train_on_batch(*batch, return_dict=True)["loss"] for batch in BATCHES]
    assert [row["step"] for row in kept.rows] == [1, 3, 6, 7]
    expected = [losses[0], np.mean(losses[1:3]), np.mean(losses[3:6]), losses[6]]
    np.testing.assert_allclose([row["loss"] for row in kept.rows], expected, rtol=1e-5)
    assert [row["tokens_per_second"] is None for row in kept.rows] == [True, False, False, False]
    assert kept.ended == 1


def test_validation_weighs_tokens_and_disturbs_nothing(start):
    kept, lm, twin = Kept(), model(start), model(start)
    validate = lambda model, step: training.validation_loss(model, BATCHES)  # noqa: E731
    fit(lm, training.Monitor([kept], steps=7, tokens_per_step=32, every=2, validate=validate, validate_every=4))
    for i, (x, y, w) in enumerate(BATCHES, start=1):
        twin.train_on_batch(x, y, w)
        if i == 4:
            logits = np.concatenate([keras.ops.convert_to_numpy(twin(x)) for x, _, _ in BATCHES]).astype("float64")
    labels, weights = IDS[:, :, 1:].reshape(28, 8), WEIGHTS.reshape(28, 8)
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    nll = -np.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    found = {row["step"]: row["val_loss"] for row in kept.rows}
    assert [step for step, loss in found.items() if loss is not None] == [4, 7]
    np.testing.assert_allclose(found[4], (nll * weights).sum() / weights.sum(), rtol=1e-5)
    for ours, theirs in zip(lm.variables, twin.variables):
        np.testing.assert_allclose(*map(keras.ops.convert_to_numpy, (ours.value, theirs.value)), rtol=1e-5, atol=1e-7)


def test_nan_stops_before_it_is_saved(start, tmp_path):
    kept, lm = Kept(), model(start)
    spoilt = [*BATCHES[:4], (*BATCHES[4][:2], BATCHES[4][2] * np.nan), *BATCHES[5:]]
    monitor = training.Monitor([kept], steps=7, tokens_per_step=32, every=2, checkpoints=tmp_path, checkpoint_every=2)
    with pytest.raises(FloatingPointError, match="after step 6, it was finite up to step 4"):
        fit(lm, monitor, spoilt)
    assert [path.name for path in training.checkpoints(tmp_path)] == ["000000002", "000000004"]
    assert kept.ended == 1 and np.isnan(kept.rows[-1]["loss"])


def test_a_bad_gradient_is_named_by_step_and_rows(start, tmp_path):
    kept, lm = Kept(), model(start)
    lm.compile(training.by_pattern(keras.optimizers.SGD(1e-2, name="sgd"), lm), weighted_metrics=[])
    spoilt = [*BATCHES[:4], (*BATCHES[4][:2], BATCHES[4][2] * np.nan), *BATCHES[5:]]
    monitor = training.Monitor([kept], steps=7, tokens_per_step=32, every=3, checkpoints=tmp_path, checkpoint_every=3,
                               rows=lambda step: [(0, step * 4 - 2), (0, step * 4 - 1), (1, 0)])  # fmt: skip
    with pytest.raises(FloatingPointError, match="since step 5, of rows 18, 19 of epoch 0; rows 0 of epoch 1"):
        fit(lm, monitor, spoilt)
    assert [path.name for path in training.checkpoints(tmp_path)] == ["000000003"]


def test_norms_speeds_and_bits(start):
    """The norm is that of the gradient of SGD, which the weights show."""
    kept, lm = Kept(), model(start, rate=0.5)
    lm.compile(training.by_pattern(keras.optimizers.SGD(0.5, name="sgd"), lm), weighted_metrics=[])
    before = [np.array(keras.ops.convert_to_numpy(v.value)) for v in lm.trainable_variables]
    monitor = training.Monitor([kept], steps=2, tokens_per_step=32, every=1, validate=lambda model, step: 2.0,
                               validate_every=2, peak_seconds=1e-3, bytes_per_token=4.0)  # fmt: skip
    fit(lm, monitor, BATCHES[:1] * 2)
    first, second = kept.rows
    moved = model(start, rate=0.5)
    moved.train_on_batch(*BATCHES[0])
    gradient = [(b - keras.ops.convert_to_numpy(v.value)) / 0.5 for b, v in zip(before, moved.trainable_variables)]
    assert first["gradient_norm"] == pytest.approx(np.sqrt(sum((g**2).sum() for g in gradient)), rel=1e-3)
    assert second["mfu"] == pytest.approx(second["tokens_per_second"] / 32 * 1e-3)
    assert second["perplexity"] == pytest.approx(np.e**2)
    assert second["bits_per_byte"] == pytest.approx(2 / np.log(2) / 4)
    assert first["perplexity"] is None and first["mfu"] is None


def test_spikes_are_noted():
    monitor = training.Monitor([], steps=1, tokens_per_step=1)
    quiet = [3.0, 3.02, 2.99, 2.97, 3.01, 2.98, 2.95, 2.97]
    assert [monitor._spike(loss) for loss in quiet] == [None] * len(quiet)
    assert monitor._spike(4.0) == pytest.approx(4.0 - np.median(quiet))
    assert monitor._spike(2.96) is None


@pytest.mark.parametrize("patience", [2, None])
def test_patience(start, tmp_path, patience):
    """Each lower loss is saved; two that are not end the run."""
    losses, lm = iter([3.0, 2.0, 2.5, 2.4, 2.3, 2.2, 2.1]), model(start)
    monitor = training.Monitor([], steps=7, tokens_per_step=32, validate=lambda model, step: next(losses), keep=1,
                               validate_every=1, patience=patience, checkpoints=tmp_path)  # fmt: skip
    fit(lm, monitor)
    assert monitor.step == (5 if patience else 7)
    assert training.best(tmp_path) == ((2, 2.0) if patience else (7, 2.1))


@pytest.mark.parametrize("number", parameters([signal.SIGTERM, signal.SIGINT], [signal.SIGTERM]))
def test_a_signal_ends_the_run_at_a_step_that_is_saved(start, tmp_path, number):
    lm, twin, before = model(start), model(start), signal.getsignal(number)

    def batches():
        for i, batch in enumerate(BATCHES):
            if i == 3:
                os.kill(os.getpid(), number)
            yield batch

    with pytest.raises(training.Interrupted) as found, training.Interruption() as stop:
        monitor = training.Monitor([], steps=7, tokens_per_step=32, checkpoints=tmp_path, stop=stop)
        lm.fit(batches(), steps_per_epoch=7, shuffle=False, verbose=0, callbacks=[monitor])
    assert found.value.number == number and signal.getsignal(number) is before
    (saved,) = training.checkpoints(tmp_path)
    steps = int(saved.name)
    assert 1 <= steps < 7
    for batch in BATCHES[:steps]:
        twin.train_on_batch(*batch)
    training.restore(tmp_path, lm)
    for ours, theirs in zip(lm.variables, twin.variables):
        np.testing.assert_allclose(*map(keras.ops.convert_to_numpy, (ours.value, theirs.value)), rtol=1e-5, atol=1e-7)


def row(step, **values):
    return {**dict.fromkeys(COLUMNS), "step": step, **values}


def test_csv_is_cut_where_a_run_is_resumed(tmp_path):
    path = tmp_path / "metrics.csv"
    log = training.CSVLog(path)
    log.begin(0, 30)
    for step in (10, 20, 30):
        log.row(row(step, loss=1 / step, val_loss=0.5 if step == 20 else None, learning_rate=1e-3))
    log.end()
    with path.open("a") as file:
        file.write("40,0.1")  # killed while it wrote
    log = training.CSVLog(path)
    log.begin(20, 30)
    log.row(row(25, loss=2.0))
    log.end()
    with path.open(newline="") as file:
        table = list(csv.reader(file))
    assert table[0][:5] == ["step", "loss", "val_loss", "learning_rate", "tokens_per_second"]
    kept = [["10", "0.1", "", "0.001", ""], ["20", "0.05", "0.5", "0.001", ""], ["25", "2", "", "", ""]]
    assert [line[:5] for line in table[1:]] == kept and not any("".join(line[5:]) for line in table[1:])
    assert [one["val_loss"] for one in read_rows(path)] == [None, 0.5, None]


def test_plot_is_a_png(tmp_path):
    log = training.CSVLog(tmp_path / "metrics.csv")
    plot = training.LossPlot(tmp_path / "loss.png", log.path, "title")
    log.begin(0, 2)
    for one in (row(1, loss=3.0), row(2, loss=2.0, val_loss=2.5)):
        log.row(one)
        plot.row(one)
    content = (tmp_path / "loss.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n") and content.endswith(b"IEND\xaeB`\x82")


READ = """
import glob, sys
import tensorflow as tf
for file in sorted(glob.glob(sys.argv[1] + "/*")):
    for event in tf.compat.v1.train.summary_iterator(file):
        for value in event.summary.value:
            print(event.step, value.tag, round(float(tf.make_ndarray(value.tensor)) if value.HasField("tensor")
                                               else value.simple_value, 4))
"""


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="it knows no backend")
def test_tensorboard_files_are_read_by_tensorflow(tmp_path):
    pytest.importorskip("tensorboardX")
    pytest.importorskip("tensorflow")
    board = training.TensorBoard(tmp_path)
    board.begin(0, 2)
    board.row(row(1, loss=3.0))
    board.row(row(2, loss=2.5, val_loss=2.75))
    board.end()
    done = subprocess.run([sys.executable, "-c", READ, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.split("\n")[:-1] == ["1 loss 3.0", "2 loss 2.5", "2 val_loss 2.75"], done.stderr


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("file", [io.StringIO(), Terminal()])
def test_progress_names_loss_speed_and_time_left(file):
    bar = training.ProgressBar(file)
    bar.begin(0, 40)
    for step in (1, 20):
        bar.tick(step)
        bar.row(row(step, loss=4.5678, tokens_per_second=12345.6))
    bar.tick(40)
    bar.end()
    text = file.getvalue()
    assert "4.568" in text and "12,346 tokens/s" in text
    assert ("20/40 [" in text and "<" in text) if file.isatty() else ("step 20/40" in text and "0:00 left" in text)
