"""The loading benchmark at a tiny size: it measures, compares and draws."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_a_tiny_run(tmp_path):
    pytest.importorskip("transformers")
    ours = f"zoo:{keras.backend.backend()}"
    flags = ["--size=4", "--rounds=1", "--families=llama", f"--contestants={ours},transformers:torch"]
    command = [sys.executable, ROOT / "benchmarks" / "loading.py", *flags, f"--output={tmp_path / 'out'}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())["rounds"]
    assert found["llama"].keys() == {ours, "transformers:torch"}, done.stdout
    assert 2e6 < (tmp_path / "zoo-benchmarks" / "llama-4" / "model.safetensors").stat().st_size < 40e6
    for (answer,) in found["llama"].values():
        assert 0 < answer["call"] < answer["loaded"] and answer["memory"] > 0.9
    assert (tmp_path / "out.png").stat().st_size > 1000 and "/ transformers" in done.stdout
