"""Runs small models on meshes of eight virtual devices and prints, as JSON, what tests/test_sharding.py compares.

python -m tests.sharded train data:8+data:4,model:2/fsdp gpt2 bert -- words
python -m tests.sharded sweep                                          all models on all meshes: the worst of each mesh
"""

import collections
import contextlib
import itertools
import json
import os
import random
import re
import sys

os.environ["KERAS_BACKEND"] = "jax"
os.environ["XLA_FLAGS"] = (  # compiled for eight devices, and soon rather than well
    f"--xla_force_host_platform_device_count={os.environ.get('ZOO_TEST_DEVICES', 8)} "
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)

import keras
import numpy as np

import zoo
from zoo.loading import weights

SIZES = {"vocabulary_size": 96, "num_layers": 1, "num_heads": 8, "hidden_dim": 32, "intermediate_dim": 64,
         "max_sequence_length": 16}  # fmt: skip
LOOP = {"scan_layers": True, "remat": True}
MODELS = {  # name: (task, backbone, further fields)
    "gpt2": ("CausalLM", "GPTBackbone", {}),
    "llama": ("CausalLM", "LlamaBackbone", {"num_key_value_heads": 4}),
    "scanned": ("CausalLM", "LlamaBackbone", {"num_key_value_heads": 4, "num_layers": 2, **LOOP}),
    "bert": ("MaskedLM", "BERTBackbone", {}),
    "roberta": ("MaskedLM", "RoBERTaBackbone", {"max_sequence_length": 16}),
    "t5": ("Seq2SeqLM", "T5Backbone", {"decoder_start_token_id": 0}),
    "bart": ("Seq2SeqLM", "BARTBackbone", {"decoder_start_token_id": 0}),
}


def scope(mesh):
    """The scope of "data:4,model:2", "data:4,model:2/fsdp", or of no mesh at all."""
    name, _, shard = mesh.partition("/")
    return contextlib.nullcontext() if name == "none" else zoo.sharding.scope(name, shard or "none")


def build(name, **sizes):
    random.seed(0)
    task, backbone, fields = MODELS[name]
    model = getattr(zoo, task)(getattr(zoo, backbone)(**{**SIZES, **fields, **sizes}))
    model.compile(keras.optimizers.SGD(0.1, momentum=0.5, name="sgd"), weighted_metrics=None)
    model.optimizer.build(model.trainable_variables)
    return model


