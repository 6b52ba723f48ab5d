"""Fine-tuning with zoo and with transformers: the same weights, batches, hyperparameters and steps, in turns.

python benchmarks/finetune.py --preset=DIR --data=DIR --task=sst2
python benchmarks/finetune.py --preset=DIR --data=DIR --task=wnut17 --rounds=3 --contestants=zoo:torch,transformers
python benchmarks/finetune.py --preset=DIR --data=DIR --task=sst2 --contestants=zoo:jax,zoo:jax:lora

A round is a whole run with a seed of its own, which draws the head, the dropout and the order of the batches; both
libraries get the same batches of similar lengths, cut to the longest text of each; on JAX to the next of few lengths.
Without --preset a task of `NEW` starts from random weights that are the same for all.
Each reports its score on held-out data, and the seconds of the very first epoch, which compiles on JAX, and of later
ones.
--data is a directory with the folders of `tasks` below.
"""

import functools
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import turns
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("preset", None, "Weights to start from: a directory.")
flags.DEFINE_string("data", None, "Directory of the data sets.", required=True)
TASKS = ("sst2", "trec", "cola", "stsb", "wnut17", "xquad", "chnsenticorp", "multi30k")
flags.DEFINE_enum("task", "sst2", TASKS, "What is learnt.")
flags.DEFINE_list("contestants", ["zoo:jax", "zoo:torch", "transformers"], "Who takes part.")
flags.DEFINE_integer("train", 100_000, "Examples to train on, at most.")
flags.DEFINE_integer("test", 100_000, "Examples to measure on, at most.")
flags.DEFINE_integer("epochs", 2, "Epochs.")
flags.DEFINE_integer("batch", 32, "Rows in a batch.")
flags.DEFINE_integer("length", 64, "Tokens that texts are cut to.")
flags.DEFINE_float("learning_rate", 5e-5, "Highest learning rate.")
flags.DEFINE_float("adapter_learning_rate", 1e-3, "That of contestants with an adapter, such as zoo:jax:lora.")
flags.DEFINE_list("sizes", [], "Of a model from random weights, such as num_layers=2,vocabulary_size=4000.")
flags.DEFINE_integer("rounds", 3, "Seeds.")
flags.DEFINE_string("output", None, "Prefix of the file .json.")
flags.DEFINE_string("worker", None, "Used by the benchmark itself.")


SIZES = {"num_layers": 4, "num_heads": 4, "hidden_dim": 256, "intermediate_dim": 1024}
NEW = {  # task: (backbone, tokenizer, fields of the Config)
    "chnsenticorp": ("BERTBackbone", {"kind": "wordpiece", "vocabulary_size": 5000},
                     {"dropout": 0.1, "attention_dropout": 0.1, "max_sequence_length": 512}),
    "multi30k": ("T5Backbone", {"kind": "unigram", "vocabulary_size": 8000, "num_sentinels": 0},
                 {"dropout": 0.1, "num_layers": 3, "decoder_start_token_id": 0}),
}  # fmt: skip


def load():
    """Training and held-out `Examples`, and the kind of task."""
    from zoo import data

    folder = Path(FLAGS.data, FLAGS.task)
    if FLAGS.task == "xquad":
        parts = data.examples("answer", folder / "xquad.en.json").split(0.2)
        kind = "answer"
    elif FLAGS.task == "wnut17":
        parts = [data.examples("tag", folder / name) for name in ("wnut17train.conll", "emerging.test.annotated")]
        kind = "tag"
    elif FLAGS.task == "trec":
        parts, kind = trec(folder / "qc.zip"), "classify"
    elif FLAGS.task == "multi30k":
        parts, kind = [pairs(folder, name) for name in ("train", "test_2016_flickr")], "translate"
    elif FLAGS.task == "chnsenticorp":
        columns, kind = {"text": "review", "label": "label"}, "classify"
        whole = data.examples(kind, folder / "ChnSentiCorp_htl_all.csv", columns, "single")
        order = np.random.default_rng(0).permutation(len(whole))  # the file has the good ones first
        parts = whole.take(order.tolist()).split(0.2)
    else:
        names, columns, kind = {
            "sst2": (("train.tsv", "dev.tsv"), {"text": 0, "label": 1}, "classify"),
            "cola": (("in_domain_train.tsv", "in_domain_dev.tsv"), {"text": 3, "label": 1}, "classify"),
            "stsb": (("stsb-en-train.csv", "stsb-en-dev.csv"), {"text": 0, "pair": 1, "label": 2}, "regress"),
        }[FLAGS.task]  # fmt: skip
        problem = "regression" if kind == "regress" else "single"
        parts = [data.examples("classify", folder / name, columns, problem) for name in names]
    train, test = parts
    order = np.random.default_rng(0).permutation(len(train))[: FLAGS.train]
    return train.take(order.tolist()), test.take(range(min(FLAGS.test, len(test)))), kind


