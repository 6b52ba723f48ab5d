"""Loading a checkpoint: zoo, KerasHub and transformers, each time in a process of its own, in turns on one machine.

python benchmarks/loading.py                                    all that is installed, 500 MB of a Llama and a GPT-2
python benchmarks/loading.py --size=50 --rounds=1 --contestants=zoo:torch,transformers:torch

`call` is what from_preset or from_pretrained takes, without imports. `loaded` is that and a look at every page of every
weight: PyTorch's weights stay on the file, here and in transformers, and are read when they are used. `memory` is the
process's peak then, over that before the call, as a share of the file. The file is made once, kept in the temporary
directory and in the system's cache; a Llama's kernels must be transposed for Keras, a GPT-2's query, key and value cut
apart. KerasHub loads the backbone alone, since its tasks want the files of a tokenizer.
"""

import json
import os
import re
import tempfile
import time
from pathlib import Path

import numpy as np
import turns
from absl import app, flags

FLAGS = flags.FLAGS
BACKENDS = ("jax", "tensorflow", "torch")
ALL = [*(f"zoo:{b}" for b in BACKENDS), *(f"keras_hub:{b}" for b in BACKENDS), "transformers:torch"]
flags.DEFINE_list("contestants", ALL, "Who takes part.")
flags.DEFINE_list("families", ["llama", "gpt2"], "Whose checkpoints.")
flags.DEFINE_integer("size", 500, "Megabytes of a checkpoint, about.", lower_bound=1)
flags.DEFINE_integer("rounds", 5, "Rounds.", lower_bound=1)
flags.DEFINE_string("output", None, "Prefix of the files .json and .png.")
flags.DEFINE_string("worker", None, "Used by the benchmark itself.")
flags.DEFINE_string("checkpoint", None, "Used by the benchmark itself.")


