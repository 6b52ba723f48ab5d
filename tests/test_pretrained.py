"""Presets: finding, reading and writing directories, against the Hub's client and files of `transformers`."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.variables import variables
from zoo import families, pretrained
from zoo.checkpoint import Checkpoint
from zoo.config import Config

SHAPE = {"vocabulary_size": 11, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 12,
         "max_sequence_length": 16}  # fmt: skip


def made(name="gpt2", seed=0):
    family, rng = families.by_name(name), np.random.default_rng(seed)
    config = Config(**{**family.switches(SHAPE), **SHAPE})
    return family, config, {n: rng.normal(size=s).astype("float32") for n, s in variables(config).items()}


def loaded(directory):
    family, config, _ = pretrained.read(directory)
    got = {}
    targets = {n: (s, lambda x, n=n: got.__setitem__(n, np.array(x))) for n, s in variables(config).items()}
    pretrained.load_weights(directory, family, config, targets)
    return got


def assert_same(got, wanted):
    assert got.keys() == wanted.keys()
    assert all(np.array_equal(got[name], wanted[name]) for name in wanted)


class FakeTokenizer:
    def __init__(self, text="tokens", breaks=False):
        self.text, self.breaks = text, breaks

    def save(self, directory):
        (directory / "tokenizer.json").write_text(self.text)
        if self.breaks:
            raise OSError("disk full")


def test_a_saved_preset_reads_back(tmp_path):
    family, config, arrays = made()
    pretrained.save(tmp_path / "a" / "b", family, config, "CausalLM", arrays, FakeTokenizer(), extra={"id2label": {}})
    assert sorted(os.listdir(tmp_path / "a" / "b")) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert os.listdir(tmp_path / "a") == ["b"]
    again, same, hf = pretrained.read(tmp_path / "a" / "b")
    assert again is family and same == config and hf["id2label"] == {} and hf["dtype"] == "float32"
    assert pretrained.task_of(hf) == "CausalLM" and pretrained.has_tokenizer(tmp_path / "a" / "b")
    assert_same(loaded(tmp_path / "a" / "b"), arrays)


def test_a_bare_backbone_has_the_names_of_the_bare_class(tmp_path):
    import transformers

    for name in families.families():
        family, config, arrays = made(name)
        body = {n: x for n, x in arrays.items() if not n.startswith("head/")}
        pretrained.save(tmp_path / name, family, config, "Backbone", body)
        kind = getattr(transformers, family.architectures["Backbone"])
        model, info = kind.from_pretrained(tmp_path / name, output_loading_info=True)
        model.save_pretrained(tmp_path / "theirs" / name)
        ours, theirs = Checkpoint(tmp_path / name), Checkpoint(tmp_path / "theirs" / name)
        assert set(ours) <= set(theirs) and all("pooler" in n or "positions" in n for n in set(theirs) - set(ours))
        assert not info["unexpected_keys"] and not info["mismatched_keys"]
        assert all("pooler" in key or "positions" in key for key in info["missing_keys"])


def test_dtype_and_shards(tmp_path):
    family, config, arrays = made()
    pretrained.save(tmp_path, family, config, "CausalLM", arrays, dtype="bfloat16", max_shard_size=1000)
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 1
    assert pretrained.read(tmp_path)[2]["dtype"] == "bfloat16"
    for name, x in loaded(tmp_path).items():
        np.testing.assert_array_equal(x, arrays[name].astype(x.dtype))
        assert x.dtype.name == "bfloat16"


def test_saving_over_a_sharded_preset_leaves_only_the_new_one(tmp_path):
    family, config, arrays = made()
    (tmp_path / "README.md").write_text("mine")
    pretrained.save(tmp_path, family, config, "CausalLM", arrays, max_shard_size=1000)
    for kwargs in ({}, {"max_shard_size": 2000}):
        _, _, newer = made(seed=len(kwargs) + 1)
        pretrained.save(tmp_path, family, config, "CausalLM", newer, **kwargs)
        assert_same(loaded(tmp_path), newer)
    assert not (tmp_path / "model.safetensors").exists() and (tmp_path / "README.md").read_text() == "mine"


@pytest.mark.parametrize("where", ["weights", "tokenizer"])
def test_an_interrupted_save_leaves_the_old_preset(tmp_path, where):
    family, config, arrays = made()
    out = tmp_path / "preset"
    pretrained.save(out, family, config, "CausalLM", arrays, FakeTokenizer("old"))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    newer, seen = dict(made(seed=1)[2]), []
    if where == "weights":

        def stop():
            seen.append(1)
            raise KeyboardInterrupt

        newer["decoder/final_norm/bias"] = stop
    with pytest.raises((KeyboardInterrupt, OSError)):
        pretrained.save(out, family, config, "CausalLM", newer, FakeTokenizer("new", breaks=True), max_shard_size=500)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert os.listdir(tmp_path) == ["preset"] and (seen or where == "tokenizer")


def test_a_task_that_the_family_lacks_is_refused(tmp_path):
    family, config, arrays = made()
    with pytest.raises(ValueError, match="gpt2 has no Seq2SeqLM"):
        pretrained.save(tmp_path / "out", family, config, "Seq2SeqLM", arrays)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("text", "message"), [
    ("", "JSON"), ("[1]", "JSON object"), ('{"a": 1}', "model_type"), ('{"model_type": "gtp2"}', "did you mean gpt2"),
    ('{"model_type": "gpt2", "n_embd": 8}', "needs vocabulary_size"), ("[" * 100_000, "JSON"),
    ('{"model_type": "gpt2", "vocab_size": "9", "n_embd": 8, "n_layer": 1, "n_head": 1}', "vocabulary_size.*'9'"),
    ('{"model_type": "gpt2", "resid_pdrop": "no", "vocab_size": 9, "n_embd": 8, "n_layer": 1, "n_head": 1}', "json: "),
    ('{"model_type": "llama", "quantization_config": {"bits": 4}}', "quantization_config"),
])  # fmt: skip
def test_a_config_json_that_cannot_be_used(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        pretrained.read(tmp_path)
    assert "config.json" in str(error.value)


def test_real_checkpoints(shared_data):
    """Files that others made, with tied embeddings stored once and three times."""
    for name in ("stories260K", "t5-dummy"):
        directory = shared_data / "weights" / name
        stored = Checkpoint(directory)
        token = "model.embed_tokens.weight" if name == "stories260K" else "shared.weight"
        np.testing.assert_array_equal(loaded(directory)["token/embeddings"], stored.read(token))


# --- where presets come from ---


def test_a_directory_and_what_is_none(tmp_path):
    family, config, arrays = made()
    pretrained.save(tmp_path / "p", family, config, "CausalLM", arrays)
    assert pretrained.resolve(tmp_path / "p") == tmp_path / "p" == pretrained.resolve(str(tmp_path / "p"))
    with pytest.raises(ValueError, match=r"has no config\.json"):
        pretrained.resolve(tmp_path)
    with pytest.raises(ValueError, match=r"is no directory.*near: .*gpt2"):
        pretrained.resolve("gpt2_smal")
    with pytest.raises(ValueError, match="hf://someone/model"):
        pretrained.resolve("someone/model")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub on this machine: a small server with the few answers that a snapshot needs."""
    family, config, arrays = made()
    pretrained.save(tmp_path / "repo", family, config, "CausalLM", arrays, FakeTokenizer())
    (tmp_path / "repo" / "tf_model.h5").write_bytes(b"x" * 1000)
    (tmp_path / "repo" / "onnx").mkdir()
    (tmp_path / "repo" / "onnx" / "model.onnx").write_bytes(b"x" * 1000)
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_bytes((tmp_path / "repo" / "config.json").read_bytes())
    (pickled / "pytorch_model.bin").write_bytes(b"x")
    server = FakeHub({"repo": tmp_path / "repo", "pickled": pickled})
    script = (
        "import sys; from zoo import pretrained\n"
        "try: print(pretrained.resolve(*sys.argv[1:]))\n"
        "except ValueError as error: print('ValueError', error)"
    )

    def run(*arguments, **environment):
        env = {**os.environ, "HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0",
               "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", **environment}  # fmt: skip
        done = subprocess.run([sys.executable, "-c", script, *arguments], env=env, capture_output=True, text=True,
                              cwd=os.path.dirname(os.path.dirname(__file__)), timeout=120)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    yield server, run, arrays
    server.close()


