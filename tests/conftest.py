"""Shared fixtures: where the real data is, quiet backends, and the compile cache that keeps JAX's tests short."""

import os
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / "zoo-tests-jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")


def pytest_collection_modifyitems(items):
    """Skips what is `uncompiled` on the backends that compile."""
    if os.environ["KERAS_BACKEND"] != "torch":
        for item in items:
            if item.get_closest_marker("uncompiled"):
                item.add_marker(pytest.mark.skip(reason="it would compile for minutes; PyTorch runs it"))


@pytest.fixture(scope="session")
def shared_data():
    """A directory of real text, vocabularies and small checkpoints; tests that need it skip without it."""
    default = Path(__file__).parents[2] / "shared" / "data"
    path = Path(os.environ.get("ZOO_SHARED_DATA", default))
    if not path.is_dir():
        pytest.skip(f"no real data at {path}; set ZOO_SHARED_DATA")
    return path


@pytest.fixture(scope="session")
def backend():
    """Name of the backend under test."""
    import keras

    return keras.backend.backend()
