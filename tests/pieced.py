"""What tests/test_pieces.py runs in one process, and in each of several: python -m tests.pieced DIRECTORY MESHES ….

One process without a mesh is the yardstick. The first of several writes what it found to DIRECTORY/found.json; then
they train on, saving each step, until they are killed.
"""

import contextlib
import json
import os
import random
import sys
import traceback
from pathlib import Path

import keras
import numpy as np

import zoo
from zoo import processes, sharding, training

SIZES = {"vocabulary_size": 96, "num_layers": 2, "num_heads": 4, "hidden_dim": 32, "intermediate_dim": 64,
         "max_sequence_length": 16, "dropout": 0.0}  # fmt: skip
MODELS = {  # name: (task, backbone, further fields)
    "llama": ("CausalLM", "LlamaBackbone", {"num_key_value_heads": 2, "remat": True}),
    "t5": ("Seq2SeqLM", "T5Backbone", {"decoder_start_token_id": 0}),
}
if keras.backend.backend() == "tensorflow":  # which takes seconds to trace each
    MODELS.pop("t5")
STEPS = 200  # of the run that is killed


def scope(mesh):
    """The scope of "data:2", "data:2/fsdp", or of no mesh at all."""
    name, _, shard = mesh.partition("/")
    return contextlib.nullcontext() if name == "none" else sharding.scope(name, shard or "none")


def build(name, optimizer=None, **options):
    random.seed(0)
    task, backbone, fields = MODELS[name]
    model = getattr(zoo, task)(getattr(zoo, backbone)(**{**SIZES, **fields}))
    if optimizer is None:
        optimizer = keras.optimizers.AdamW(1e-2, global_clipnorm=0.5, name="adamw")
        optimizer = training.by_pattern(optimizer, model)
    model.compile(optimizer, weighted_metrics=None, **options)
    return model


def batch(name, rows=8, t=12):
    """A batch whose rows have labels in very unequal number."""
    rng = np.random.default_rng(0)
    ids = rng.integers(4, SIZES["vocabulary_size"], (rows, t)).astype("int32")
    segments = np.repeat([[1] * (t // 2) + [2] * (t // 2 - 1) + [0]], rows, axis=0).astype("int32")
    x = {"token_ids": ids, "segment_ids": segments}
    if MODELS[name][0] == "Seq2SeqLM":
        x |= {"decoder_token_ids": np.roll(ids, 1, 1), "decoder_segment_ids": segments}
    w = (rng.random((rows, t)) < np.linspace(0.2, 1, rows)[:, None]).astype("float32")
    return x, np.roll(ids, -1, 1), w


def fit(model, data, steps=4, **options):
    """Losses of so many updates on one batch."""
    x, y, w = data
    options = {"batch_size": len(y), "shuffle": False, "verbose": 0, **options}
    return model.fit(x, y, sample_weight=w, epochs=steps, **options).history["loss"]


def trained(name):
    """Losses, and the first gradients: SGD's momentum after one step is -0.1 times these."""
    model, data = build(name, keras.optimizers.SGD(0.1, momentum=0.5, name="sgd")), batch(name)
    losses, slots = fit(model, data, 1), model.optimizer.variables[2:]
    moments = {v.path: processes.whole(slot.value).tolist() for v, slot in zip(model.trainable_variables, slots)}
    return {"losses": losses + fit(model, data, 3), "moments": moments}


def held(variables):
    """Numbers of weights in this process."""
    return sum(int(np.prod(getattr(v.value, "_local_tensor", v.value).shape)) for v in variables)


def used(model, directory):
    """Evaluation, predictions, generation and likelihoods after training, and the preset of the model."""
    x, y, w = batch("llama")
    model.save_to_preset(directory / "preset")
    loaded = zoo.CausalLM.from_preset(directory / "preset")
    return {
        "loaded": loaded.evaluate(x, y, sample_weight=w, batch_size=4, verbose=0),
        "evaluate": model.evaluate(x, y, sample_weight=w, batch_size=4, verbose=0),
        "predict": model.predict(x, batch_size=4, verbose=0).tolist(),
        "generate": model.generate({"token_ids": x["token_ids"][:3, :6]}, max_new_tokens=5).tolist(),
        "score": np.concatenate(model.log_likelihoods(x, y, w)).tolist(),
    }  # fmt: skip


def train(directory, mesh):
    """Everything on a mesh."""
    with scope(mesh):
        found = {name: trained(name) for name in MODELS}
        for accumulate in (1, 2) if len(MODELS) > 1 else (2,):
            model = build("llama", accumulate=accumulate)
            losses = fit(model, batch("llama"))
            norm = float(processes.whole(model.optimizer.gradient_norm.value))
            found[f"adamw {accumulate}"] = {"losses": losses, "norm": norm}
        slots = [v for v in model.optimizer.variables if len(v.shape)]
        found["held"] = held(model.trainable_variables), held(slots)
        return found | used(model, directory)


def run(directory, mesh="none", steps=STEPS):
    """Trains so many steps, from the newest checkpoint on, and saves each; the number of that, and the losses."""
    with scope(mesh):
        model, losses = build("llama"), []
        done = training.restore(directory / "checkpoints", model)
        for step in range(done, done + steps):
            losses += fit(model, batch("llama"), 1)
            training.save(directory / "checkpoints", model, step + 1)
        return done, losses


def main(directory, meshes, port, count, index):
    processes.start(f"127.0.0.1:{port}", int(count), int(index))
    directory, meshes = Path(directory), meshes.split("+")
    found = {mesh: train(directory, mesh) for mesh in meshes}
    if processes.is_first():
        (directory / ".found").write_text(json.dumps(found))
        (directory / ".found").rename(directory / "found.json")
    run(directory, meshes[-1])


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as error:
        traceback.print_exception(error)
        print("stopped", file=sys.stderr, flush=True)
        os._exit(1)
