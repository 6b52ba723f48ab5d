"""Downloads, through `huggingface_hub`, from a server that speaks the Hub's protocol."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.hub import Hub
from tests.test_pretrained import FakeTokenizer, assert_same, loaded, made
from zoo import pretrained

RESOLVE = """
import sys
from zoo import pretrained
try:
    print(pretrained.resolve(*sys.argv[1:]))
except ValueError as error:
    print("ValueError", error)
"""
CHUNK = 10 * 2**20  # bytes that huggingface_hub takes at a time


def saved(path, seed=0, **kwargs):
    family, config, arrays = made(seed=seed)
    pretrained.save(path, family, config, "CausalLM", arrays, FakeTokenizer(), **kwargs)
    return arrays


@pytest.fixture
def hub(tmp_path):
    """A Hub with models of every kind, and a function that asks for one in a new process with one cache."""
    at = {name: tmp_path / name for name in ("plain", "older", "sharded", "pickled", "torn", "tokens", "odd", "h5")}
    arrays = {"plain": saved(at["plain"]), "older": saved(at["older"], seed=1)}
    arrays["sharded"] = saved(at["sharded"], seed=2, max_shard_size=4000)
    for name in ("tf_model.h5", "pytorch_model.bin", "onnx/model.onnx", "flax_model.msgpack"):
        (at["plain"] / name).parent.mkdir(exist_ok=True)
        (at["plain"] / name).write_bytes(b"x" * 3000)
    for name in ("pickled", "h5", "odd", "tokens"):
        at[name].mkdir()
    for name in ("pickled", "h5"):
        shutil.copy(at["plain"] / "config.json", at[name])
        shutil.copy(at["plain"] / "tf_model.h5", at[name])
    (at["pickled"] / "pytorch_model.bin").write_bytes(b"x" * 3000)
    (at["odd"] / "README.md").write_text("no model")
    (at["tokens"] / "tokenizer.json").write_text(json.dumps(_TOKENIZER))
    shutil.copytree(at["sharded"], at["torn"])
    next(at["torn"].glob("model-00002*")).unlink()
    owned = {f"owner/{name}": {"main": path} for name, path in at.items()}
    owned["owner/plain"] = {"main": at["plain"], "v1": at["older"]}
    server = Hub({**owned, "owner/secret": {"main": at["plain"]}}, private=("owner/secret",))

    def resolve(*arguments, **environment):
        return server.run(tmp_path / "home", RESOLVE, *arguments, **environment)

    yield server, resolve, arrays
    server.close()


_TOKENIZER = {
    "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
    "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
    "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "to": 1, "be": 2}, "unk_token": "[UNK]"},
}  # fmt: skip


@pytest.mark.parametrize(("address", "name"), [("hf://owner/plain", "plain"), ("hf://owner/sharded", "sharded"),
                                               ("hf://owner/plain@v1", "older")])  # fmt: skip
def test_weights_arrive_as_they_were_saved(hub, address, name):
    _, resolve, arrays = hub
    directory = Path(resolve(address))
    assert_same(loaded(directory), arrays[name])
    held = {path.name for path in directory.iterdir()}
    assert held >= {"config.json", "tokenizer.json"}
    assert not held & {"tf_model.h5", "pytorch_model.bin", "onnx", "flax_model.msgpack"}


def test_nothing_is_downloaded_twice(hub):
    server, resolve, arrays = hub
    bare = resolve("hf://owner/plain", "main", "")  # without weights
    assert sorted(os.listdir(bare)) == ["config.json", "tokenizer.json"] and not server.sent()
    directory = resolve("hf://owner/plain")
    resolve("hf://owner/plain@main")
    assert bare == directory and server.sent() == [None]
    server.asked.clear()
    assert resolve("hf://owner/plain", HF_HUB_OFFLINE="1") == directory and not server.asked
    assert_same(loaded(directory), arrays["plain"])
    server.close()
    assert resolve("hf://owner/plain") == directory  # no way to the Hub, and no need for one


def test_a_dropped_connection_is_taken_up_where_it_broke(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, CHUNK + 10_000, dtype="uint8")
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "config.json").write_text("{}")
    noise.tofile(tmp_path / "big" / "model.safetensors")
    server = Hub({"owner/big": {"main": tmp_path / "big"}}, drop=CHUNK + 5000)
    directory = server.run(tmp_path / "home", RESOLVE, "hf://owner/big")
    server.close()
    assert server.sent() == [None, f"bytes={CHUNK}-"]
    np.testing.assert_array_equal(np.fromfile(Path(directory) / "model.safetensors", "uint8"), noise)


def test_an_incomplete_download_is_no_preset_and_is_completed_later(hub):
    server, resolve, arrays = hub
    server.hidden = ("model.safetensors",)
    assert "model.safetensors" in resolve("hf://owner/plain")
    assert resolve("hf://owner/plain", HF_HUB_OFFLINE="1").startswith("ValueError")
    server.hidden = ()
    assert_same(loaded(resolve("hf://owner/plain")), arrays["plain"])


def test_other_weights_are_downloaded_only_where_there_are_no_better(hub):
    _, resolve, _ = hub
    assert sorted(os.listdir(resolve("hf://owner/pickled"))) == ["config.json", "pytorch_model.bin"]
    assert sorted(os.listdir(resolve("hf://owner/h5"))) == ["config.json", "tf_model.h5"]


def test_a_repository_of_a_tokenizer_alone(hub, tmp_path):
    server, _, _ = hub
    script = "import sys, zoo; print(zoo.Tokenizer.from_preset(sys.argv[1]).encode('to be or'))"
    assert server.run(tmp_path / "home", script, "hf://owner/tokens") == "[1, 2, 0]"


def test_a_token_is_sent_to_the_hub_and_to_nobody_else(hub):
    server, resolve, _ = hub
    assert "owner/secret" in resolve("hf://owner/secret") and not server.sent()
    assert Path(resolve("hf://owner/secret", HF_TOKEN="hf_secret")).is_dir()
    assert {token for _, path, _, token in server.asked if "/cdn/" not in path} == {None, "Bearer hf_secret"}
    assert {token for _, path, _, token in server.asked if "/cdn/" in path} == {None}


@pytest.mark.parametrize(("address", "message"), [
    ("hf://owner/elsewhere", "owner/elsewhere"), ("hf://owner/plain@v9", "v9"), ("hf://not a name", "not a name"),
    ("hf://owner/odd", "no config.json"), ("hf://", "hf://"), ("hf://owner/plain@", None),
])  # fmt: skip
def test_what_was_tried_is_told(hub, address, message):
    server, resolve, _ = hub
    said = resolve(address)
    if message is None:
        assert Path(said).is_dir()
    else:
        assert said.startswith("ValueError") and message in said
        assert server.address in said or "config.json" in said


def test_without_cache_or_way_the_error_names_both(hub):
    server, resolve, _ = hub
    said = resolve("hf://owner/plain", HF_HUB_OFFLINE="1")
    assert said.startswith("ValueError") and "HF_HUB_OFFLINE" in said and "cache" in said and not server.asked
    assert "openai-community/gpt2" in resolve("gpt2", HF_HUB_OFFLINE="1")
    server.close()
    assert server.address in resolve("hf://owner/plain")


def test_an_index_whose_shard_is_not_there(hub):
    _, resolve, _ = hub
    directory = resolve("hf://owner/torn")
    with pytest.raises(ValueError, match=r"model-00002-of-.*missing"):
        loaded(directory)
