"""Meshes of eight virtual devices against one device: numbers, what each device holds, what is sent, and every error.

Here some families train on one mesh with everything split, and GPT-2 on most meshes; for all of both:
python -m tests.sharded sweep
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import pytest

import zoo
from zoo import processes, sharding

MESHES = ("data:8", "model:8", "data:8/fsdp", "replica:2,data:2,model:2/fsdp")
FAMILIES = ("scanned", "t5")
HARDEST = "data:4,model:2/fsdp"


def sharded(*args):
    """What `python -m tests.sharded` prints: the results of its commands, between which "--" stands."""
    done = subprocess.run([sys.executable, "-m", "tests.sharded", *args], cwd=Path(__file__).parents[1], timeout=600,
                          capture_output=True, text=True, env={**os.environ, "KERAS_BACKEND": "jax"})  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Of all commands in one process, most of whose time is its start."""
    return sharded("train", "+".join(MESHES), "gpt2", "--", "train", HARDEST, *FAMILIES, "--", "use", HARDEST, "gpt2",
                   "--", "files", str(tmp_path_factory.mktemp("files")), "--", "words")  # fmt: skip


@pytest.fixture(scope="module")
def trained(results):
    return results[0] | results[1]


@pytest.mark.parametrize("name, mesh", [("gpt2", mesh) for mesh in MESHES] + [(name, HARDEST) for name in FAMILIES])
def test_training_is_that_of_one_device(trained, name, mesh):
    found = trained[name][mesh]
    assert found["falls"] > 0.05  # so that five losses depend on five updates
    assert found["loss"] < 1e-5 and found["gradient"] < 1e-5
    if "fsdp" in mesh:
        replicas = sharding.parse(mesh.partition("/")[0])["replica"]
        assert found["weights"] < 1.05 * replicas and found["slots"] < 1.05 * replicas
    elif mesh.startswith("data"):
        assert found["weights"] > 3.9 and found["slots"] > 3.9  # whole on each device, or halves


def sent(trained, mesh, *kinds):
    return [sizes for kind, sizes in trained["gpt2"][mesh]["collectives"] if kind in kinds]


def test_data_parallel_only_reduces(trained):
    """One sum for the number of labels, whose inverse the gradients need, and one for gradients and metrics."""
    everything = trained["gpt2"]["data:8"]["collectives"]
    assert {kind for kind, _ in everything} == {"all-reduce"} and len(everything) <= 2


def test_tensor_parallel_moves_no_weights(trained):
    """Sums of activations alone: two a block and direction, the embedding's and the head's."""
    everything = trained["gpt2"]["model:8"]["collectives"]
    assert {kind for kind, _ in everything} == {"all-reduce"} and 4 <= len(everything) <= 9


def test_fsdp_gathers_weights_and_not_activations(trained):
    """Each weight at most once a pass; of activations, only token ids and what the embedding's gradient needs."""
    gathers = sent(trained, "data:8/fsdp", "all-gather")
    weights = [sizes for sizes in gathers if not sizes[0].startswith("8,12")]
    assert 14 < len(weights) <= 2 * 16  # GPT-2's 16 weights of one block, positions, tokens and the last norm
    assert all(sizes == ["8,12,1"] for sizes in gathers if sizes not in weights)
    assert len(sent(trained, "data:8/fsdp", "all-to-all", "collective-permute")) <= 1


def test_models_are_used_under_a_mesh(results):
    one, many = results[2]["gpt2"]
    np.testing.assert_allclose(many["evaluate"], one["evaluate"], rtol=1e-5)
    np.testing.assert_allclose(many["predict"], one["predict"], atol=1e-5)
    assert many["generate"] == one["generate"]


def test_files_know_no_mesh(results):
    found = results[3]
    assert found["preset"]["same"] and found["preset"]["share"] < 1.05
    weights = [(whole, part) for whole, part in found["preset"]["given"] if whole >= 128]
    assert len(weights) >= 16 and all(part <= whole / 8 for whole, part in weights)
    losses = found["checkpoint"]
    for mesh in ("none", "data:1", "data:2,model:4/fsdp"):
        np.testing.assert_allclose(losses[mesh], losses["unbroken"], rtol=1e-5)


def test_what_cannot_be_split_is_named(results):
    words = results[4]
    notes = "\n".join(words["notes"])
    assert len(words["notes"]) == len(set(words["notes"])) == 4
    assert "attn/key/kernel is not split over model:8, which does not divide num_key_value_heads=4" in notes
    assert "token/embeddings is not split over model:8, which does not divide size 97" in notes


ERRORS = {
    "devices": "mesh 'data:4,model:4' needs 16 devices, there are 8: use 'data:2,model:4'",
    "odd": "mesh 'data:3,model:3' needs 9 devices, there are 8: use 'data:8'",
    "one": "shard='fsdp' has nothing to split over with mesh 'data:1', which is one device: use 'data:8'",
    "axis": "has an axis 'tensor'; axes are replica, data, model",
    "shard": "shard='zero' is none of none, fsdp",
    "model": "model:7 divides nothing of this model (num_heads=8, num_key_value_heads=8, intermediate_dim=64, "
    "vocabulary_size=96): use model:4",
    "data": "data:5 divides nothing of this model (hidden_dim=32, num_heads=8, num_key_value_heads=8, "
    "intermediate_dim=64, vocabulary_size=96): use data:4",
}


@pytest.mark.parametrize("name", ERRORS)
def test_a_mesh_that_cannot_be_names_one_that_can(results, name):
    assert ERRORS[name] in results[4]["errors"][name]


@pytest.mark.parametrize("mesh, text", [("data:4,data:2", "names the axis data twice"), ("data", "no size"),
                                        ("data:0", "no size"), ("data:-1", "no size"), ("", "an axis ''"),
                                        ("data=4", "an axis 'data=4'")])  # fmt: skip
def test_a_mesh_is_read_or_refused(mesh, text):
    with pytest.raises(ValueError, match=text):
        sharding.parse(mesh)


@pytest.mark.backends
def test_other_backends_refuse_distributions_of_keras(backend, monkeypatch):
    if backend == "jax":
        pytest.skip("JAX takes them")
    monkeypatch.setattr(keras.distribution, "distribution", object)
    with pytest.raises(ValueError, match=f"On {backend} Keras ignores keras.distribution"):
        sharding.planned(None)


def test_what_several_processes_cannot_do_is_refused(backend, monkeypatch):
    """On JAX, where all run one program; elsewhere each has its own."""
    if backend != "jax":
        pytest.skip("JAX alone refuses them")
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(sharding, "_in_force", [None])
    task, model = zoo.MaskedLM, mock.Mock()  # they refuse before they look at it
    for call, what in ((lambda: task.fill_mask(model, "[MASK]"), "fill_mask"), (lambda: task.fit(model, {}), "fit on")):
        with pytest.raises(ValueError, match=f"{what}.* works in one process alone: save the model"):
            call()


@pytest.mark.backends
def test_a_mesh_of_one_device_is_one_device():
    """The scope ends with its block, whatever happens in it."""
    with pytest.raises(KeyError), sharding.scope("data:1") as mesh:
        assert sharding.current() is mesh and mesh.notes == []
        raise KeyError
    assert sharding.current() is None and keras.distribution.distribution() is None
