"""Greedy generation by zoo and by its peers: the same sizes, random weights and prompts, in turns on one machine.

python benchmarks/generation.py                                             all that is installed
python benchmarks/generation.py --contestants=zoo:jax,keras_hub:jax --batches=1,8 --rounds=5

GPT-2 in float32. Peers: KerasHub on the three backends and `transformers` on PyTorch, with the cache that grows and
with the static one. A round generates --new tokens after prompts of --prompt tokens for each batch size, then the first
token alone, and the first token after a prompt of --long tokens. `cold` is the first token in a process, compiling
included. `of the bus` is the share of the memory-bandwidth limit: the bytes of the weights, and of the keys and values
that are filled, over the time of a token and the copy bandwidth that numpy reaches in the same run.
"""

import os
import threading
import time

import numpy as np
import turns
from absl import app, flags

FLAGS = flags.FLAGS
BACKENDS = ("jax", "tensorflow", "torch")
ALL = [*(f"zoo:{b}" for b in BACKENDS), *(f"keras_hub:{b}" for b in BACKENDS), "transformers:dynamic",
       "transformers:static"]  # fmt: skip
flags.DEFINE_list("contestants", ALL, "Who takes part.")
flags.DEFINE_list("batches", ["1", "8", "32"], "Rows.")
flags.DEFINE_integer("layers", 6, "Layers.")
flags.DEFINE_integer("width", 384, "Width; heads are of 64.")
flags.DEFINE_integer("vocabulary", 16384, "Vocabulary.")
flags.DEFINE_integer("prompt", 64, "Tokens of a prompt.")
flags.DEFINE_integer("new", 192, "Tokens generated.")
flags.DEFINE_integer("long", 1000, "Tokens of the long prompt; 0 for none.")
flags.DEFINE_integer("rounds", 3, "Rounds.")
flags.DEFINE_string("output", None, "Prefix of the files .json and .png.")
flags.DEFINE_string("worker", None, "Used by the benchmark itself.")


def make():
    """A function that does one round of the worker's library."""
    library, kind = FLAGS.worker.split(":")
    if library != "transformers":
        os.environ["KERAS_BACKEND"] = kind
    # Peers with one program a length know how long texts become, as zoo knows.
    generate = {"zoo": with_zoo, "keras_hub": with_keras_hub, "transformers": with_transformers}[library](kind)
    rng, batches = np.random.default_rng(0), list(map(int, FLAGS.batches))
    prompts = {b: rng.integers(5, FLAGS.vocabulary, (b, FLAGS.prompt)).astype("int32") for b in batches}
    long = rng.integers(5, FLAGS.vocabulary, (1, FLAGS.long)).astype("int32")
    cold = timed(generate, prompts[batches[0]], 1)

    def work():
        found = {"cold": cold, "first": timed(generate, prompts[batches[0]], 1)}
        for b in batches:
            found[f"batch {b}"] = b * FLAGS.new / timed(generate, prompts[b], FLAGS.new)
        if FLAGS.long:
            found["prefill"] = timed(generate, long, 1)
        return found

    work()  # compiles
    return work


def timed(generate, prompt, new):
    start = time.perf_counter()
    out = generate(prompt, new)
    seconds = time.perf_counter() - start
    assert out.shape == (len(prompt), prompt.shape[1] + new), out.shape
    return seconds


def sizes():
    """What zoo and KerasHub call the sizes."""
    return {"vocabulary_size": FLAGS.vocabulary, "num_layers": FLAGS.layers, "num_heads": FLAGS.width // 64,
            "hidden_dim": FLAGS.width, "intermediate_dim": 4 * FLAGS.width, "dropout": 0.0,
            "max_sequence_length": positions()}  # fmt: skip


def positions():
    return max(FLAGS.prompt + FLAGS.new, FLAGS.long + 1)


def with_zoo(_):
    import zoo

    model = zoo.CausalLM(zoo.GPTBackbone(**sizes()))
    return lambda prompt, new: model.generate({"token_ids": prompt}, new)