def trec(path):
    """Questions and their coarse kinds (Li & Roth 2002), whose files are in Latin-1."""
    import zipfile

    from zoo.data import Examples

    with zipfile.ZipFile(path) as archive:
        for name in ("qc/train.txt", "qc/test.txt"):
            lines = archive.read(name).decode("latin-1").splitlines()
            labels, texts = zip(*((line.split(":")[0], line.split(" ", 1)[1]) for line in lines))
            yield Examples(list(texts), list(labels), [name] * len(texts), list(texts))


def pairs(folder, name):
    """English captions and their German translations (Elliott et al. 2016)."""
    import gzip

    from zoo.data import Examples

    english, german = (gzip.open(folder / f"{name}.{code}.gz", "rt", encoding="utf-8").read().splitlines()
                       for code in ("en", "de"))  # fmt: skip
    return Examples(english, german, [name] * len(english), english)


def write_new(directory):
    """A preset of random weights for a task of `NEW`, with a tokenizer trained on the examples."""
    os.environ["KERAS_BACKEND"] = "torch"
    import random

    import zoo

    random.seed(0)
    train, test, kind = load()
    backbone, tokenizer, fields = NEW[FLAGS.task]
    given = {name: int(value) for name, value in (size.split("=") for size in FLAGS.sizes)}
    tokenizer["vocabulary_size"] = given.pop("vocabulary_size", tokenizer["vocabulary_size"])
    tokenizer = zoo.Tokenizer.train([*train.x, *(train.y if kind == "translate" else ())], **tokenizer)
    ids = {f"{role}_token_id": getattr(tokenizer, f"{role}_id") for role in ("pad", "bos", "eos")}
    backbone = getattr(zoo, backbone)(vocabulary_size=tokenizer.vocabulary_size, **{**SIZES, **fields, **ids, **given})
    if kind == "translate":
        model = zoo.Seq2SeqLM(backbone, tokenizer)
    else:
        labels = zoo.data.label_names("classify", {"train": train, "test": test})
        model = zoo.TextClassifier(backbone, tokenizer, labels=labels)
    model.save_to_preset(directory)


def make():
    """A function that does one run and returns its score and times."""
    library, backend, adapter = (FLAGS.worker + "::").split(":")[:3]
    os.environ["KERAS_BACKEND"] = backend or "torch"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", tempfile.mkdtemp())  # the first round alone compiles
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    from zoo import data

    train, test, kind = load()
    labels = data.label_names("tag" if kind == "tag" else "classify", {"train": train, "test": test}) \
        if kind in ("classify", "tag") else None  # fmt: skip
    reader = new_model(kind, labels)  # its tokenizer and labels make the arrays of all
    arrays = reader.prepare(train.x, answers(train, kind))
    held = test if kind in ("answer", "translate") else reader.prepare(test.x, test.y)
    seeds = iter(range(1, 1000))

    def work():
        seed = next(seeds)
        batches = data.Batches(*arrays, batch_size=FLAGS.batch, seed=seed, exact=backend != "jax")
        run = functools.partial(with_zoo, adapter) if library == "zoo" else with_transformers
        seconds, predict = run(kind, labels, batches, seed)
        value = measure(kind, labels, reader, held, predict)
        return {"score": value, "first_epoch": seconds[0], "epoch": statistics.median(seconds[1:] or seconds)}

    return work


