"""PyTorch and TensorFlow over several processes: what one process finds, share of memory, death, errors."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
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


def start(directory, meshes, count):
    """Starts processes that know each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    directory.mkdir()
    command = [sys.executable, "-m", "tests.pieced", str(directory), meshes, str(port), str(count)]
    root = Path(__file__).parents[1]
    return [subprocess.Popen([*command, str(i)], cwd=root, stderr=subprocess.PIPE, text=True) for i in range(count)]


def waited(started, path):
    """Returns when processes have written a file."""
    while not path.exists():
        assert started[0].poll() in (None, 0), started[0].communicate()[1][-3000:]
        time.sleep(0.1)
    return path


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("pieces")


@pytest.fixture(scope="module")
def pair(backend, directory):
    """Two processes, which find what each mesh does, and then train on."""
    if backend == "tensorflow":
        pytest.skip("takes minutes to trace")
    started = start(directory / "several", PROCESSES[backend], 2)
    yield started
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def found(backend, directory, pair):
    """What one process finds, and what each mesh does."""
    one = pieced.train(directory, "none")
    meshes = json.loads(waited(pair, directory / "several" / "found.json").read_text())
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
        for name in (name for name in one if name.startswith("adamw")):
            np.testing.assert_allclose(many[name]["losses"], one[name]["losses"], rtol=1e-5, err_msg=mesh)
            np.testing.assert_allclose(many[name]["norm"], one[name]["norm"], rtol=1e-4, err_msg=mesh)


def test_models_are_used_under_a_mesh(found):
    one, meshes = found
    for mesh, many in meshes.items():
        np.testing.assert_allclose(many["evaluate"], one["evaluate"], rtol=1e-4, err_msg=mesh)
        np.testing.assert_allclose(many["loaded"], many["evaluate"], rtol=1e-5, err_msg=mesh)
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


def test_others_stop_when_one_dies_and_fewer_go_on(found, pair, directory):
    waited(pair, directory / "several" / "checkpoints" / f"{3:09d}")
    pair[1].kill()
    _, message = pair[0].communicate(timeout=60)
    assert pair[0].returncode == 1 and "stopped" in message
    done, losses = pieced.run(directory / "several", steps=2)
    assert done >= 3
    np.testing.assert_allclose(losses, pieced.run(directory / "unbroken", steps=done + 2)[1][done:], rtol=1e-5)


def test_devices_of_one_process_are_one_device(backend, tmp_path):
    """Of rows, and of labels in them, they see unequal numbers."""
    if backend != "tensorflow":
        pytest.skip("PyTorch has a process for each device")
    command = [sys.executable, "-m", "tests.mirrored", str(tmp_path)]
    ended = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert not ended.returncode, ended.stderr[-3000:]
    found = json.loads(ended.stdout.splitlines()[-1])
    one, two = found["none"], found["data:2"]
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-6)
    np.testing.assert_allclose(two["norm"], one["norm"], rtol=1e-5)
    for path, weight in one["weights"].items():
        np.testing.assert_allclose(two["weights"][path], weight, atol=1e-5, err_msg=path)
    (first, _), (second, _) = two["seeds"]
    assert second == first + 1 and one["seeds"][0][0] == first


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
    with pytest.raises(ValueError, match=r"model:2 needs KERAS_BACKEND=jax.*use data:2"):
        sharding.make("model:2")
    if backend == "tensorflow":
        with pytest.raises(ValueError, match=r"fsdp' needs KERAS_BACKEND=jax or torch.*use data:2"):
            sharding.make("data:2", "fsdp")


def test_what_pieces_cannot_do_is_refused(monkeypatch):
    loss = zoo.InBatchContrast()
    for options, text in (
        ({"loss": loss, "jit_compile": False}, "compares the rows"),
        ({"loss": "mse", "jit_compile": True}, "jit_compile=True"),
        ({"loss": keras.losses.MeanSquaredError("sum"), "jit_compile": False}, "has no mean over"),
    ):
        with pytest.raises(ValueError, match=text):
            sharding.check_compiled(**options)


def test_processes_without_a_mesh_are_refused(monkeypatch):
    monkeypatch.setattr(zoo.processes, "count", lambda: 2)
    with pytest.raises(ValueError, match=r"2 processes would each train a model of its own.*'data:2'"):
        sharding.planned(None)


def test_a_layer_that_comes_after_fsdp_is_named(backend):
    """Its gradient is no share, as those of weights that were split are."""
    if backend != "torch":
        pytest.skip("weights are whole elsewhere")
    layer = keras.layers.Dense(2, name="late")
    layer.build((None, 3))
    with pytest.raises(ValueError, match="late/kernel was added to a model after shard='fsdp' had split it"):
        sharding._engine().Shards.averaged(None, [None, layer.kernel.value], [layer.bias, layer.kernel])
