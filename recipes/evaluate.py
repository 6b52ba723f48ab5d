"""Measures a model on labelled examples, or a language model on text: a preset and a file in, numbers out.

python recipes/evaluate.py --preset=runs/mine/preset --data=test.csv
python recipes/evaluate.py --task=tag --preset=DIR --data=test.conll --output=results
python recipes/evaluate.py --task=embed --preset=DIR --data=sts.csv --columns=first=0,second=1,score=2
python recipes/evaluate.py --task=seq2seq --measure=translation --preset=DIR --data=test.tsv --num_beams=4
python recipes/evaluate.py --task=perplexity --preset=gpt2 --data='books/*.txt'

--task says which columns the file must have; `zoo.data.examples` lists them. --output then holds metrics.json, every
measure with its 95 % bootstrap interval; predictions.jsonl, an example a line; and a picture. A language model's
perplexity is of text as pretrain.py takes it: of each token after the first in rows of --sequence_length, or of a
masked model the tokens masked as in training, which other models' perplexities do not compare to.
"""

import itertools
from pathlib import Path

import common
import measuring
import numpy as np
from absl import flags
from tqdm import tqdm

import zoo
from zoo import pretrained

FLAGS = flags.FLAGS
common.define_flags()
flags.DEFINE_enum("task", "classify", [*measuring.KINDS, "perplexity"], "What is measured.")
flags.DEFINE_string("data", None, "Examples, as in finetune.py; or text, as in pretrain.py, for perplexity.")
flags.DEFINE_list("columns", [], "Names of columns, such as text=review,label=stars; numbers where none are named.")
flags.DEFINE_enum("split", None, ["line", "blank"], "Of perplexity: how a text file falls into documents.")
flags.DEFINE_string("field", "text", "Of perplexity: key or column of the text.")
flags.DEFINE_integer("limit", None, "Examples or documents measured, the first ones. Default: all.", lower_bound=1)
flags.DEFINE_string("adapter", None, "A directory with an adapter to put on the model.")
flags.DEFINE_string("measure", None, "translation for BLEU and chrF. Default: the task's.")
flags.DEFINE_integer("samples", 1000, "Draws of the bootstrap.", lower_bound=2)
flags.DEFINE_integer("sequence_length", None, "Tokens that texts are cut to. Default: the model's.", lower_bound=2)
flags.DEFINE_integer("batch_size", 32, "Rows computed together.", lower_bound=1)
flags.DEFINE_integer("target_length", 64, "Of seq2seq: tokens of a text that is generated.", lower_bound=1)
flags.DEFINE_integer("num_beams", 1, "Of seq2seq: beams.", lower_bound=1)
flags.DEFINE_string("output", None, "Directory for what comes of it. Default: the numbers are only shown.")
LENGTH = 1024  # of a row, where neither the flags nor the model say


def main():
    common.choose_backend()
    for name in ("preset", "data"):
        if FLAGS[name].value is None:
            raise ValueError(f"--{name} is missing.")
    if FLAGS.measure and (FLAGS.task == "perplexity" or FLAGS.measure not in zoo.metrics.TASKS):
        raise ValueError(f"There is no --measure={FLAGS.measure} of {FLAGS.task}.")
    output = Path(FLAGS.output) if FLAGS.output else None
    if output and any((output / name).exists() for name in ("metrics.json", "predictions.jsonl")):
        raise ValueError(f"--output={output} holds measures already: choose another directory.")
    measures, records, sides = perplexity() if FLAGS.task == "perplexity" else labelled()
    held = {name: FLAGS[name].value for name in ("task", "preset", "adapter", "data")}
    measures = {**{name: value for name, value in held.items() if value is not None}, **measures}
    measuring.show(measures)
    if output:
        output.mkdir(parents=True, exist_ok=True)
        measuring.write(output, measures, records)
        measuring.draw(output, FLAGS.task, *sides, title=f"{FLAGS.preset} on {FLAGS.data}")


def load(name):
    """The model of --preset as a task, with the adapter of --adapter."""
    model = getattr(zoo, name).from_preset(FLAGS.preset, dtype=FLAGS.dtype)
    if FLAGS.adapter:
        zoo.adapters.load(model, FLAGS.adapter)
    if FLAGS.sequence_length:
        model.max_length = FLAGS.sequence_length
    return model