def answers(part, kind):
    """Labels as `prepare` takes them."""
    return [spans[0] if spans else None for spans in part.y] if kind == "answer" else part.y


def new_model(kind, labels):
    """A task of zoo with the weights of the preset."""
    import warnings

    import zoo

    warnings.filterwarnings("ignore", message=".*left at random.*")
    if kind == "translate":
        model = zoo.Seq2SeqLM.from_preset(FLAGS.preset)
    elif kind == "answer":
        model = zoo.QuestionAnswerer.from_preset(FLAGS.preset)
    elif kind == "tag":
        model = zoo.TokenClassifier.from_preset(FLAGS.preset, labels=labels)
    else:
        settings = {"num_classes": 1, "problem_type": "regression"} if kind == "regress" else {"labels": labels}
        model = zoo.TextClassifier.from_preset(FLAGS.preset, **settings)
    model.max_length = FLAGS.length
    return model


def with_zoo(adapter, kind, labels, batches, seed):
    """Seconds of the epochs, and a function from arrays to logits; `adapter` is a function of `zoo.adapters` or ""."""
    import random

    import keras

    from zoo import adapters, training

    random.seed(seed)
    model = new_model(kind, labels)
    if adapter:
        getattr(adapters, adapter)(model)
    steps = FLAGS.epochs * len(batches)
    rate = FLAGS.adapter_learning_rate if adapter else FLAGS.learning_rate
    schedule = training.WarmupSchedule(rate, steps, steps // 10, "linear")
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.01, global_clipnorm=1.0, epsilon=1e-8, name="adamw")
    model.compile(training.by_pattern(optimizer, model), weighted_metrics=[])
    clock = Clock()
    model.fit(batches.iterate(0, steps), steps_per_epoch=len(batches), epochs=FLAGS.epochs, shuffle=False, verbose=0,
              callbacks=[keras.callbacks.LambdaCallback(on_epoch_begin=clock, on_epoch_end=clock)])  # fmt: skip
    if kind == "translate":
        return clock.seconds(), lambda texts: model.generate(texts, max_new_tokens=FLAGS.length)
    return clock.seconds(), lambda x: model.predict_on_batch(x)


class Clock(list):
    """The times at which it was called, with whatever arguments."""

    def __call__(self, *_):
        self.append(time.perf_counter())

    def seconds(self):
        """Those between every other call and the next."""
        return [end - start for start, end in zip(self[::2], self[1::2])]


