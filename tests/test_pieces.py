"""PyTorch and TensorFlow over several processes or devices: what one process finds, share of memory, death, errors."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import zoo
from tests import pieced
from zoo import sharding

pytestmark = pytest.mark.backends
PROCESSES = {"torch": "data:2+data:2/fsdp", "tensorflow": "data:2"}


@pytest.fixture(scope="module", autouse=True)
def others(backend):
    if backend == "jax":
        pytest.skip("one program sees whole batches there: tests/test_sharding.py")


def start(command, directory, mesh, count):
    """Starts processes that know each other."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    directory.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.pieced", command, str(directory), mesh, str(port), str(count)]
    root = Path(__file__).parents[1]
    return [subprocess.Popen([*command, str(i)], cwd=root, stderr=subprocess.PIPE, text=True) for i in range(count)]


def finished(command, directory, started):
    errors = [process.communicate(timeout=400)[1] for process in started]
    assert not any(process.returncode for process in started), errors[0][-3000:]
    return json.loads((directory / f"{command}.json").read_text())


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("pieces")


@pytest.fixture(scope="module")
def found(backend, directory):
    """What one process finds, and what each mesh does; "devices" are those of one process."""
    several = start("train", directory / "several", PROCESSES[backend], 2)
    one = pieced.train(directory, "none")
    meshes = finished("train", directory / "several", several)
    if backend == "tensorflow":
        path = directory / "devices"
        meshes["devices"] = finished("train", path, start("train", path, "data:2", 1))["data:2"]
    return one, meshes


def test_training_is_that_of_one_process(found):
    one, meshes = found
    for mesh, many in meshes.items():
        for name in pieced.MODELS:
            assert one[name]["losses"][0] - one[name]["losses"][-1] > 0.05
            np.testing.assert_allclose(many[name]["losses"], one[name]["losses"], rtol=1e-6, err_msg=mesh)
            moments, scale = one[name]["moments"], max(np.abs(m).max() for m in one[name]["moments"].values())
            for path, moment in many[name]["moments"].items():
                np.testing.assert_allclose(moment, moments[path], rtol=0, atol=2e-6 * scale, err_msg=f"{mesh} {path}")


def test_clipping_and_slices_see_the_whole_batch(found):
    one, meshes = found
    for mesh, many in meshes.items():
        for name in ("adamw 1", "adamw 2"):
            np.testing.assert_allclose(many[name]["losses"], one[name]["losses"], rtol=1e-5, err_msg=mesh)
            np.testing.assert_allclose(many[name]["norm"], one[name]["norm"], rtol=1e-4, err_msg=mesh)


def test_models_are_used_under_a_mesh(found):
    one, meshes = found
    for mesh, many in meshes.items():
        np.testing.assert_allclose(many["evaluate"], one["evaluate"], rtol=1e-4, err_msg=mesh)
        np.testing.assert_allclose(many["predict"], one["predict"], atol=2e-4, err_msg=mesh)
        np.testing.assert_allclose(many["score"], one["score"], atol=2e-4, err_msg=mesh)
        assert many["generate"] == one["generate"]


def test_fsdp_holds_shares(found, backend):
    if backend != "torch":
        pytest.skip("weights are whole elsewhere")
    one, meshes = found
    for whole, copy, share in zip(one["held"], meshes["data:2"]["held"], meshes["data:2/fsdp"]["held"]):
        assert copy == whole and share < 1.05 * whole / 2


def test_presets_are_whole(found, directory):
    """The last mesh wrote it, after it trained."""
    saved, other = (zoo.CausalLM.from_preset(path / "preset") for path in (directory, directory / "several"))
    for a, b in zip(saved.weights, other.weights):
        if a.dtype == "float32":
            np.testing.assert_allclose(a, b, atol=2e-4, err_msg=a.path)


def test_others_stop_when_one_dies_and_fewer_go_on(backend, tmp_path):
    mesh = PROCESSES[backend].split("+")[-1]
    started = start("run", tmp_path, mesh, 2)
    while not (tmp_path / "checkpoints" / f"{3:09d}").exists():
        assert started[0].poll() is None, started[0].stderr.read()
        time.sleep(0.1)
    started[1].kill()
    _, message = started[0].communicate(timeout=60)
    assert started[0].returncode == 1 and "stopped" in message
    left = pieced.run(tmp_path)
    unbroken = pieced.run(tmp_path / "unbroken")["losses"]
    assert 3 <= left["done"] < pieced.STEPS
    np.testing.assert_allclose(left["losses"], unbroken[left["done"] :], rtol=1e-5)


@pytest.mark.parametrize("mesh, shard, text", [
    ("data:4", "none", "needs 4 devices, there are 1"),
    ("data:1", "fsdp", "nothing to split over"),
])  # fmt: skip
def test_a_mesh_needs_its_devices(mesh, shard, text):
    with pytest.raises(ValueError, match=text), sharding.scope(mesh, shard):
        pass


def test_weights_are_not_split_over_model(backend, monkeypatch):
    """Nor, on TensorFlow, over data."""
    engine = sharding._engine()
    monkeypatch.setattr(engine, "devices", lambda: 2)
    with pytest.raises(ValueError, match="model:2 needs KERAS_BACKEND=jax.*use data:2"):
        sharding.make("model:2")
    if backend == "tensorflow":
        with pytest.raises(ValueError, match="fsdp' needs KERAS_BACKEND=jax or torch.*use data:2"):
            sharding.make("data:2", "fsdp")


def test_what_pieces_cannot_do_is_refused(monkeypatch):
    loss = zoo.InBatchContrast()
    for options, text in (({"loss": loss, "jit_compile": False}, "compares the rows"),
                          ({"loss": "mse", "jit_compile": True}, "jit_compile=True")):  # fmt: skip
        with pytest.raises(ValueError, match=text):
            sharding.check_compiled(**options)
