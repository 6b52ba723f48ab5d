"""The data benchmark at a tiny size: contestants answer, who cannot is left out, and figures are written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_a_tiny_run(tmp_path):
    texts = [f"{'word ' * (1 + i % 40)}{i} of a text that says {i * i}." for i in range(400)]
    (tmp_path / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
    (tmp_path / "datasets.py").write_text("raise ImportError('no datasets here')")
    size = {"megabytes": 0.03, "vocabulary": 300, "batch": 4, "length": 64, "rounds": 1, "seconds": 0.02}
    command = [sys.executable, ROOT / "benchmarks" / "data.py", *(f"--{name}={value}" for name, value in size.items()),
               "--split=line", f"--data={tmp_path / 'texts.txt'}", "--workloads=prepare,packed",
               "--contestants=zoo,tokenizers,datasets:one,zoo:batch,zoo:iterate",
               f"--output={tmp_path / 'out'}"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]), "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "datasets:one: ImportError: no datasets here" in done.stdout
    assert (tmp_path / "out.png").stat().st_size > 1000
    found = json.loads((tmp_path / "out.json").read_text())
    assert list(found["prepare"]) == ["zoo", "tokenizers"] and list(found["packed"]) == ["zoo:batch", "zoo:iterate"]
    assert found["prepare"]["zoo"]["tokens"] == found["prepare"]["tokenizers"]["tokens"] > len(texts)
    for of in found["packed"].values():
        tokens = of["tokens_per_second"] / of["batches_per_second"]
        assert 0 <= of["padding"] < 0.1 and tokens == pytest.approx((1 - of["padding"]) * 4 * 64)
