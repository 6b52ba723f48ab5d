"""A run killed with SIGKILL at random moments, in steps and in saves, ends with the weights of one that is not."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

KILLS = {"tensorflow": 1}  # which compiles anew in each run; ZOO_TEST_KILLS=20 takes a minute


@pytest.mark.backends
@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forks")
def test_ends_with_the_same_weights(tmp_path, backend):
    kills = os.environ.get("ZOO_TEST_KILLS", str(KILLS.get(backend, 2)))
    command = [sys.executable, "-W", "ignore", "-m", "tests.training.killed", str(tmp_path), kills]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(tmp_path / "whole" / "final.npz") as whole, np.load(tmp_path / "broken" / "final.npz") as broken:
        assert whole.files == broken.files and len(whole.files) > 10
        for name in whole.files:
            tolerance = 0 if backend == "jax" else 1e-6
            np.testing.assert_allclose(broken[name], whole[name], rtol=tolerance, atol=tolerance, err_msg=name)