class FakeHub:
    """Answers the three requests of `huggingface_hub` for repositories owner/NAME at main."""

    def __init__(self, repositories):
        import hashlib
        import http.server
        import threading

        self.asked, outer, commit = [], self, "a" * 40
        held = {
            name: {p.relative_to(at).as_posix(): p.read_bytes() for p in at.rglob("*") if p.is_file()}
            for name, at in repositories.items()
        }

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self, body=True):
                path = self.path.split("?")[0]
                outer.asked.append((path, self.headers.get("authorization")))
                repository = path.removeprefix("/api/models").split("/")[2]
                files, name = held.get(repository, {}), path.removeprefix(f"/owner/{repository}/resolve/{commit}/")
                if files and path == f"/api/models/owner/{repository}/revision/main":
                    names = [{"rfilename": name} for name in files]
                    info = {"id": f"owner/{repository}", "sha": commit, "siblings": names}
                    self.answer(200, json.dumps(info).encode(), body)
                elif files and path.startswith(f"/api/models/owner/{repository}/tree/"):
                    tree = [{"type": "file", "path": n, "size": len(b), "oid": hashlib.sha1(b).hexdigest()}
                            for n, b in files.items()]  # fmt: skip
                    self.answer(200, json.dumps(tree).encode(), body)
                elif name in files:
                    self.answer(200, files[name], body)
                else:
                    self.answer(404, b"{}", body, {"X-Error-Code": "RepoNotFound"})

            def do_HEAD(self):
                self.do_GET(body=False)

            def answer(self, status, content, body, headers=()):
                self.send_response(status)
                for key, value in {"Content-Length": len(content), "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
                                   "X-Repo-Commit": commit, **dict(headers)}.items():  # fmt: skip
                    self.send_header(key, str(value))
                self.end_headers()
                if body:
                    self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def test_a_repository_is_downloaded_once_and_only_what_is_read(hub):
    server, run, arrays = hub
    bare = run("hf://owner/repo", "main", "")
    assert sorted(os.listdir(bare)) == ["config.json", "tokenizer.json"]
    directory = run("hf://owner/repo", HF_TOKEN="hf_secret")
    assert_same(loaded(directory), arrays)
    assert sorted(os.listdir(directory)) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert any(token == "Bearer hf_secret" for _, token in server.asked)
    server.asked.clear()
    assert run("hf://owner/repo@main", HF_HUB_OFFLINE="1") == directory
    assert not server.asked
    run("hf://owner/repo")
    assert not [path for path, _ in server.asked if path.endswith((".safetensors", ".h5", ".onnx"))]


