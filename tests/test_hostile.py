"""A thousand damaged presets: each is a clear error that names the place, or exactly what its files say."""

import json
import os
import shutil
import sys
import time
import warnings

import numpy as np
import pytest
from safetensors.numpy import load_file

import zoo
from tests.hostile import MUTATIONS, SIZES
from tests.variables import variables
from zoo import families, pretrained
from zoo.config import Config

COUNT = 1000
SHAPE = {"vocabulary_size": 11, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 64,
         "max_sequence_length": 16}  # fmt: skip
opened = None  # paths that Python opens, while it is a list


def _watch(event, arguments):
    if opened is not None and event == "open":
        opened.append(str(arguments[0]))


sys.addaudithook(_watch)


@pytest.fixture(scope="module")
def presets(tmp_path_factory):
    """Two presets of one model, whole and in shards, and a directory outside them with other weights."""
    home = tmp_path_factory.mktemp("hostile")
    family, config = families.by_name("gpt2"), Config(**{**families.by_name("gpt2").switches(SHAPE), **SHAPE})
    for seed, (name, size) in enumerate({"whole": 10**9, "shards": 8000, "outside": 10**9}.items()):
        rng = np.random.default_rng(seed // 2)
        arrays = {name: rng.normal(size=shape).astype("float32") for name, shape in variables(config).items()}
        pretrained.save(home / name, family, config, "CausalLM", arrays, max_shard_size=size)
    assert len(list((home / "shards").glob("*.safetensors"))) > 2
    return home


def damaged(presets, i):
    """Preset number i, and the name of what was done to it."""
    rng = np.random.default_rng(i)
    at, mutate = presets / "damaged", MUTATIONS[i % len(MUTATIONS)]
    shutil.rmtree(at, ignore_errors=True)
    shutil.copytree(presets / ("whole" if rng.random() < 0.5 else "shards"), at)
    mutate(rng, at, presets / "outside")
    return at, mutate.__name__


def load(at):
    """(config, name -> array), with nothing but numpy."""
    path = pretrained.resolve(at)
    family, config, hf = pretrained.read(path, weights=True)
    got = {}
    targets = {n: (s, lambda x, n=n: got.__setitem__(n, np.array(x))) for n, s in variables(config).items()}
    pretrained.load_weights(path, family, config, targets, "CausalLM", family.task_of(hf))
    return config, got


def said(at):
    """What the files say, read a second way: the config.json's sizes, and GPT-2's tensors by our names."""
    held = {}
    for path in sorted(at.glob("*.safetensors")):
        held |= load_file(path)
    held = {name.removeprefix("transformer."): x for name, x in held.items()}
    hf, found = json.loads((at / "config.json").read_text()), {}
    for name, x in held.items():
        pieces = name.split(".")
        if pieces[0] == "h":
            layer, (part, *module) = f"decoder/block_{pieces[1]}", pieces[2:]
            kind = {"weight": "scale" if part.startswith("ln") else "kernel", "bias": "bias"}[module[-1]]
            ours = {"ln_1": "attn_norm", "ln_2": "mlp_norm", "attn": "attn/out", "mlp": "mlp/"}[part]
            if module[0] == "c_attn":
                for at_, third in zip(("query", "key", "value"), np.split(x, 3, axis=-1)):
                    found[f"{layer}/attn/{at_}/{kind}"] = third
                continue
            ours += {"c_fc": "up", "c_proj": "" if part == "attn" else "down"}.get(module[0], "")
            found[f"{layer}/{ours}/{kind}"] = x
        else:
            places = {"wte.weight": "token/embeddings", "wpe.weight": "decoder/position/embeddings",
                      "ln_f.weight": "decoder/final_norm/scale", "ln_f.bias": "decoder/final_norm/bias"}  # fmt: skip
            found[places[name]] = x
    return [hf.get(key) for key in SIZES], found


def outside(presets):
    return sorted((path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in (presets / "outside").iterdir())


def test_a_thousand_damaged_presets(presets):
    global opened
    before, counts = outside(presets), {}
    for i in range(COUNT):
        at, kind = damaged(presets, i)
        opened, start = [], time.perf_counter()
        try:
            config, got = load(at)
        except ValueError as error:
            assert str(at) in str(error), f"{i} {kind}: the error does not name the file: {error}"
            outcome = "error"
        else:
            ours = [config.vocabulary_size, config.num_layers, config.num_heads, config.hidden_dim,
                    config.max_sequence_length, config.intermediate_dim]  # fmt: skip
            sizes, expected = said(at)
            defaults = [None, None, None, None, 1024, 4 * config.hidden_dim]
            assert ours == [d if s is None else s for s, d in zip(sizes, defaults)], f"{i} {kind}"
            assert got.keys() == expected.keys(), f"{i} {kind}"
            for name, x in got.items():
                np.testing.assert_array_equal(x, expected[name], err_msg=f"{i} {kind} {name}")
            outcome = "load"
        paths, opened = opened, None
        assert time.perf_counter() - start < 5, f"{i} {kind} took too long"
        assert not [p for p in paths if str(presets) in p and not p.startswith(str(at))], f"{i} {kind} {paths}"
        counts.setdefault(kind, {}).setdefault(outcome, []).append(i)
    assert outside(presets) == before
    for kind in ("truncated", "garbage", "length", "vast", "missing", "unknown", "pointed", "linked", "pickled"):
        assert "load" not in counts[kind], f"{kind} {counts[kind]['load']}"
    assert "load" in counts["flipped"] and "load" in counts["stored"]


@pytest.mark.backends
def test_damaged_presets_as_users_open_them(presets):
    before, count = outside(presets), 0
    for i in range(0, COUNT, 25):
        at, kind = damaged(presets, i)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                zoo.CausalLM.from_preset(at)
        except ValueError as error:
            assert str(at) in str(error), f"{i} {kind}: {error}"
            count += 1
    assert outside(presets) == before and count > 20


def test_an_interrupted_save_leaves_the_old_preset(presets, tmp_path):
    """Killed at every write and every rename, a save leaves the old weights, or the new ones with their config."""
    family, config, hf = pretrained.read(presets / "whole")
    old, new = load(presets / "whole")[1], load(presets / "outside")[1]
    real, states = {"replace": os.replace, "open": open}, set()
    for size in (10**9, 8000):
        for step in range(40):
            at = tmp_path / "preset"
            shutil.rmtree(at, ignore_errors=True)
            shutil.copytree(presets / ("whole" if size == 8000 else "shards"), at)
            left = [step]

            def replace(*arguments):
                if left[0] == 0:
                    raise KeyboardInterrupt
                left[0] -= 1
                return real["replace"](*arguments)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(os, "replace", replace)
                try:
                    pretrained.save(at, family, config, "CausalLM", new, max_shard_size=size)
                    done = True
                except KeyboardInterrupt:
                    done = False
            got = load(at)[1]
            state = "new" if all(np.array_equal(got[n], new[n]) for n in new) else "old"
            wanted = new if state == "new" else old
            assert all(np.array_equal(got[n], wanted[n]) for n in wanted), f"{size} {step}: a mixture"
            states.add((size, state))
            if done:
                assert state == "new"
                break
    assert len(states) == 4
