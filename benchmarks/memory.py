"""Memory of a training step: what its peak adds to the weights and the optimizer, with and without logits.

python benchmarks/memory.py                                   vocabulary 128,000, 8 x 512 tokens, all that is installed
python benchmarks/memory.py --vocabulary=32000 --contestants=zoo:jax,plain:jax

`zoo` trains with its default loss, which makes a slice of the logits at a time; `plain` is the same model with Keras's
cross-entropy on all logits; `transformers` is its GPT-2 on PyTorch. Each worker notes its resident memory after two
steps on one token a row, with weights and optimizer in place, and the peak of the steps after; the growth is the
difference. Linux only: the peak is the kernel's.
"""

import os
import re
from pathlib import Path

import numpy as np
import turns
from absl import app, flags

FLAGS = flags.FLAGS
BACKENDS = ("jax", "tensorflow", "torch")
ALL = [f"{name}:{backend}" for backend in BACKENDS for name in ("zoo", "plain")] + ["transformers:torch"]
flags.DEFINE_list("contestants", ALL, "Who takes part.")
flags.DEFINE_integer("layers", 2, "Layers.")
flags.DEFINE_integer("width", 128, "Width; heads are of 64.")
flags.DEFINE_integer("vocabulary", 128_000, "Vocabulary.")
flags.DEFINE_integer("batch", 8, "Rows.")
flags.DEFINE_integer("length", 512, "Tokens in a row.")
flags.DEFINE_integer("rounds", 1, "Rounds.")
flags.DEFINE_string("output", None, "Prefix of the files .json and .png.")
flags.DEFINE_string("worker", None, "Used by the benchmark itself.")


def resident(key):
    """Megabytes of VmRSS (now) or VmHWM (the peak)."""
    return int(re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1000


def make():
    """A function that trains two steps and measures."""
    name, backend = FLAGS.worker.split(":")
    os.environ["KERAS_BACKEND"] = backend
    step = (with_transformers if name == "transformers" else with_zoo)(name)
    step(1)

    def work():
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = resident("VmRSS")
        step(FLAGS.length)
        return {"growth_mb": resident("VmHWM") - before, "before_mb": before}

    return work


def rows(length):
    """Tokens and labels (batch, length)."""
    drawn = np.random.default_rng(0).integers(0, FLAGS.vocabulary, (FLAGS.batch, length + 1)).astype("int32")
    return drawn[:, :-1], drawn[:, 1:]


def with_zoo(name):
    import keras

    import zoo

    model = zoo.CausalLM(zoo.GPTBackbone(
        vocabulary_size=FLAGS.vocabulary, num_layers=FLAGS.layers, num_heads=FLAGS.width // 64, hidden_dim=FLAGS.width,
        intermediate_dim=4 * FLAGS.width, max_sequence_length=FLAGS.length, dropout=0.0, attention_dropout=0.0,
    ))  # fmt: skip
    plain = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight")
    model.compile("adamw", **({"loss": plain, "weighted_metrics": []} if name == "plain" else {}))

    def step(length):
        ids, labels = rows(length)
        batch = {"token_ids": ids}, labels, np.ones(labels.shape, "float32")
        model.fit((batch for _ in range(2)), steps_per_epoch=2, shuffle=False, verbose=0)

    return step


def with_transformers(_):
    import torch
    import transformers as hf

    model = hf.GPT2LMHeadModel(hf.GPT2Config(
        vocab_size=FLAGS.vocabulary, n_layer=FLAGS.layers, n_embd=FLAGS.width, n_head=FLAGS.width // 64,
        n_positions=FLAGS.length, embd_pdrop=0.0, resid_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
    ))  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters())

    def step(length):
        ids = torch.tensor(rows(length)[0]).long()
        for _ in range(2):
            optimizer.zero_grad(set_to_none=True)
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()

    return step


def main(_):
    if FLAGS.worker:
        turns.serve(make)
        return
    settings = [f"--{n}={FLAGS[n].value}" for n in ("layers", "width", "vocabulary", "batch", "length")]
    growth = {}
    for name in FLAGS.contestants:  # one after the other: together they would not fit
        found, _ = turns.compete([turns.Contestant(name, settings)], FLAGS.rounds)
        growth |= {key: turns.median(answers, "growth_mb") for key, answers in found.items()}
    table = []
    for name, size in growth.items():
        plain = growth.get("plain:" + name.split(":")[1])
        table.append([name, f"{size:,.0f}", f"{size / plain:.2f}" if plain and name.startswith("zoo") else ""])
    print(turns.table(["", "growth (MB)", "of the plain loss's"], table))
    print(f"logits alone: {FLAGS.batch * FLAGS.length * FLAGS.vocabulary * 4 / 1e6:,.0f} MB")
    if FLAGS.output:
        turns.write_json(FLAGS.output + ".json", growth)
        turns.bars(FLAGS.output + ".png", {"peak of a step": growth}, "MB", "Memory over weights and optimizer")


if __name__ == "__main__":
    app.run(main)