def batch(name, rows=8, t=12):
    rng = np.random.default_rng(0)
    ids = rng.integers(4, SIZES["vocabulary_size"], (rows, t)).astype("int32")
    segments = np.repeat([[1] * (t // 2) + [2] * (t // 2 - 1) + [0]], rows, axis=0).astype("int32")
    x = {"token_ids": ids, "segment_ids": segments}
    if MODELS[name][0] == "Seq2SeqLM":
        x |= {"decoder_token_ids": np.roll(ids, 1, 1), "decoder_segment_ids": segments}
    w = (rng.random((rows, t)) < 0.7).astype("float32")  # rows have labels in unequal number
    return x, np.roll(ids, -1, 1), w


def step(model, data, count):
    """Losses of so many updates on one batch."""
    return [float(model.train_on_batch(*data, return_dict=True)["loss"]) for _ in range(count)]


def train(name, mesh, steps=5):
    """Losses of `steps` updates, and the first gradients: SGD's momentum after one step is -0.1 times these."""
    with scope(mesh):
        model, data = build(name), batch(name)
        losses, names = step(model, data, 1), [v.path for v in model.trainable_variables]
        moments = {k: np.asarray(v.value) for k, v in zip(names, model.optimizer.variables[2:])}
        return model, losses + step(model, data, steps - 1), moments


def collectives(model, data):
    """[kind, shape] of each collective in the compiled training step."""
    import jax
    from keras import tree

    mesh = keras.distribution.distribution()
    place = lambda x: jax.device_put(x, mesh.get_data_layout(x.shape).backend_layout)  # noqa: E731
    groups = (model.trainable_variables, model.non_trainable_variables, model.optimizer.variables,
              model.metrics_variables)  # fmt: skip
    state = tuple([v.value for v in group] for group in groups)
    shardings = (None, tree.map_structure(lambda x: x.sharding, state))
    program = jax.jit(model.train_step, donate_argnums=0, out_shardings=shardings)
    text = program.lower(state, tree.map_structure(place, data)).compile().as_text()
    kinds = "all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute"
    found = re.findall(rf"= (\(?[a-z0-9]+\[.*?) ({kinds})(?:-start)?\(", text)
    return [(kind, re.findall(r"\[([\d,]*)\]", shapes)) for shapes, kind in found]


def largest_share(variables):
    """Bytes of the fullest device, over its equal share of all the bytes; from the buffers."""
    held, total = {}, 0
    for v in variables:
        total += v.value.nbytes
        for part in v.value.addressable_shards:
            held[part.device] = held.get(part.device, 0) + part.data.nbytes
    return max(held.values()) * len(held) / total


def trained(name, meshes, counted=("gpt2",)):
    """For each mesh what differs from one device, what each device holds, and for some what the compiled step sends."""
    _, losses, gradients = train(name, "none")
    scale, found = max(np.abs(g).max() for g in gradients.values()), {}
    for mesh in meshes:
        model, others, moments = train(name, mesh)
        assert moments.keys() == gradients.keys()
        with scope(mesh):
            sent = collectives(model, batch(name)) if name in counted and "replica" not in mesh else None
        found[mesh] = {
            "loss": max(abs(a - b) / abs(b) for a, b in zip(others, losses)), "falls": losses[0] - losses[-1],
            "gradient": float(max(np.abs(moments[k] - g).max() for k, g in gradients.items()) / scale),
            "weights": largest_share(model.trainable_variables),
            "slots": largest_share(model.optimizer.variables[2:]), "collectives": sent,
        }  # fmt: skip
    return found


def used(name, mesh):
    """Evaluation with a last batch that cannot be split, predictions of batches that can, and generated ids."""
    with scope(mesh):
        model, (x, y, w) = build(name), batch(name, rows=10)
        eight = {k: v[:8] for k, v in x.items()}
        return {
            "evaluate": model.evaluate(x, y, sample_weight=w, batch_size=4, verbose=0),
            "predict": model.predict(eight, batch_size=4, verbose=0).tolist(),
            "generate": model.generate({"token_ids": x["token_ids"][:4, :6]}, max_new_tokens=6).tolist(),
        }


def preset(directory):
    """A preset saved from one mesh and loaded into another: what differs, and the most that one device was given."""
    import jax

    with scope("data:4,model:2/fsdp"):
        saved = build("gpt2", vocabulary_size=512)
        saved.save_to_preset(directory)
    put, given = jax.device_put, []

    def spy(x, *args, **kwargs):
        result = put(x, *args, **kwargs)
        given.append((x.nbytes, max(part.data.nbytes for part in result.addressable_shards)))
        return result

    jax.device_put = spy
    with scope("data:2,model:4/fsdp"):
        loaded = zoo.CausalLM.from_preset(directory)
    jax.device_put = put
    theirs, ours = weights(saved), weights(loaded)
    pairs = [(np.asarray(theirs[k].value), np.asarray(v.value)) for k, v in ours.items()]
    return {"same": theirs.keys() == ours.keys() and all((a == b).all() for a, b in pairs),
            "share": largest_share(ours.values()), "given": given}  # fmt: skip


def checkpoint(directory):
    """Losses of a run without a break, and of runs that others go on with from its checkpoint after two steps."""
    data, found = batch("gpt2"), {}
    with scope("data:4,model:2/fsdp"):
        model = build("gpt2")
        step(model, data, 2)
        zoo.training.save(directory, model, 2)
        found["unbroken"] = step(model, data, 3)
    for mesh in ("none", "data:1", "data:2,model:4/fsdp"):
        with scope(mesh):
            model = build("gpt2")
            for v in model.variables:
                v.assign(v * 0)
            assert zoo.training.restore(directory, model) == 2
            found[mesh] = step(model, data, 3)
    return found


def notes():
    """What could not be split, for sizes that do not divide."""
    with scope("model:8") as mesh:
        build("llama", vocabulary_size=97)
        return mesh.notes


def error(fn):
    """The text of the ValueError that a call raises."""
    try:
        fn()
    except ValueError as raised:
        return str(raised)


def errors():
    def model(mesh, **sizes):
        with scope(mesh):
            build("gpt2", **sizes)

    return {
        "devices": error(lambda: model("data:4,model:4")),
        "odd": error(lambda: model("data:3,model:3")),
        "one": error(lambda: model("data:1/fsdp")),
        "axis": error(lambda: model("data:4,tensor:2")),
        "shard": error(lambda: model("data:4/zero")),
        "model": error(lambda: model("model:7", vocabulary_size=96)),
        "data": error(lambda: model("data:5/fsdp")),
    }


def sweep(names):
    """For each mesh, with and without fsdp, the most of all models: of each number, and of collectives of each kind."""
    meshes = ("data:8", "data:4,model:2", "data:2,model:4", "model:8")
    meshes = [mesh + shard for shard in ("", "/fsdp") for mesh in meshes]
    found, worst = {}, {}
    for name in names:
        found[name] = trained(name, meshes, names)
        print(name, {mesh: {k: v for k, v in one.items() if k != "collectives"} for mesh, one in found[name].items()},
              file=sys.stderr)  # fmt: skip
    for mesh in meshes:
        ones = [one[mesh] for one in found.values()]
        worst[mesh] = {key: max(one[key] for one in ones) for key in ("loss", "gradient", "weights", "slots")}
        sent = [collections.Counter(kind for kind, _ in one["collectives"]) for one in ones]
        worst[mesh]["collectives"] = {kind: max(one[kind] for one in sent) for kind in set().union(*sent)}
    return worst


COMMANDS = {
    "train": lambda meshes, *names: {name: trained(name, meshes.split("+")) for name in names},
    "sweep": lambda *names: sweep(names or tuple(MODELS)),
    "use": lambda mesh, *names: {name: [used(name, "none"), used(name, mesh)] for name in names},
    "files": lambda directory: {"preset": preset(directory + "/preset"), "checkpoint": checkpoint(directory + "/runs")},
    "words": lambda: {"notes": notes(), "errors": errors()},
}

if __name__ == "__main__":
    commands = [list(words) for ends, words in itertools.groupby(sys.argv[1:], "--".__eq__) if not ends]
    print(json.dumps([COMMANDS[command](*arguments) for command, *arguments in commands]))
