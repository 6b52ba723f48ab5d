"""The benchmarks run, at a tiny size: contestants answer, who cannot is left out, and figures are written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def run(tmp_path):
    """Runs a benchmark where the module `missing` cannot be imported; returns its figures and what it prints."""

    def run(script, missing, *arguments):
        (tmp_path / f"{missing}.py").write_text(f"raise ImportError('no {missing} here')")
        path = os.pathsep.join([str(tmp_path), str(BENCHMARKS.parent), *filter(None, sys.path)])
        command = [sys.executable, BENCHMARKS / script, *arguments, f"--output={tmp_path / 'out'}"]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
        assert not done.returncode, done.stderr
        assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
        return json.loads((tmp_path / "out.json").read_text()), done.stdout

    return run


def test_data(run, tmp_path):
    texts = [f"{'word ' * (1 + i % 40)}{i} of a text that says {i * i}." for i in range(400)]
    (tmp_path / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
    size = {"megabytes": 0.03, "vocabulary": 300, "batch": 4, "length": 64, "rounds": 1, "seconds": 0.02}
    found, printed = run(
        "data.py", "datasets", *(f"--{name}={value}" for name, value in size.items()), "--split=line",
        f"--data={tmp_path / 'texts.txt'}", "--workloads=prepare,packed",
        "--contestants=zoo,tokenizers,datasets:one,zoo:batch,zoo:iterate",
    )  # fmt: skip
    assert "datasets:one: ImportError: no datasets here" in printed
    assert list(found["prepare"]) == ["zoo", "tokenizers"] and list(found["packed"]) == ["zoo:batch", "zoo:iterate"]
    assert found["prepare"]["zoo"]["tokens"] == found["prepare"]["tokenizers"]["tokens"] > len(texts)
    for of in found["packed"].values():
        tokens = of["tokens_per_second"] / of["batches_per_second"]
        assert 0 <= of["padding"] < 0.1 and tokens == pytest.approx((1 - of["padding"]) * 4 * 64)