def with_keras_hub(_):
    import keras_hub

    model = keras_hub.models.GPT2CausalLM(keras_hub.models.GPT2Backbone(**sizes()))
    model.compile(sampler="greedy")

    def generate(prompt, new):
        padded = np.pad(prompt, ((0, 0), (0, new)))
        seen = np.pad(np.ones_like(prompt), ((0, 0), (0, new)))
        found = model.generate({"token_ids": padded, "padding_mask": seen}, stop_token_ids=None)
        return np.asarray(found["token_ids"])

    return generate


def with_transformers(kind):
    import torch
    import transformers as hf

    config = hf.GPT2Config(vocab_size=FLAGS.vocabulary, n_layer=FLAGS.layers, n_embd=FLAGS.width, eos_token_id=None,
                           n_head=FLAGS.width // 64, n_positions=positions(), bos_token_id=None)  # fmt: skip
    torch.manual_seed(0)
    model = hf.GPT2LMHeadModel(config).eval()
    static = {"cache_implementation": "static", "disable_compile": True} if kind == "static" else {}

    def generate(prompt, new):
        ids = torch.tensor(prompt).long()
        return model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False,
                              pad_token_id=0, **static).numpy()  # fmt: skip

    return generate


def copy_bandwidth(megabytes=256, repeats=5):
    """Bytes a second, read and written, of a copy by as many threads as there are cores, the best of a few."""
    a = np.ones(megabytes * 2**18, "float32")
    b, count, times = np.empty_like(a), os.cpu_count(), []
    pieces = list(zip(np.array_split(a, count), np.array_split(b, count)))
    for _ in range(repeats):
        threads = [threading.Thread(target=lambda x, y: np.copyto(y, x), args=piece) for piece in pieces]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        times.append(time.perf_counter() - start)
    return 2 * a.nbytes / min(times)


def step_bytes(batch):
    """The weights and, half of the new tokens filled, the keys and values that a step reads."""
    weights = 12 * FLAGS.layers * FLAGS.width**2 + FLAGS.vocabulary * FLAGS.width
    return 4 * (weights + batch * 2 * FLAGS.layers * FLAGS.width * (FLAGS.prompt + FLAGS.new / 2))


def main(_):
    if FLAGS.worker:
        turns.serve(make)
        return
    settings = [f"--{n}={FLAGS[n].value}" for n in ("layers", "width", "vocabulary", "prompt", "new", "long")]
    settings.append(f"--batches={','.join(FLAGS.batches)}")
    bandwidth = copy_bandwidth()
    rounds, _ = turns.compete([turns.Contestant(name, settings) for name in FLAGS.contestants], FLAGS.rounds)
    keys = [f"batch {b}" for b in FLAGS.batches]
    results = {name: {key: turns.median(found, key) for key in found[0]} for name, found in rounds.items()}
    rows = []
    for name, found in results.items():
        shares = [step_bytes(int(b)) * found[key] / int(b) / bandwidth for b, key in zip(FLAGS.batches, keys)]
        speeds = [f"{found[key]:,.0f} ({share:.0%})" for key, share in zip(keys, shares)]
        rows.append(
            [name, *speeds, *(f"{1000 * found[key]:,.0f}" for key in ("cold", "first", "prefill") if key in found)]
        )
    header = ["tokens/s (of the bus)", *keys, "cold ms", "first ms", f"prefill {FLAGS.long} ms"]
    print(turns.table(header[: len(rows[0])], rows))
    print(f"copy bandwidth {bandwidth / 1e9:.1f} GB/s, read and written")
    if FLAGS.output:
        turns.write_json(FLAGS.output + ".json", {"copy_bandwidth": bandwidth, "rounds": rounds, "medians": results})
        groups = {key: {name: found[key] for name, found in results.items()} for key in keys}
        title = f"Generation: {FLAGS.layers} layers, {FLAGS.width} wide, {FLAGS.prompt} + {FLAGS.new} tokens, float32"
        turns.bars(FLAGS.output + ".png", groups, "tokens per second", title)


if __name__ == "__main__":
    app.run(main)
