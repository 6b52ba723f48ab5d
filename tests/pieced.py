"""Runs small models in one of several processes and prints, as JSON, what tests/test_pieces.py compares.

python -m tests.pieced DIRECTORY MESHES [PORT COUNT INDEX]
"""

import contextlib
import json
import os
import random
import sys
from pathlib import Path

import keras
import numpy as np

import zoo
from zoo import processes, sharding
from zoo.loading import weights

SIZES = {"vocabulary_size": 96, "num_layers": 2, "num_heads": 4, "hidden_dim": 32, "intermediate_dim": 64,
         "max_sequence_length": 16, "dropout": 0.0, "final_dropout": 0.0, "attention_dropout": 0.0,
         "activation_dropout": 0.0}  # fmt: skip
MODELS = {  # name: (task, backbone, further fields)
    "gpt2": ("CausalLM", "GPTBackbone", {}),
    "llama": ("CausalLM", "LlamaBackbone", {"num_key_value_heads": 2, "remat": True}),
    "bert": ("MaskedLM", "BERTBackbone", {}),
    "t5": ("Seq2SeqLM", "T5Backbone", {"decoder_start_token_id": 0}),
}


def scope(mesh):
    name, _, shard = mesh.partition("/")
    return contextlib.nullcontext() if name == "none" else sharding.scope(name, shard or "none")


def build(name, optimizer="sgd", **options):
    random.seed(0)
    task, backbone, fields = MODELS[name]
    model = getattr(zoo, task)(getattr(zoo, backbone)(**{**SIZES, **fields}))
    if optimizer == "sgd":
        optimizer = keras.optimizers.SGD(0.1, momentum=0.5, name="sgd")
    else:
        optimizer = zoo.training.by_pattern(keras.optimizers.AdamW(1e-2, global_clipnorm=0.5, name="adamw"), model)
    model.compile(optimizer, weighted_metrics=None, **options)
    model.optimizer.build(model.trainable_variables)
    return model


def batch(name, rows=8, t=12):
    rng = np.random.default_rng(0)
    ids = rng.integers(4, SIZES["vocabulary_size"], (rows, t)).astype("int32")
    segments = np.repeat([[1] * (t // 2) + [2] * (t // 2 - 1) + [0]], rows, axis=0).astype("int32")
    x = {"token_ids": ids, "segment_ids": segments}
    if MODELS[name][0] == "Seq2SeqLM":
        x |= {"decoder_token_ids": np.roll(ids, 1, 1), "decoder_segment_ids": segments}
    w = (rng.random((rows, t)) < np.linspace(0.2, 1, rows)[:, None]).astype("float32")  # unequal numbers of labels
    return x, np.roll(ids, -1, 1), w


def mine(data):
    """The rows of this process."""
    rows = slice(processes.index(), None, processes.count())
    return keras.tree.map_structure(lambda a: a[rows], data)


def step(model, data, count):
    return [float(model.train_on_batch(*data, return_dict=True)["loss"]) for _ in range(count)]


def trained(name):
    """Five losses, and the first gradients: SGD's momentum after one step is -0.1 times these."""
    model, data = build(name), mine(batch(name))
    losses = step(model, data, 1)
    moments = {v.path: processes.whole(s).tolist() for v, s in zip(model.trainable_variables, model.optimizer.variables[2:])}
    return {"losses": losses + step(model, data, 4), "moments": moments}


def held(model):
    """Bytes of weights and of slots in this process."""
    slots = [v for v in model.optimizer.variables if len(v.shape)]
    local = lambda v: getattr(v.value, "_local_tensor", v.value)  # noqa: E731
    size = lambda vs: sum(int(np.prod(local(v).shape)) for v in vs)  # noqa: E731
    return [size(model.trainable_variables), size(slots)]


def everything(directory):
    found = {name: trained(name) for name in MODELS}
    for accumulate in (1, 2):
        model = build("gpt2", "adamw", accumulate=accumulate)
        losses = step(model, mine(batch("gpt2")), 4)
        norm = float(processes.whole(model.optimizer.gradient_norm))
        found[f"adamw {accumulate}"] = {"losses": losses, "norm": norm}
    found["held"] = held(model)
    x, y, w = batch("gpt2")
    part = mine((x, y, w))
    found["evaluate"] = model.evaluate(part[0], part[1], sample_weight=part[2], batch_size=3, verbose=0, return_dict=True)
    found["predict"] = model.predict(x, batch_size=4, verbose=0).tolist()
    found["generate"] = model.generate({"token_ids": x["token_ids"][:3, :6]}, max_new_tokens=5).tolist()
    found["score"] = [row.tolist() for row in model.log_likelihoods(x, y, w)]
    history = model.fit(x, y, sample_weight=w, batch_size=4, epochs=2, shuffle=False, verbose=0).history
    found["fit"] = [history["loss"], history["accuracy"]]
    return found


def main(directory, meshes, port=None, count=None, index=None):
    if port:
        processes.start(f"127.0.0.1:{port}", int(count), int(index))
    found = {}
    for mesh in meshes.split("+"):
        with scope(mesh):
            found[mesh] = everything(Path(directory))
    if processes.is_first():
        (Path(directory) / f"{processes.count()}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
