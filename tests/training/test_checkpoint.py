"""Checkpoints: everything comes back, nothing damaged or foreign does."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import pytest

import zoo
from tests.models import parameters
from zoo import training
from zoo.checkpoint import Checkpoint
from zoo.training import checkpoint

pytestmark = pytest.mark.backends


def model(hidden_dim=8, optimizer="AdamW", dropout=0.2):
    backbone = zoo.GPTBackbone(vocabulary_size=20, num_layers=1, num_heads=2, hidden_dim=hidden_dim,
                               intermediate_dim=16, max_sequence_length=8, dropout=dropout)  # fmt: skip
    lm = zoo.CausalLM(backbone)
    lm.compile(getattr(keras.optimizers, optimizer)(1e-2, name=optimizer.lower()), weighted_metrics=[])
    return lm


def train(lm, start, stop):
    ids = np.random.default_rng(0).integers(0, 20, (16, 4, 9)).astype("int32")
    for batch in ids[start:stop]:
        lm.train_on_batch({"token_ids": batch[:, :-1]}, batch[:, 1:], np.ones((4, 8), "float32"))


def values(lm):
    variables = [*lm.variables, *lm.optimizer.variables]
    return [np.array(keras.ops.convert_to_numpy(v.value)) for v in variables]


@pytest.mark.parametrize("optimizer", parameters(["AdamW", "Adafactor"], ["AdamW"]))
def test_a_fresh_model_goes_on_as_the_saved_one(tmp_path, optimizer):
    first, second = model(optimizer=optimizer), model(optimizer=optimizer)
    train(first, 0, 4)
    training.save(tmp_path, first, 4)
    train(first, 4, 8)
    assert training.restore(tmp_path, second) == 4
    train(second, 4, 8)
    tolerance = 0 if keras.backend.backend() == "jax" else 1e-6
    for ours, theirs in zip(values(first), values(second), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def test_holds_every_kind_of_state(tmp_path):
    lm = model()
    train(lm, 0, 2)
    stored = Checkpoint(training.save(tmp_path, lm, 2))
    names = list(stored)
    assert len(names) == len(lm.variables) + len(lm.optimizer.variables)
    assert any(name.endswith("seeds/seed_generator_state") for name in names)
    (iterations,) = (name for name in names if name.endswith("/iteration"))
    assert int(stored.read(iterations)) == 2


def test_keeps_the_newest(tmp_path):
    lm = model()
    for step in (5, 10, 15):
        training.save(tmp_path, lm, step, keep=2)
    assert [path.name for path in training.checkpoints(tmp_path)] == ["000000010", "000000015"]
    assert training.restore(tmp_path / "nothing", lm) == 0


def test_keeps_the_best_besides(tmp_path):
    lm, saver = model(), training.Saver(tmp_path, keep=1)
    for step, loss in ((5, 3.0), (10, 2.0), (15, None), (20, 2.5)):
        saver.save(lm, step, val_loss=loss)
        train(lm, 0, 1)  # while it is written
    saver.wait()
    assert [path.name for path in training.checkpoints(tmp_path)] == ["000000010", "000000020"]
    assert training.best(tmp_path) == (10, 2.0)
    again = model()
    assert training.restore(tmp_path, again, step=10) == 10 and training.restore(tmp_path, again, step=15) == 0
    train(again, 0, 2)
    for ours, theirs in zip(values(again), values(lm), strict=True):  # without what was drawn after step 20
        assert ours.shape == theirs.shape
    training.restore(tmp_path, again, step=20)
    train(again, 0, 1)
    for ours, theirs in zip(values(again), values(lm), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def test_the_step_after_does_not_reach_what_is_being_written(tmp_path, monkeypatch):
    """The copy is taken before the next step, which on JAX reuses the memory."""
    lm, saver, gate = model(), training.Saver(tmp_path), threading.Event()
    train(lm, 0, 1)
    write = checkpoint.write
    monkeypatch.setattr(checkpoint, "write", lambda *args: gate.wait(60) and write(*args))
    before = values(lm)
    saver.save(lm, 1)
    train(lm, 1, 3)
    assert not training.checkpoints(tmp_path)
    gate.set()
    saver.wait()
    again = model()
    training.restore(tmp_path, again)
    for ours, theirs in zip(values(again), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_failed_save_is_reported_by_the_next(tmp_path):
    (tmp_path / "file").write_text("")
    saver = training.Saver(tmp_path / "file")
    saver.save(model(), 1)
    with pytest.raises(OSError, match="file"):
        saver.wait()
    saver.wait()


OTHER = """
import sys
sys.path.insert(0, {root!r})
from tests.training.test_checkpoint import model, train, training
lm = model(dropout=0.0)
assert training.restore({path!r}, lm) == 3
train(lm, 3, 5)
training.save({path!r}, lm, 5)
"""


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="it is there and back again")
def test_goes_on_on_another_backend(tmp_path):
    lm, again = model(dropout=0.0), model(dropout=0.0)
    train(lm, 0, 3)
    for other in ("torch", "tensorflow"):
        training.save(tmp_path / other, lm, 3)
    train(lm, 3, 5)
    for other in ("torch", "tensorflow"):
        pytest.importorskip(other)
        code = OTHER.format(root=str(Path(__file__).parents[2]), path=str(tmp_path / other))
        environment = {**os.environ, "KERAS_BACKEND": other}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert training.restore(tmp_path / other, again) == 5
        for ours, theirs in zip(values(again), values(lm), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5, err_msg=other)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, lambda path: path.unlink()])
@pytest.mark.parametrize("name", ["model.safetensors", "state.json"])
def test_damaged_ones_are_skipped(tmp_path, damage, name):
    lm = model()
    training.save(tmp_path, lm, 1)
    whole = values(lm)
    lm.variables[0].assign_add(keras.ops.ones(lm.variables[0].shape))
    damage(training.save(tmp_path, lm, 2) / name)
    again = model()
    with pytest.warns(UserWarning, match="000000002 is damaged"):
        assert training.restore(tmp_path, again) == 1
    for ours, theirs in zip(values(again), whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_save_cut_short_leaves_no_trace(tmp_path, monkeypatch):
    lm = model()
    training.save(tmp_path, lm, 1)
    with monkeypatch.context() as patch:
        patch.setattr(json, "dumps", lambda *args, **kwargs: 1 / 0)  # after the tensors, before the state
        with pytest.raises(ZeroDivisionError):
            training.save(tmp_path, lm, 2)
    assert training.restore(tmp_path, model()) == 1
    training.save(tmp_path, lm, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000001", "000000002"]


@pytest.mark.parametrize("other", [{"hidden_dim": 16}, {"optimizer": "Adafactor"}])
def test_another_model_is_refused_and_left_alone(tmp_path, other):
    training.save(tmp_path, model(), 3)
    lm = model(**other)
    before = values(lm)[: len(lm.variables)]
    with pytest.raises(ValueError, match="another model or optimizer"):
        training.restore(tmp_path, lm)
    for ours, theirs in zip(values(lm), before):
        np.testing.assert_array_equal(ours, theirs)
