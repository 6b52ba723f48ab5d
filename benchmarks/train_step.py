"""A training step of zoo and of its peers: the same sizes, batches and AdamW, in turns on one machine.

python benchmarks/train_step.py                                      all workloads, all that is installed
python benchmarks/train_step.py --workloads=causal_lm --contestants=zoo:jax,keras_hub:jax --rounds=5
python benchmarks/train_step.py --contestants=zoo:jax,zoo:jax-bare   what fit adds to the compiled step
python benchmarks/train_step.py --contestants=zoo:torch,zoo:torch-compile   what jit_compile=True gives; zoo:tensorflow
    always has it, as in recipes/pretrain.py, and keras_hub:tensorflow-compile against Keras's default on CPUs

Workloads: causal language modelling (GPT-2), masked language modelling (BERT, 15 % of the tokens), span corruption
(T5, inputs of --length, targets of a quarter) and `packed`: documents of mixed length, which zoo packs into rows and
the peers pad; there tokens per second count real tokens alone. Peers: KerasHub on the three backends, `transformers` on
PyTorch (eager and torch.compile) and nanoGPT's model written with PyTorch alone. The share of the peak is that of 6 x
parameters x tokens plus attention, over the matrix product that numpy reaches in the same run.
"""

import os
import time

import numpy as np
import turns
from absl import app, flags

FLAGS = flags.FLAGS
BACKENDS = ("jax", "tensorflow", "torch")
ALL = [*(f"zoo:{b}" for b in BACKENDS), *(f"keras_hub:{b}" for b in BACKENDS), "keras_hub:tensorflow-compile",
       "transformers:eager", "transformers:compile", "nanogpt:eager", "nanogpt:compile"]  # fmt: skip
WORKLOADS = ["causal_lm", "masked_lm", "span_corruption", "packed"]
flags.DEFINE_list("workloads", WORKLOADS, "What is trained.")
flags.DEFINE_list("contestants", ALL, "Who takes part.")
flags.DEFINE_integer("layers", 6, "Layers, of each stack.")
flags.DEFINE_integer("width", 384, "Width; heads are of 64.")
flags.DEFINE_integer("vocabulary", 16384, "Vocabulary.")
flags.DEFINE_integer("batch", 8, "Rows.")
flags.DEFINE_integer("length", 256, "Tokens in a row.")
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "float32, or bfloat16 with float32 weights.")
flags.DEFINE_integer("rounds", 5, "Rounds, each of --steps steps.")
flags.DEFINE_integer("steps", 3, "Steps in a round.")
flags.DEFINE_string("output", None, "Prefix of the files .json and .png.")
flags.DEFINE_string("worker", None, "Used by the benchmark itself.")
flags.DEFINE_string("workload", None, "Used by the benchmark itself.")