def llama(megabytes):
    """config.json and the shapes of the tensors of a Llama of about a size."""
    d = 1024 if megabytes >= 200 else 256
    f, v = d * 11 // 4, 16 * d
    names = {f"self_attn.{name}_proj": (d, d) for name in "qkvo"}
    names |= {"mlp.gate_proj": (f, d), "mlp.up_proj": (f, d), "mlp.down_proj": (d, f)}
    names |= {"input_layernorm": (d,), "post_attention_layernorm": (d,)}
    layers = max(1, (megabytes * 250_000 - 2 * v * d) // (4 * d * d + 3 * f * d))
    shapes = dict.fromkeys(("model.embed_tokens.weight", "lm_head.weight"), (v, d)) | {"model.norm.weight": (d,)}
    shapes |= {f"model.layers.{i}.{name}.weight": shape for i in range(layers) for name, shape in names.items()}
    return {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": v, "hidden_size": d,
            "intermediate_size": f, "num_hidden_layers": layers, "num_attention_heads": d // 64, "hidden_act": "silu",
            "num_key_value_heads": d // 64, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0, "tie_word_embeddings": False, "dtype": "float32"}, shapes  # fmt: skip


def gpt2(megabytes):
    """The same of a GPT-2."""
    d = 768 if megabytes >= 200 else 256
    v = 32 * d
    names = {"attn.c_attn": (d, 3 * d), "attn.c_proj": (d, d), "mlp.c_fc": (d, 4 * d), "mlp.c_proj": (4 * d, d)}
    layers = max(1, (megabytes * 250_000 - v * d) // (12 * d * d))
    shapes = {"wte.weight": (v, d), "wpe.weight": (1024, d), "ln_f.weight": (d,), "ln_f.bias": (d,)}
    for i in range(layers):
        shapes |= {f"h.{i}.{name}.weight": shape for name, shape in names.items()}
        shapes |= {f"h.{i}.{name}.bias": shape[1:] for name, shape in names.items()}
        shapes |= {f"h.{i}.{name}.{kind}": (d,) for name in ("ln_1", "ln_2") for kind in ("weight", "bias")}
    return {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": v, "n_embd": d,
            "n_layer": layers, "n_head": d // 64, "n_positions": 1024, "resid_pdrop": 0.1, "embd_pdrop": 0.1,
            "attn_pdrop": 0.1, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
            "dtype": "float32"}, shapes  # fmt: skip


FAMILIES = {"llama": llama, "gpt2": gpt2}


def checkpoint(family):
    """The directory of a checkpoint, made if it is not there."""
    from zoo.checkpoint import write

    path = Path(tempfile.gettempdir()) / "zoo-benchmarks" / f"{family}-{FLAGS.size}"
    if not (path / "config.json").is_file():
        path.mkdir(parents=True, exist_ok=True)
        config, shapes = FAMILIES[family](FLAGS.size)
        noise = np.random.default_rng(0).standard_normal(1_000_003, "float32") / 50
        write(path, ((name, np.resize(noise, shape)) for name, shape in shapes.items()))
        (path / "config.json").write_text(json.dumps(config))
    (path / "model.safetensors").read_bytes()  # into the system's cache
    return path


def resident(name):
    """Bytes of a line of this process's status: VmRSS now, VmHWM at most."""
    return 1024 * int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def prepare():
    """Imports the worker's library; returns a function that loads the checkpoint once and says what that took."""
    start = time.perf_counter()
    (library, backend), path = FLAGS.worker.split(":"), FLAGS.checkpoint
    os.environ["KERAS_BACKEND"] = backend
    if library == "transformers":
        from transformers import GPT2LMHeadModel, LlamaForCausalLM

        load = {"llama": LlamaForCausalLM, "gpt2": GPT2LMHeadModel}[Path(path).name.split("-")[0]].from_pretrained
    else:
        load = cls_of(library).from_preset
    imported = time.perf_counter() - start

    def work():
        before, start = resident("VmRSS"), time.perf_counter()
        model = load(path)
        called = time.perf_counter() - start
        for array in arrays(model, library, backend):
            looked_at(array)
        loaded = time.perf_counter() - start
        share = (resident("VmHWM") - before) / os.path.getsize(f"{path}/model.safetensors")
        return {"import": imported, "call": called, "loaded": loaded, "memory": share}

    return work


def cls_of(library):
    if library == "zoo":
        import zoo.backbones  # noqa: F401  (what from_preset would import)
        from zoo import CausalLM

        return CausalLM
    from keras_hub.models import Backbone

    return Backbone


def arrays(model, library, backend):
    """The weights as numpy arrays in the memory where they are."""
    if library == "transformers":
        return (p.detach().numpy() for p in model.parameters())
    view = {"jax": np.asarray, "torch": lambda x: x.detach().numpy(),
            "tensorflow": lambda x: np.asarray(memoryview(x.read_value()))}[backend]  # fmt: skip
    return (view(v.value) for v in model.weights)


def looked_at(array):
    """Reads a number of every page."""
    rows = array if array.strides[0] >= array.strides[-1] else array.T
    return sum(float(rows[..., i].sum()) for i in range(0, rows.shape[-1] if rows.ndim else 0, 1024))


def measure(family):
    """name -> the answers of a contestant, each from a new process."""
    path, found = checkpoint(family), {}
    for i in range(FLAGS.rounds):
        for name in FLAGS.contestants if i % 2 == 0 else FLAGS.contestants[::-1]:
            one = turns.Contestant(name, [f"--checkpoint={path}"])
            one.ask("prepare")
            answer = one.ask("work")
            one.close()
            print(f"{family} {i + 1}/{FLAGS.rounds}  {name}: {one.error or turns._short(answer)}", flush=True)
            if answer:
                found.setdefault(name, []).append(answer)
    return found


def main(_):
    if FLAGS.worker:
        turns.serve(prepare)
        return
    if unknown := [*{*FLAGS.contestants} - {*ALL}, *{*FLAGS.families} - {*FAMILIES}]:
        raise app.UsageError(f"{unknown[0]!r} is unknown; contestants are {', '.join(ALL)}; families llama and gpt2.")
    results = {family: measure(family) for family in FLAGS.families}
    pictures = {}
    for family, found in results.items():
        middle = {name: {key: turns.median(rounds, key) for key in rounds[0]} for name, rounds in found.items()}
        rows = [[name, *(f"{m[key]:.2f}" for key in ("import", "call", "loaded", "memory")), *ratios(name, middle)]
                for name, m in middle.items()]  # fmt: skip
        header = [family, "import s", "call s", "loaded s", "memory", "/ keras_hub", "/ transformers"]
        print("\n" + turns.table(header, rows))
        pictures[f"{family}, milliseconds until loaded"] = {name: 1000 * m["loaded"] for name, m in middle.items()}
        pictures[f"{family}, peak memory in % of the file"] = {name: 100 * m["memory"] for name, m in middle.items()}
    if FLAGS.output:
        turns.write_json(f"{FLAGS.output}.json", {"size": FLAGS.size, "rounds": results})
        turns.bars(f"{FLAGS.output}.png", pictures, "", f"Loading {FLAGS.size} MB")


def ratios(name, middle):
    """Time until loaded over that of KerasHub on the same backend, and of transformers."""
    peers = f"keras_hub:{name.split(':')[1]}", "transformers:torch"
    return [f"{middle[name]['loaded'] / middle[peer]['loaded']:.2f}" if peer in middle else "" for peer in peers]


if __name__ == "__main__":
    app.run(main)
