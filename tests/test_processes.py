"""Several processes do what one does: two of them, with two virtual devices each, against one with one device."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import zoo
from zoo import processes
from zoo.checkpoint import Checkpoint

MESHES = ("data:2,model:2/fsdp",)
ROOT = Path(__file__).parents[1]


def meeting():
    """An address where processes can meet."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The directory, and what `tests.several` finds in one process alone, and in two."""
    directory = tmp_path_factory.mktemp("several")

    def start(index, count, where, *meshes):
        command = [sys.executable, "-m", "tests.several", str(index), str(count), where, str(directory), *meshes]
        devices = {"ZOO_TEST_DEVICES": str(count)}
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                env={**os.environ, **devices})  # fmt: skip

    def ended(process, index, count):
        err = process.communicate()[1]
        assert process.returncode == 0, err[-3000:]
        return json.loads((directory / f"found-{index}-{count}.json").read_text())

    one, _ = ended(start(0, 1, "-", "none"), 0, 1)
    where = meeting()
    pair = [start(i, 2, where, *MESHES) for i in range(2)]
    (several, _), (_, printed) = (ended(process, i, 2) for i, process in enumerate(pair))
    assert not printed
    return directory, one["none"], several


@pytest.mark.parametrize("mesh", MESHES)
def test_results_are_those_of_one_device(runs, mesh):
    """Losses, validation, a resumed run, evaluation, prediction of rows that divide and that do not, generation."""
    _, one, several = runs
    one, several = dict(one), dict(several[mesh])
    assert several.pop("slice") == [0, 2] and one["losses"][0] > one["losses"][-2] + 0.05
    np.testing.assert_allclose(several.pop("resumed")[::2], one["losses"][4::2], rtol=1e-6)
    for name, value in several.items():
        if name == "generate":
            assert value == one[name]
        elif name == "predict":
            for ours, theirs in zip(value, one[name], strict=True):
                np.testing.assert_allclose(ours, theirs, atol=1e-5)
        else:
            np.testing.assert_allclose(np.array(value, float), np.array(one[name], float), rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize("mesh", MESHES)
def test_files_are_those_of_one_device(runs, mesh):
    directory, name = runs[0], mesh.replace("/", "-").replace(",", "-").replace(":", "")
    for ours, theirs in (("none/000000004", f"{name}/000000004"), ("none-preset", f"{name}-preset")):
        ours, theirs = Checkpoint(directory / ours), Checkpoint(directory / theirs)
        assert set(ours) == set(theirs)
        for tensor in ours:
            np.testing.assert_allclose(theirs.read(tensor), ours.read(tensor), atol=3e-6, err_msg=tensor)
    assert zoo.CausalLM.from_preset(directory / f"{name}-preset").config.hidden_dim == 32


def test_processes_talk(runs):
    said = runs[2]["words"]
    assert said["mean"] == 0.05 and said["broadcast"] == 2**52 + 1
    assert said["errors"] == [
        "mesh 'data:2' leaves 2 of the 4 devices in 2 processes idle: use 'data:4'.",
        "mesh 'data:8' needs 8 devices, there are 4: use 'data:4'.",
        "mesh 'model:3' leaves 1 of the 4 devices in 2 processes idle: use 'data:4'.",
    ]
    assert "A batch of 3 rows in each of 2 slices does not divide into the 4 parts of the mesh" in said["rows"]


def test_a_model_over_parts_of_processes_names_a_mesh():
    text = "'data:2,model:3' splits a model over parts of processes, which have 2 devices each: use 'data:6'"
    with pytest.raises(ValueError, match=text):
        zoo.sharding.words.checked("data:2,model:3", "none", devices=6, processes=3)
    sizes = zoo.sharding.words.checked("data:2,model:4", "none", devices=8, processes=4)
    assert sizes == {"replica": 1, "data": 2, "model": 4}


def test_one_alone_has_no_others(backend):
    assert (processes.index(), processes.count(), processes.is_first()) == (0, 1, True)
    processes.barrier("nobody")
    assert processes.broadcast(7) == 7 and processes.mean({"a": [1, 2.5]}) == {"a": [1, 2.5]}


@pytest.mark.parametrize("given, text", [
    (("host:1", 2, None), "belong together"), ((None, 2, 0), "belong together"),
    (("host", 2, 0), "must be host:port"), (("host:1", 2, 2), "process_id=2 is not one of num_processes=2"),
])  # fmt: skip
def test_a_job_is_told_whole_or_not_at_all(given, text):
    with pytest.raises(ValueError, match=text):
        processes.start(*given)