def test_pickled_weights_are_downloaded_only_where_there_are_no_others(hub):
    _, run, _ = hub
    assert sorted(os.listdir(run("hf://owner/pickled"))) == ["config.json", "pytorch_model.bin"]


def test_what_was_tried_is_told(hub):
    server, run, _ = hub
    missing = run("hf://owner/elsewhere")
    assert missing.startswith("ValueError") and "owner/elsewhere" in missing and server.address in missing
    offline = run("hf://owner/repo", HF_HUB_OFFLINE="1")
    assert offline.startswith("ValueError") and "HF_HUB_OFFLINE" in offline
    assert "gpt2" in run("gpt2", HF_HUB_OFFLINE="1")
    assert run("hf://not a name").startswith("ValueError")


def test_presets_name_real_families():
    known = pretrained.presets()
    assert known["gpt2"].source == "hf://openai-community/gpt2"
    assert all(preset.name == name and preset.family in families.families() for name, preset in known.items())
    assert all(preset.source.count("/") == 3 and preset.parameters[-1] in "MB" for preset in known.values())


def test_no_backend_is_imported():
    code = "import sys, zoo.pretrained; sys.exit(bool({'keras', 'torch', 'jax', 'tensorflow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=os.path.dirname(os.path.dirname(__file__))).returncode == 0
