"""Text to batches by zoo and by its peers: the same text, tokenizers, rows and cores, in turns on one machine.

python benchmarks/data.py                                            all workloads, all that is installed
python benchmarks/data.py --workloads=masked --data='books/*.txt' --output=figures/data

Workloads: `prepare` (text to tokens on disk; the tokenizer's own `encode_batch` writes nothing), `masked` and
`whole_word` (masked language modelling), `packed` (causal language modelling) and `feeding` (a training step of the
smallest cards, and the batch for it). Tokens are real ones, never padding. zoo works on its token store, transformers'
collators on lists of ids made before the clock runs (documents, or rows that documents were joined to), KerasHub's
preprocessors on text, as they are made for. What is not installed is left out with a note.
"""

import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import turns
from absl import app, flags

FLAGS = flags.FLAGS
BATCHES = ["zoo:batch", "zoo:iterate", "transformers:numpy", "transformers:torch", "transformers:rows",
           "transformers:workers", "keras_hub:tf.data", "keras_hub:python"]  # fmt: skip
CARDS = ("gpt2_tiny", "bert_tiny")
CONTESTANTS = {
    "prepare": ["zoo", "tokenizers", "tokenizers:no_offsets", "transformers", "datasets:one", "datasets:processes"],
    "masked": BATCHES,
    "whole_word": [name for name in BATCHES if "keras_hub" not in name],
    "packed": [name for name in BATCHES if "rows" not in name],
    "feeding": [f"zoo:{part}:{card}" for card in CARDS for part in ("step", "batch")],
}
flags.DEFINE_list("workloads", list(CONTESTANTS), "What is measured.")
flags.DEFINE_list("contestants", [], "Who takes part; none = all.")
flags.DEFINE_string("data", None, "Files, a directory or a glob. Default: pydocs, repeated with its lines shuffled.")
flags.DEFINE_enum("split", None, ["line", "blank"], "How text files fall into documents: lines, paragraphs.")
flags.DEFINE_float("megabytes", 6, "Millions of characters of text.")
flags.DEFINE_integer("vocabulary", 8192, "Vocabulary of the tokenizers.")
flags.DEFINE_integer("batch", 32, "Rows.")
flags.DEFINE_integer("length", 256, "Tokens in a row.")
flags.DEFINE_integer("rounds", 3, "Rounds.")
flags.DEFINE_float("seconds", 0.5, "Of batches in a round.")
flags.DEFINE_string("output", None, "Prefix of the files .json and .png.")
for hidden in ("worker", "workload", "place"):
    flags.DEFINE_string(hidden, None, "Used by the benchmark itself.")


def kind():
    """The tokenizer of a workload: its directory in --place."""
    return "wordpiece" if FLAGS.workload in ("masked", "whole_word") or "bert" in FLAGS.worker else "bpe"


def documents():
    """Texts of --megabytes: copies of the source, all but the first with the lines of each document shuffled."""
    from zoo import data

    source = list(data.sources.open(FLAGS.data or "pydocs", FLAGS.split))
    rng, size, copy = np.random.default_rng(0), 0, 0
    while True:
        for text in source:
            lines = text.splitlines(keepends=True)
            yield text if copy == 0 else "".join(lines[i] for i in rng.permutation(len(lines)))
            size += len(text)
            if size >= FLAGS.megabytes * 1e6:
                return
        copy += 1