def with_transformers(kind, labels, batches, seed):
    """The same, with PyTorch alone around the model."""
    import torch
    import transformers

    from zoo import training

    transformers.logging.set_verbosity_error()
    torch.manual_seed(seed)
    auto = {"tag": transformers.AutoModelForTokenClassification, "answer": transformers.AutoModelForQuestionAnswering,
            "translate": transformers.AutoModelForSeq2SeqLM}  # fmt: skip
    auto = auto.get(kind, transformers.AutoModelForSequenceClassification)
    options = {} if kind in ("answer", "translate") else {"num_labels": 1 if kind == "regress" else len(labels)}
    model = auto.from_pretrained(FLAGS.preset, **options).train()
    groups = [{"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.01},
              {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0}]  # fmt: skip
    optimizer = torch.optim.AdamW(groups, lr=FLAGS.learning_rate)
    steps = FLAGS.epochs * len(batches)
    rate = training.WarmupSchedule(1.0, steps, steps // 10, "linear")  # transformers' own would waste a step on rate 0
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(rate(step)))
    clock = Clock()
    for epoch in range(FLAGS.epochs):
        clock()
        for step in range(epoch * len(batches), (epoch + 1) * len(batches)):
            x, y, w = batches.batch(step)
            y = torch.tensor(y).long() if kind != "regress" else torch.tensor(y)
            if kind in ("tag", "translate"):
                y = torch.where(torch.tensor(w) > 0, y, -100)
            named = {"start_positions": y[:, 0], "end_positions": y[:, 1]} if kind == "answer" else {"labels": y}
            model(**theirs(x), **named).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        clock()
    model.eval()
    reader = new_model(kind, labels) if kind == "translate" else None

    @torch.no_grad()
    def predict(x):
        if reader is not None:
            ids = model.generate(**theirs(reader.inputs_of(x)), max_new_tokens=FLAGS.length, do_sample=False)
            return [reader.tokenizer.decode(row) for row in ids.tolist()]
        out = model(**theirs(x))
        return (torch.stack([out.start_logits, out.end_logits], 1) if kind == "answer" else out.logits).numpy()

    return clock.seconds(), predict


def theirs(x):
    """The batch dictionary under their names."""
    import torch

    names = {"token_ids": "input_ids", "padding_mask": "attention_mask", "token_type_ids": "token_type_ids",
             "decoder_token_ids": "decoder_input_ids"}  # fmt: skip
    return {names[key]: torch.tensor(value).long() for key, value in x.items()}


def measure(kind, labels, reader, held, predict):
    """The score of held-out data, in percent: accuracy, MCC, Spearman's, F1 of entities or words, or BLEU."""
    from zoo import data, metrics

    if kind == "translate":
        said = [text for i in range(0, len(held), 50) for text in predict(held.x[i : i + 50])]
        return metrics.bleu(said, held.y)
    if kind == "answer":
        x, encodings, owners = reader.windows(*held.x)
        logits = np.concatenate(
            [predict({key: v[i : i + 64] for key, v in x.items()}) for i in range(0, len(owners), 64)]
        )
        said = [one["answer"] for one in reader.decode(held.x[1], logits, encodings, owners)]
        true = [[text[a:b] for a, b in spans] for text, spans in zip(held.x[1], held.y)]
        return metrics.squad(said, true)["f1"]
    batches = data.Batches(*held, batch_size=64, held_out=True)
    found = [(predict(x), y, w) for x, y, w in batches.iterate()]
    if kind == "tag":
        name = lambda row: [labels[i] for i in row]  # noqa: E731
        rows = [(logits.argmax(-1)[w > 0], y[w > 0]) for batch in found for logits, y, w in zip(*batch) if w.any()]
        return 100 * metrics.entity_scores(*([name(row[i]) for row in rows] for i in (0, 1)))["f1"]
    logits, y = (np.concatenate([row[i][row[2] > 0] for row in found]) for i in (0, 1))
    if kind == "regress":
        return 100 * metrics.spearman(logits[:, 0], y[:, 0])
    return 100 * (metrics.mcc if FLAGS.task == "cola" else metrics.accuracy)(logits.argmax(-1), y)


def main(_):
    if FLAGS.worker:
        return turns.serve(make)
    if FLAGS.preset is None:
        if FLAGS.task not in NEW:
            raise ValueError(f"--task={FLAGS.task} needs --preset; {' and '.join(NEW)} can start from random weights.")
        FLAGS.preset = tempfile.mkdtemp()
        write_new(FLAGS.preset)
    names = ("preset", "data", "task", "train", "test", "epochs", "batch", "length", "learning_rate",
             "adapter_learning_rate")  # fmt: skip
    arguments = [f"--{name}={FLAGS[name].value}" for name in names]
    rounds, _ = turns.compete([turns.Contestant(name, arguments) for name in FLAGS.contestants], FLAGS.rounds)
    rows = []
    for name, found in rounds.items():
        scores = [one["score"] for one in found]
        spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
        rows.append([name, f"{statistics.median(scores):.2f}{spread}",
                     f"{found[0]['first_epoch']:.1f}", f"{turns.median(found, 'epoch'):.1f}"])  # fmt: skip
    print(turns.table([FLAGS.task, "score", "first epoch, s", "later epoch, s"], rows))
    if FLAGS.output:
        turns.write_json(f"{FLAGS.output}.json", rounds)


if __name__ == "__main__":
    app.run(main)
