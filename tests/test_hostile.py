"""A thousand damaged presets: each is a clear error that names the place, or exactly what its files say."""

import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import zoo
from tests.hostile import MUTATIONS, SIZES, flipped, garbage, swapped, truncated
from tests.variables import variables
from zoo import families, pretrained
from zoo.config import Config

COUNT, ROOT = 1000, Path(__file__).parents[1]
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


@pytest.mark.filterwarnings("ignore:.*both set dropout")
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


KILLED = """
import os, shutil, sys
from pathlib import Path
from tests.test_hostile import load
from zoo import pretrained
home, real = Path(sys.argv[1]), os.replace
family, config, _ = pretrained.read(home / "whole")
new = load(home / "outside")[1]
for old, size in (("shards", 10**9), ("whole", 8000), ("shards", 8000)):
    for step in range(40):
        at = home / f"killed-{old}-{size}-{step}"
        shutil.copytree(home / old, at / "preset")
        if not (child := os.fork()):
            left = [step]
            def replace(*arguments):
                if not left[0]:
                    os._exit(9)
                left[0] -= 1
                real(*arguments)
            os.replace = replace
            pretrained.save(at / "preset", family, config, "CausalLM", new, max_shard_size=size)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            break
"""


def state(at, old, new):
    """Which of two sets of arrays a preset holds; anything else is an error."""
    got = load(at)[1]
    for name, arrays in (("old", old), ("new", new)):
        if all(np.array_equal(got[n], arrays[n]) for n in got):
            return name
    raise AssertionError(f"{at} holds a mixture")


def test_a_save_that_fails_at_any_step_leaves_the_old_preset(presets, tmp_path):
    family, config, _ = pretrained.read(presets / "whole")
    old, new, real = load(presets / "whole")[1], load(presets / "outside")[1], os.replace
    for held, size in (("shards", 10**9), ("whole", 8000), ("shards", 8000)):
        for step in range(40):
            at, calls = tmp_path / f"{held}-{size}-{step}" / "preset", iter(range(1000))
            shutil.copytree(presets / held, at)

            def replace(*arguments, calls=calls, step=step):
                if next(calls) == step:
                    raise KeyboardInterrupt
                real(*arguments)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(os, "replace", replace)
                try:
                    pretrained.save(at, family, config, "CausalLM", new, max_shard_size=size)
                    break
                except KeyboardInterrupt:
                    assert state(at, old, new) == "old"
                    assert sorted(os.listdir(at)) == sorted(os.listdir(presets / held))
                    assert os.listdir(at.parent) == ["preset"]
        assert step > 5 and state(at, old, new) == "new"


def test_a_save_that_is_killed_at_any_step_never_leaves_a_mixture(presets):
    command = [sys.executable, "-c", KILLED, presets]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    old, new, states = load(presets / "whole")[1], load(presets / "outside")[1], []
    for at in presets.glob("killed-*"):
        try:
            states.append(state(at / "preset", old, new))
        except ValueError as error:
            assert "config.json" in str(error)
            states.append("error")
    assert states.count("new") == 3 and states.count("old") > 10 and "error" in states


def test_damaged_tokenizers(tmp_path):
    """Files of a tokenizer, cut, flipped, filled with other values: an error that names the place, or a tokenizer."""
    tokenizer = zoo.Tokenizer.train(["to be or not to be, that is the question"] * 9, vocabulary_size=300)
    tokenizer.save(tmp_path / "whole")
    at, outcomes = tmp_path / "damaged", []
    for i in range(300):
        rng = np.random.default_rng(i)
        shutil.rmtree(at, ignore_errors=True)
        shutil.copytree(tmp_path / "whole", at)
        (truncated, flipped, garbage, swapped)[i % 4](rng, at, None)
        try:
            zoo.Tokenizer.from_preset(at).encode("to be")
            outcomes.append("load")
        except ValueError as error:
            assert str(at) in str(error), f"{i}: {error}"
            outcomes.append("error")
    assert outcomes.count("error") > 100