def lay_out(place):
    """Writes what all contestants read: texts, tokenizers, stores, and the texts cut to fit rows."""
    from zoo import Tokenizer, data

    texts = list(documents())
    turns.write_json(place / "texts.json", texts)
    for name in ("bpe", "wordpiece"):
        size = {"kind": name, "vocabulary_size": FLAGS.vocabulary, "progress": False}
        tokenizer = Tokenizer.train(iter(texts[:: max(1, len(texts) // 5000)]), **size)
        tokenizer.save(place / name)
        data.prepare(data.texts(texts), tokenizer, place / f"{name}-store", progress=False)
        pieces = []
        for text, encoding in zip(texts, tokenizer.encode_with_offsets(texts, add_special_tokens=False)):
            starts = [start for start, _ in encoding.offsets[:: FLAGS.length - 2]]
            pieces += [text[start:stop] for start, stop in zip(starts, [*starts[1:], len(text)])]
        turns.write_json(place / f"{name}-pieces.json", pieces)


def read(name):
    return json.loads(Path(FLAGS.place, name).read_text(encoding="utf-8"))


def make():
    """The worker's side: what does one round."""
    import data_peers

    library, *rest = FLAGS.worker.split(":")
    if FLAGS.workload == "prepare":
        work = preparing() if library == "zoo" else data_peers.preparing(library, rest, read("texts.json"), FLAGS.place)
        return lambda: measured(work)
    if FLAGS.workload == "feeding":
        return feeding(*rest)
    if library == "zoo":
        return counted(batches(*rest))
    options = rest[0], FLAGS.workload, Path(FLAGS.place, kind()), read(f"{kind()}-pieces.json")
    return counted(getattr(data_peers, library)(*options, FLAGS.batch, FLAGS.length))


def measured(work):
    """One call of `work`, which returns the tokens it made."""
    before, start = os.times(), time.perf_counter()
    tokens = work()
    seconds = time.perf_counter() - start
    processor = sum(os.times()[:4]) - sum(before[:4])  # of the process and its children
    return {"tokens_per_second": tokens / seconds, "tokens_per_core_second": tokens / processor, "tokens": tokens}


def counted(batches):
    """A round of as many batches as --seconds allow; `batches` yields (real tokens, places) of each."""
    next(batches)  # the first one builds and traces

    def work():
        count = tokens = places = 0
        start = time.perf_counter()
        while (seconds := time.perf_counter() - start) < FLAGS.seconds or not count:
            found = next(batches)
            count, tokens, places = count + 1, tokens + int(found[0]), places + int(found[1])
        return {"tokens_per_second": tokens / seconds, "batches_per_second": count / seconds,
                "padding": 1 - tokens / places}  # fmt: skip

    return work


def preparing():
    from zoo import Tokenizer, data

    texts, tokenizer = data.texts(read("texts.json")), Tokenizer.from_preset(Path(FLAGS.place, "bpe"))

    def work():
        with tempfile.TemporaryDirectory(dir=FLAGS.place) as directory:
            return int(data.prepare(texts, tokenizer, Path(directory, "store"), progress=False).offsets[-1])

    return work


def loader(**options):
    from zoo import Tokenizer, data

    tokenizer = Tokenizer.from_preset(Path(FLAGS.place, kind()))
    objective = data.CausalLM() if kind() == "bpe" else data.MaskedLM(whole_word=FLAGS.workload == "whole_word")
    options = {"sequence_length": FLAGS.length, "batch_size": FLAGS.batch, "packing": "best_fit"} | options
    return data.pretraining(Path(FLAGS.place, f"{kind()}-store"), tokenizer, objective, **options)


def batches(way):
    loaded = loader()
    stream = map(loaded.batch, range(1 << 60)) if way == "batch" else loaded.iterate()
    return ((np.count_nonzero(x["segment_ids"]), x["segment_ids"].size) for x, _, _ in stream)


def feeding(part, card):
    """A training step of a card on one batch again and again, or the making of one batch; on JAX."""
    lines = Path(__file__).parents[1].joinpath("recipes", "cards", f"{card}.cfg").read_text().splitlines()
    sizes = dict(line[2:].split("=") for line in lines if line.startswith("--"))
    loaded = loader(sequence_length=int(sizes["sequence_length"]), batch_size=int(sizes["batch_size"]))
    if part == "batch":
        stream, run = map(loaded.batch, range(1 << 60)), lambda n: [next(stream) for _ in range(n)]
    else:
        run = stepping(card, sizes, *loaded.batch(0))
    run(10)

    def work():
        start = time.perf_counter()
        run(50)
        return {"milliseconds": 1000 * (time.perf_counter() - start) / 50}

    return work


def stepping(card, sizes, x, y, w):
    os.environ["KERAS_BACKEND"] = "jax"
    import zoo

    wanted = ("vocabulary_size", "num_layers", "num_heads", "hidden_dim", "intermediate_dim")
    task, backbone = (zoo.CausalLM, zoo.GPTBackbone) if card == "gpt2_tiny" else (zoo.MaskedLM, zoo.BERTBackbone)
    sizes = {name: int(sizes[name]) for name in wanted}
    model = task(backbone(**sizes, max_sequence_length=x["token_ids"].shape[1]))
    model.compile("adamw")
    x, y = x | {"token_ids": x["token_ids"] % sizes["vocabulary_size"]}, y % sizes["vocabulary_size"]
    return lambda n: model.fit(((x, y, w) for _ in range(n)), steps_per_epoch=n, shuffle=False, verbose=0)


def main(_):
    if FLAGS.worker:
        turns.serve(make)
        return
    with tempfile.TemporaryDirectory(prefix="zoo-benchmark-") as place:
        lay_out(Path(place))
        results = {workload: compare(workload, place) for workload in FLAGS.workloads}
    if FLAGS.output:
        turns.write_json(FLAGS.output + ".json", results)
        bars = {workload: {name: found["tokens_per_second"] for name, found in of.items()}
                for workload, of in results.items() if workload != "feeding" and of}  # fmt: skip
        turns.bars(FLAGS.output + ".png", bars, "tokens per second", f"rows of {FLAGS.batch} x {FLAGS.length}")


def compare(workload, place):
    """Medians: contestant -> name of the number -> value."""
    print(f"\n{workload}")
    names = [n for n in CONTESTANTS[workload] if not FLAGS.contestants or n in FLAGS.contestants]
    settings = [f"--workload={workload}", f"--place={place}"]
    settings += [f"--{name}={FLAGS[name].value}" for name in ("batch", "length", "seconds")]
    rounds, _ = turns.compete([turns.Contestant(name, settings) for name in names], FLAGS.rounds)
    found = {name: {key: turns.median(of, key) for key in of[0]} for name, of in rounds.items()}
    if len(made := {of.get("tokens") for of in found.values()}) > 1:
        raise ValueError(f"The contestants do not make the same tokens: {made}.")
    report(found)
    return found


def report(found):
    """Prints a table: the numbers of each contestant, and how many times faster the best of zoo is."""
    keys = list(next(iter(found.values()), {}))
    fastest = max((of.get("tokens_per_second", 0) for name, of in found.items() if name.startswith("zoo")), default=0)
    rows = []
    for name, of in found.items():
        ratio = [f"{fastest / of['tokens_per_second']:.2f}" if not name.startswith("zoo") else ""] if fastest else []
        rows.append([name, *(f"{of[key]:.2%}" if key == "padding" else f"{of[key]:,.4g}" for key in keys), *ratio])
    header = ["", *(key.replace("_", " ") for key in keys), *(["zoo is faster by"] if fastest else [])]
    print(turns.table(header, rows))


if __name__ == "__main__":
    app.run(main)
