"""Plans: XLA's text read right, rooflines and bytes in closed form, nothing allocated, and the same step as is run."""

import importlib.util
import json
import math
import os

import keras
import numpy as np
import pytest

import zoo
from zoo import backend, losses, planning, sharding
from zoo.nn.attention import attend

# What compilers for TPUs and CPUs write, cut down: three notations of groups, a loop, and what runs beside the rest.
TEXT = """HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  ROOT %sum = f32[]{:T(128)} add(%a, %b)
}

%cond (p: (s32[], f32[8])) -> pred[] {
  %limit = s32[]{:T(128)} constant(5)
  %p = (s32[]{:T(128)}, f32[8]{0:T(128)}) parameter(0)
  ROOT %less = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %r = (f32[]{:T(128)}, bf16[3,7]{1,0}) all-reduce(%x, %y), replica_groups=mesh['a'=2,'b'=8] {'b'}
  ROOT %t = (s32[]{:T(128)}, f32[8]{0:T(128)}) tuple(%i, %r)
}

ENTRY %main (x: f32[4,4]) -> f32[4,4] {
  %loop = (s32[]{:T(128)}, f32[8]{0:T(128)}) while(%init), condition=%cond, body=%body
  %known = (s32[], f32[8]) while(%init), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %g = (bf16[2,4]{1,0}, bf16[8,4]{1,0}) all-gather-start(%x), replica_groups=[4,4]<=[16], dimensions={0}
  %gd = bf16[8,4]{1,0} all-gather-done(%g)
  %s = f32[2,4]{1,0} reduce-scatter(%x), replica_groups={{0,1},{2,3}}, dimensions={0}, to_apply=%add
  ROOT %c = f32[4,4]{1,0} collective-permute(%x), source_target_pairs={{0,1},{1,0}}
}
"""  # fmt: skip


def test_collectives_are_counted_as_often_as_they_run():
    found = {one.kind: one for one in planning.collectives(TEXT)}
    assert set(found) == {"all-reduce", "all-gather", "reduce-scatter", "collective-permute"}
    reduced = 8 * (4 + 2 * 3 * 7)  # in loops of 5 and 3
    assert (found["all-reduce"].count, found["all-reduce"].bytes) == (8, reduced)
    assert found["all-reduce"].sent == reduced * 2 * 7 / 8
    assert (found["all-gather"].count, found["all-gather"].bytes) == (1, 2 * 8 * 4)
    assert found["all-gather"].sent == 2 * 8 * 4 * 3 / 4
    assert (found["reduce-scatter"].bytes, found["reduce-scatter"].sent) == (4 * 8, 4 * 8)
    assert found["collective-permute"].sent == 4 * 16


def test_a_roofline_is_the_longest_of_three_times():
    chip = planning.CHIPS["v5p"]
    times = planning.roofline(chip, flops=2 * chip.flops, accessed=3 * chip.bandwidth, sent=0.5 * chip.links)
    assert (times.compute, times.memory, times.links) == (2, 3, 0.5)
    assert times.seconds == 3 and times.bound == "memory"


def test_products_in_loops_count_as_often_as_they_run():
    jax = pytest.importorskip("jax")

    def run(x, w):
        return jax.lax.scan(lambda x, _: (jax.checkpoint(lambda x: x @ w)(x), None), x, None, length=5)[0]

    shapes = [jax.ShapeDtypeStruct(shape, "float32") for shape in ((3, 8), (8, 8))]
    assert planning.flops(jax.make_jaxpr(run)(*shapes)) == 5 * 2 * 3 * 8 * 8


def test_weights_of_a_terabyte_take_no_memory():
    with sharding.scope("data:1"):
        model = planning.abstract(lambda: zoo.CausalLM(zoo.GPTBackbone(
            vocabulary_size=10**6, num_layers=2, num_heads=8, hidden_dim=65536, intermediate_dim=10**6,
            max_sequence_length=8)))  # fmt: skip
    assert 4 * model.backbone.num_parameters > 1e12


@pytest.mark.parametrize("name, words", [
    ("v9:4x4", "none of v4, v5e, v5p, v6e with a shape"),
    ("v5e", "none of v4, v5e, v5p, v6e with a shape"),
    ("cpu:4096", "XLA_FLAGS=--xla_force_host_platform_device_count"),
])  # fmt: skip
def test_slices_that_are_none(name, words):
    with pytest.raises(ValueError, match=words):
        planning.open_slice(name)


def test_without_libtpu_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"keras-zoo\[jax,plan\]"):
        planning.open_slice("v5e:4x4")