def labelled():
    """Measures, records and both sides of a task on examples."""
    columns = dict(column.partition("=")[::2] for column in FLAGS.columns)
    model = load(measuring.KINDS[FLAGS.task][0])
    problem = {"multi_label_classification": "multi", "regression": "regression"}
    problem = problem.get(getattr(model, "problem_type", None), "single")
    if FLAGS.data == "pydocs":
        part = zoo.data.embedded(FLAGS.task)["test"]
    else:
        part = zoo.data.examples(FLAGS.task, FLAGS.data, columns, problem)
    part = part.take(range(min(FLAGS.limit or len(part), len(part))))
    options = {"batch_size": FLAGS.batch_size}
    if FLAGS.task == "seq2seq":
        sampler = zoo.samplers.Beam(FLAGS.num_beams) if FLAGS.num_beams > 1 else zoo.samplers.Greedy()
        options |= {"max_new_tokens": FLAGS.target_length, "sampler": sampler}
    kind = FLAGS.measure
    measures, records, *sides = measuring.measure(model, FLAGS.task, part, kind, FLAGS.samples, FLAGS.seed, **options)
    return measures, records, sides


def perplexity():
    """Measures, a record a document, and what to draw, of a language model on text."""
    architecture = pretrained.read(pretrained.resolve(FLAGS.preset))[1].architecture
    if architecture == "encoder_decoder":
        raise ValueError(f"{FLAGS.preset} is an encoder-decoder, whose perplexity is of targets: use --task=seq2seq.")
    model = load("CausalLM" if architecture == "decoder" else "MaskedLM")
    source = zoo.data.sources.open(FLAGS.data, FLAGS.split, FLAGS.field)
    texts = list(itertools.islice(source, FLAGS.limit))
    if not texts:
        raise ValueError(f"{FLAGS.data} holds no text.")
    scores = (causal if architecture == "decoder" else masked)(model, texts)
    measures = zoo.metrics.measure("language_modelling", scores, texts, FLAGS.samples, FLAGS.seed)
    if architecture == "encoder":
        del measures["bits_per_byte"]  # of some of the tokens alone it says nothing
    losses = [-float(np.mean(row)) if len(row) else None for row in scores]
    records = [{"input": text[:200], "tokens": len(row), "loss": loss}
               for text, row, loss in zip(texts, scores, losses)]  # fmt: skip
    return measures, records, ([loss for loss in losses if loss is not None], None)


def causal(model, texts):
    """Log-likelihoods of a text's tokens after the first, in rows that overlap by one token."""
    length = FLAGS.sequence_length or model.config.position_limit or LENGTH
    rows, owners = [], []
    for number, ids in enumerate(model.tokenizer.encode(texts)):
        for start in range(0, max(1, len(ids) - 1), length - 1):
            rows.append(ids[start : start + length])
            owners.append(number)
    found = [[] for _ in texts]
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    for start in tqdm(range(0, len(rows), FLAGS.batch_size), unit="batch", disable=None):
        part = order[start : start + FLAGS.batch_size]
        x = {name: np.zeros((len(part), len(rows[part[0]])), "int32") for name in ("token_ids", "padding_mask")}
        for row, i in enumerate(part):
            x["token_ids"][row, : len(rows[i])], x["padding_mask"][row, : len(rows[i])] = rows[i], 1
        for i, scores in zip(part, model.log_likelihoods(*model.prepare(x))):
            found[owners[i]].append(scores)
    return [np.concatenate(parts) for parts in found]


def masked(model, texts):
    """Log-likelihoods of the tokens that training would mask, in the beginning of each text that the model can take."""
    limit = model.length_limit
    cut = sum(len(ids) > limit for ids in model.tokenizer.encode(texts)) if limit else 0
    if cut:
        print(f"{cut} of {len(texts)} texts are cut to {limit} tokens; give --split to measure all of them.")
    found = []
    for start in tqdm(range(0, len(texts), FLAGS.batch_size), unit="batch", disable=None):
        found += model.log_likelihoods(*model.prepare(texts[start : start + FLAGS.batch_size]))
    return found


if __name__ == "__main__":
    common.run(main)