def batch():
    """token_ids, labels and the like, the same for all."""
    rng, (b, t, v) = np.random.default_rng(0), (FLAGS.batch, FLAGS.length, FLAGS.vocabulary)
    ids = rng.integers(5, v, (b, t + 1)).astype("int32")
    found = {"ids": ids[:, :-1], "next": ids[:, 1:], "lengths": np.full(b, t)}
    picked = np.sort(np.argsort(rng.random((b, t)), axis=1)[:, : round(0.15 * t)], axis=1).astype("int32")
    found |= {"picked": picked, "target": rng.integers(5, v, (b, t // 4)).astype("int32")}
    if FLAGS.workload == "packed":
        found["lengths"] = document_lengths()[:b]
    return found


def document_lengths():
    """Tokens of paragraphs: log-normal, cut at a row."""
    drawn = np.random.default_rng(0).normal(4.1, 0.8, 40 * FLAGS.batch)
    return np.clip(np.exp(drawn), 4, FLAGS.length).astype(int)


def make():
    """A function that does one step of the worker's library, and the tokens that are in it."""
    library, kind = FLAGS.worker.split(":")
    if library in ("zoo", "keras_hub"):
        os.environ["KERAS_BACKEND"] = kind.split("-")[0]
        run, tokens = {"zoo": with_zoo, "keras_hub": with_keras_hub}[library](batch())
    else:
        run, tokens = with_torch(library, kind == "compile", batch())
    run(2)

    def work():
        start = time.perf_counter()
        run(FLAGS.steps)
        seconds = time.perf_counter() - start
        return {"tokens_per_second": tokens * FLAGS.steps / seconds, "milliseconds": 1000 * seconds / FLAGS.steps}

    return work


def fitting(model, x, y, w):
    """Steps of Keras's fit on one batch again and again, fed as recipes/pretrain.py does."""
    from zoo import backend

    def run(n):
        batches = backend.feed(((x, y, w) for _ in range(n)), ragged=False)
        model.fit(batches, steps_per_epoch=n, shuffle=False, verbose=0)

    return run


def with_zoo(d):
    import zoo

    sizes = {"vocabulary_size": FLAGS.vocabulary, "num_layers": FLAGS.layers, "num_heads": FLAGS.width // 64,
             "hidden_dim": FLAGS.width, "intermediate_dim": 4 * FLAGS.width, "dropout": 0.0,
             "attention_dropout": 0.0}  # fmt: skip
    dtype = "float32" if FLAGS.dtype == "float32" else "mixed_bfloat16"
    x, y = {"token_ids": d["ids"]}, d["next"]
    tokens, w = d["ids"].size, np.ones(d["ids"].shape, "float32")
    if FLAGS.workload == "causal_lm":
        model = zoo.CausalLM(zoo.GPTBackbone(**sizes, max_sequence_length=FLAGS.length, dtype=dtype))
    elif FLAGS.workload == "packed":
        model = zoo.CausalLM(zoo.GPTBackbone(**sizes, max_sequence_length=FLAGS.length, dtype=dtype))
        x["segment_ids"], w = packed()
        tokens = int((x["segment_ids"] > 0).sum())
    elif FLAGS.workload == "masked_lm":
        model = zoo.MaskedLM(zoo.BERTBackbone(**sizes, max_sequence_length=FLAGS.length, dtype=dtype))
        x["mask_positions"], y = d["picked"], np.take_along_axis(d["ids"], d["picked"], 1)
        w = np.ones(y.shape, "float32")
    else:
        model = zoo.Seq2SeqLM(zoo.T5Backbone(**sizes, head_dim=64, dtype=dtype))
        y = d["target"]
        x["decoder_token_ids"], w = np.pad(y, ((0, 0), (1, 0)))[:, :-1], np.ones(y.shape, "float32")
        tokens += y.size
    # On TensorFlow as recipes/pretrain.py does; Keras's "auto" compiles there on accelerators alone.
    xla = FLAGS.worker.endswith("-compile") or FLAGS.worker == "zoo:tensorflow"
    model.compile("adamw", jit_compile=True if xla else "auto")
    return (bare if FLAGS.worker.endswith("-bare") else fitting)(model, x, y, w), tokens


def bare(model, x, y, w):
    """Steps of the same train function on JAX, compiled, without Keras's fit around it."""
    import jax

    model.optimizer.build(model.trainable_variables)
    step = jax.jit(model.train_step, donate_argnums=0)
    groups = (model.trainable_variables, model.non_trainable_variables, model.optimizer.variables,
              model.metrics_variables)  # fmt: skip
    state = [[v.value for v in group] for group in groups]

    def run(n):
        nonlocal state
        for _ in range(n):
            _, state = step(state, (x, y, w))
        jax.block_until_ready(state)

    return run


def packed():
    """Documents of the lengths of `batch`, as many as best-fit packing puts into the rows: segments and weights."""
    from zoo.data.packing import BestFit

    segments = np.zeros((FLAGS.batch, FLAGS.length), "int32")
    rows, _, _, lengths = BestFit(document_lengths(), FLAGS.length, seed=None).pieces(0, np.arange(FLAGS.batch))
    for i, row in enumerate(segments):
        found = lengths[rows == i]
        row[: found.sum()] = np.repeat(np.arange(1, len(found) + 1), found)
    weights = (segments > 0) & (np.pad(segments, ((0, 0), (0, 1)))[:, 1:] == segments)
    return segments, weights.astype("float32")


def with_keras_hub(d):
    import keras
    import keras_hub

    if FLAGS.dtype != "float32":
        keras.config.set_dtype_policy("mixed_bfloat16")
    sizes = {"vocabulary_size": FLAGS.vocabulary, "num_layers": FLAGS.layers, "num_heads": FLAGS.width // 64,
             "hidden_dim": FLAGS.width, "intermediate_dim": 4 * FLAGS.width, "dropout": 0.0}  # fmt: skip
    seen = (np.arange(FLAGS.length) < d["lengths"][:, None]).astype("int32")
    x, y, w, models = {"token_ids": d["ids"], "padding_mask": seen}, d["next"], seen.astype("float32"), keras_hub.models
    tokens = int(seen.sum())
    if FLAGS.workload in ("causal_lm", "packed"):
        model = models.GPT2CausalLM(models.GPT2Backbone(**sizes, max_sequence_length=FLAGS.length))
    elif FLAGS.workload == "masked_lm":
        model = models.BertMaskedLM(models.BertBackbone(**sizes, max_sequence_length=FLAGS.length))
        x |= {"mask_positions": d["picked"], "segment_ids": np.zeros_like(d["ids"])}
        y = np.take_along_axis(d["ids"], d["picked"], 1)
        w = np.ones(y.shape, "float32")
    else:
        model = models.T5Seq2SeqLM(models.T5Backbone(**sizes, key_value_dim=64, use_gated_activation=False))
        y = d["target"]
        x = {"encoder_token_ids": d["ids"], "encoder_padding_mask": seen, "decoder_padding_mask": np.ones_like(y),
             "decoder_token_ids": np.pad(y, ((0, 0), (1, 0)))[:, :-1]}  # fmt: skip
        tokens, w = tokens + y.size, np.ones(y.shape, "float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adamw", loss, jit_compile=True if FLAGS.worker.endswith("-compile") else "auto")

    if keras.backend.backend() == "tensorflow":  # as for zoo, without the wait that `zoo.backend.feed` tells of
        return fitting(model, x, y, w), tokens

    def run(n):  # its fit takes arrays or a dataset, and no generator
        big = {name: np.concatenate([value] * n) for name, value in x.items()}
        labels, weights = np.concatenate([y] * n), np.concatenate([w] * n)
        model.fit(big, labels, sample_weight=weights, batch_size=len(y), shuffle=False, verbose=0)

    return run, tokens


def with_torch(library, compiles, d):
    import torch

    torch.manual_seed(0)
    ids, b = torch.tensor(d["ids"]).long(), {}
    seen = torch.arange(FLAGS.length)[None] < torch.tensor(d["lengths"])[:, None]
    labels, tokens = torch.where(seen, torch.tensor(d["next"]).long(), -100), int(seen.sum())
    if library == "nanogpt":
        if FLAGS.workload not in ("causal_lm", "packed"):
            raise ValueError("nanoGPT is a decoder.")
        from nanogpt import GPT

        model = GPT(FLAGS.vocabulary, FLAGS.layers, FLAGS.width // 64, FLAGS.width, FLAGS.length)
        forward = lambda net: net(ids, labels)  # noqa: E731
    else:
        model, b, tokens = of_transformers(d, ids, seen, tokens)
        forward = lambda net: net(**b).loss  # noqa: E731
    model.train()
    run = torch.compile(model) if compiles else model
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    half = torch.autocast("cpu", torch.bfloat16, enabled=FLAGS.dtype == "bfloat16")

    def steps(n):
        for _ in range(n):
            optimizer.zero_grad(set_to_none=True)
            with half:
                loss = forward(run)
            loss.backward()
            optimizer.step()

    return steps, tokens


def of_transformers(d, ids, seen, tokens):
    """Its model, what it is called with, and the tokens in that."""
    import torch
    import transformers as hf

    shape = {"vocab_size": FLAGS.vocabulary, "num_hidden_layers": FLAGS.layers, "hidden_size": FLAGS.width,
             "num_attention_heads": FLAGS.width // 64, "intermediate_size": 4 * FLAGS.width}  # fmt: skip
    if FLAGS.workload in ("causal_lm", "packed"):
        config = hf.GPT2Config(vocab_size=FLAGS.vocabulary, n_layer=FLAGS.layers, n_embd=FLAGS.width,
                               n_head=FLAGS.width // 64, n_positions=FLAGS.length, embd_pdrop=0.0, resid_pdrop=0.0,
                               attn_pdrop=0.0, use_cache=False)  # fmt: skip
        inputs = {"input_ids": ids, "labels": torch.where(seen, ids, -100)}
        inputs |= {} if bool(seen.all()) else {"attention_mask": seen.long()}
        return hf.GPT2LMHeadModel(config), inputs, tokens
    if FLAGS.workload == "masked_lm":
        config = hf.BertConfig(**shape, max_position_embeddings=FLAGS.length, hidden_dropout_prob=0.0,
                               attention_probs_dropout_prob=0.0)  # fmt: skip
        labels = torch.full_like(ids, -100).scatter(1, torch.tensor(d["picked"]).long(), ids)
        return hf.BertForMaskedLM(config), {"input_ids": ids, "labels": labels}, tokens
    config = hf.T5Config(vocab_size=FLAGS.vocabulary, num_layers=FLAGS.layers, d_model=FLAGS.width, d_kv=64,
                         num_heads=FLAGS.width // 64, d_ff=4 * FLAGS.width, dropout_rate=0.0, use_cache=False,
                         decoder_start_token_id=0)  # fmt: skip
    target = torch.tensor(d["target"]).long()
    return hf.T5ForConditionalGeneration(config), {"input_ids": ids, "labels": target}, tokens + target.numel()


def flops_per_token():
    """Forward and backward: 6 a weight of a matrix product, and the scores and sums of attention."""
    d, t, causal = FLAGS.width, FLAGS.length, FLAGS.workload in ("causal_lm", "packed")
    head = FLAGS.vocabulary * d * (0.15 if FLAGS.workload == "masked_lm" else 1.0)
    return 6 * (12 * FLAGS.layers * d * d + head) + 12 * FLAGS.layers * d * t / (2 if causal else 1)


def main(_):
    if FLAGS.worker:
        turns.serve(make)
        return
    results = {}
    for workload in FLAGS.workloads:
        FLAGS.workload = workload
        print(f"\n{workload}")
        settings = [f"--{n}={FLAGS[n].value}" for n in ("workload", "layers", "width", "vocabulary", "batch", "length",
                                                        "dtype", "steps")]  # fmt: skip
        names = [n for n in FLAGS.contestants if workload in ("causal_lm", "packed") or "nanogpt" not in n]
        rounds, peaks = turns.compete([turns.Contestant(name, settings) for name in names], FLAGS.rounds)
        results[workload] = {name: turns.median(found, "tokens_per_second") for name, found in rounds.items()}
        report(results[workload], max(peaks))
    if FLAGS.output:
        turns.write_json(FLAGS.output + ".json", results)
        title = f"{FLAGS.layers} layers, {FLAGS.width} wide, {FLAGS.batch} x {FLAGS.length}, {FLAGS.dtype}"
        turns.bars(FLAGS.output + ".png", results, "tokens per second", title)


def report(speeds, peak):
    """Prints a table: each contestant, and zoo over the best peer of its backend and of all."""
    peers = {name: speed for name, speed in speeds.items() if not name.startswith("zoo")}
    torch = {name: speed for name, speed in peers.items() if name.split(":")[1] in ("torch", "eager", "compile")}
    rows = []
    for name, speed in sorted(speeds.items(), key=lambda pair: -pair[1]):
        kind = name.split(":")[1].split("-")[0]
        same = torch if kind == "torch" else {k: v for k, v in peers.items() if k.split(":")[1].startswith(kind)}
        ratios = [f"{speed / max(found.values()):.2f} x {max(found, key=found.get)}" if found else ""
                  for found in (same, peers)] if name.startswith("zoo") else ["", ""]  # fmt: skip
        share = f"{speed * flops_per_token() / peak:.0%}" if FLAGS.workload != "span_corruption" else ""
        rows.append([name, f"{speed:,.0f}", share, *ratios])
    print(turns.table(["", "tokens/s", "of peak", "best peer of its backend", "best peer of all"], rows))
    print(f"matrix product peak {peak / 1e9:.0f} GFLOP/s")


if __name__ == "__main__":
    app.run(main)