def test_a_mesh_larger_than_the_slice_is_refused():
    with pytest.raises(ValueError, match="needs 32 devices, there are 16: use 'data:16'"):
        sharding.make("data:32", devices=range(16))


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The plans of a small GPT-2 on eight virtual devices, with and without fsdp."""
    import subprocess
    import sys
    from pathlib import Path

    path = tmp_path_factory.mktemp("plan")
    flags = ["--family=gpt2", "--num_layers=1", "--hidden_dim=64", "--vocabulary_size=800", "--sequence_length=32",
             "--batch_size=16", "--topology=cpu:8", "--sweep", "--try_mesh=data:8", "--try_mesh=data:16",
             "--try_shard=none", "--try_shard=fsdp", "--try_batch_size=16", f"--json={path / 'plans.json'}",
             f"--picture={path / 'bars.png'}"]  # fmt: skip
    done = subprocess.run([sys.executable, Path(__file__).parents[1] / "recipes" / "plan.py", *flags],
                          capture_output=True, text=True, env={**os.environ, "ZOO_CACHE": str(path),
                          "XLA_FLAGS": "--xla_force_host_platform_device_count=8 "
                          "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    plans = {plan["shard"]: plan for plan in json.loads((path / "plans.json").read_text())}
    assert (path / "bars.png").read_bytes().startswith(b"\x89PNG")
    return plans, done


def test_bytes_of_a_plan(swept):
    plans, _ = swept
    whole, split = plans["none"], plans["fsdp"]
    state, batch = 3 * 4 * whole["parameters"], 5 * 4 * 16 * 32 / 8  # weights and two slots; five arrays of a batch
    assert math.isclose(whole["argument_bytes"], state + batch, rel_tol=0.01)
    assert math.isclose(split["argument_bytes"], state / 8 + batch, rel_tol=0.05)
    for plan in plans.values():
        assert plan["peak_bytes"] >= plan["argument_bytes"] + plan["temp_bytes"]


def test_collectives_of_a_plan(swept):
    plans, _ = swept
    assert set(plans["none"]["collectives"]) == {"all-reduce"}
    gradients = 4 * plans["none"]["parameters"]
    embeddings = 4 * 800 * 64  # as a table and as the head: two gradients, unless they are added up before
    assert gradients <= plans["none"]["collectives"]["all-reduce"]["bytes"] < 1.05 * (gradients + embeddings)
    assert "all-gather" in plans["fsdp"]["collectives"]


def test_a_sweep_goes_on_after_what_cannot_be(swept):
    plans, done = swept
    assert len(plans) == 2 and "left out: mesh 'data:16' needs 16 devices" in done.stderr
    assert "1. 8 chips of cpu:8, mesh data:8, shard" in done.stdout


@pytest.mark.parametrize("name, chips", [("v4:2x2x1", 4), ("v5e:2x2", 4), ("v5p:2x2x2", 8), ("v6e:2x4", 8)])
def test_a_device_is_a_chip(name, chips):
    """As JAX has them: the two cores of a v4 or v5p are one."""
    pytest.importorskip("libtpu")
    assert len(planning.open_slice(name).devices) == chips


def test_a_plan_for_a_tpu_that_is_not_there(tmp_path):
    pytest.importorskip("libtpu")
    place = planning.open_slice("v5e:2x2")
    with pytest.raises(ValueError, match="'v5e:3x3' is no slice"):
        planning.open_slice("v5e:3x3")
    row = np.zeros((1, 128), "int32")
    with sharding.scope(sharding.make("data:4", devices=place.devices)):
        model = planning.abstract(lambda: zoo.CausalLM(zoo.GPTBackbone(
            vocabulary_size=256, num_layers=1, num_heads=2, hidden_dim=128, intermediate_dim=128,
            max_sequence_length=128, dtype="mixed_bfloat16")))  # fmt: skip
        traced = planning.train_program(model, ({"token_ids": row}, row), 8, "tpu")
        program = planning.compiled(traced, place, 4)
    assert program.fits and {one.kind for one in program.collectives} == {"all-reduce"}
    assert program.argument_bytes > 12 * model.backbone.num_parameters


def test_what_is_made_for_accelerators_computes_the_same():
    """Attention that is computed again and a loss in other slices, with the same dropout."""
    jax = pytest.importorskip("jax")
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, 6, 4, 8)).astype("float32") for _ in range(3))
    mask = rng.random((2, 1, 6, 6)) < 0.8
    hidden, kernel = rng.normal(size=(2, 6, 8)).astype("float32"), rng.normal(size=(8, 50)).astype("float32")
    labels, weights = rng.integers(0, 50, (2, 6)), np.ones((2, 6), "float32")

    def run(state, q, k, v, hidden, kernel):
        seeds = keras.random.SeedGenerator(1, name="seeds")
        with keras.StatelessScope([(seeds.state, state)]) as scope:
            drop = lambda x: keras.random.dropout(x, 0.5, seed=seeds)  # noqa: E731
            y = attend(q, k, v, 0.5, mask, causal=True, drop=drop, seeds=seeds)
            loss, _ = losses.chunked_cross_entropy(hidden, kernel, labels, weights)
            return keras.ops.sum(y * y) + loss, scope.get_current_value(seeds.state)

    def both(platform):
        with backend.targeting(platform):
            grad = jax.value_and_grad(run, argnums=(1, 2, 3, 4, 5), has_aux=True)
            return jax.tree.leaves(grad(np.array([1, 0], "uint32"), q, k, v, hidden, kernel))

    with backend.targeting("tpu"):
        kept = jax.vjp(lambda q: attend(q, k, v, 1.0), q)[1]
        assert max(leaf.size for leaf in jax.tree.leaves(kept)) == q.size  # no probabilities
    for expected, found in zip(both("cpu"), both("tpu")):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
