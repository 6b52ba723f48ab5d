"""One backend against another, and against logits kept from `transformers`."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tests import goldens
from tests.curve import losses
from tests.models import relative_error, run


@pytest.mark.backends
@pytest.mark.parametrize("name", goldens.CASES)
def test_logits_equal_the_kept_ones(name):
    x = goldens.batch(name)
    counts = x["padding_mask"] > 0 if "decoder_token_ids" not in x else np.ones((2, 6), bool)
    found = run(goldens.model(name), x)
    assert relative_error(found[counts], np.load(goldens.FILE)[name][counts]) < 1e-5


def test_training_follows_the_same_losses_on_every_backend():
    """Same weights, same batches, no dropout: 20 steps end within 1e-3 of each other, and lower than they began."""
    here, curves = keras.backend.backend(), {}
    curves[here] = losses()
    others = [name for name in ("jax", "torch", "tensorflow") if name != here and importlib.util.find_spec(name)]
    if not others:
        pytest.skip("no second backend is installed")
    for name in others:
        env = {**os.environ, "KERAS_BACKEND": name}
        done = subprocess.run([sys.executable, "-m", "tests.curve"], cwd=Path(__file__).parents[1], text=True,
                              timeout=300, capture_output=True, env=env)  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        curves[name] = json.loads(done.stdout.splitlines()[-1])
    for task, expected in curves[here].items():
        assert expected[-1] < expected[0] - 0.2
        for name in others:
            np.testing.assert_allclose(curves[name][task], expected, atol=1e-3, err_msg=f"{task} on {name}")
