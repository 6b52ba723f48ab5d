"""Fine-tunes a model on labelled examples: a file in, a preset with its labels and measures out.

python recipes/finetune.py                                    a small BERT on the texts that every Python carries
python recipes/finetune.py --task=tag --preset=hf://google-bert/bert-base-cased --data=train.conll
python recipes/finetune.py --data=train.csv --columns=text=review,label=stars --class_weights=balanced --patience=2
python recipes/finetune.py --task=answer --data=squad.json --preset=DIR --freeze=block_[0-5]/ --layer_decay=0.9
python recipes/finetune.py --preset=DIR --data=train.csv --adapter=lora:rank=16,alpha=32 --search=20
python recipes/finetune.py --output=runs/mine --resume        go on with a run that was interrupted

--task says which columns a file must have; `zoo.data.examples` lists them. Beside what pretrain.py leaves, --output
then holds metrics.json, predictions.jsonl and a picture of them; with --adapter `adapter/`, and the merged model in
`preset/` if it can be merged; with --search its table and picture.
"""

import datetime
import random

import adapting
import common
import measuring
import numpy as np
import searching
import starting
from absl import flags
from measuring import KINDS

import zoo
from zoo import card
from zoo.checkpoint import write_text

FLAGS = flags.FLAGS
common.define_flags()
common.define_training_flags()
DEFAULTS = {"batch_size": 32, "steps": None, "schedule": "linear", "weight_decay": 0.01, "beta_2": 0.999,
            "validate_every": None, "checkpoint_every": None, "validation_batches": 1 << 30}  # fmt: skip
for name, value in DEFAULTS.items():  # other than of pretraining
    FLAGS.set_default(name, value)
flags.DEFINE_enum("task", "classify", list(KINDS), "What is learnt.")
flags.DEFINE_list("columns", [], "Names of columns, such as text=review,label=stars; numbers where none are named.")
flags.DEFINE_string("validation_data", None, "A second file. Default: a share of --data, by its texts.")
flags.DEFINE_string("test_data", None, "A file to measure on. Default: what is validated on.")
flags.DEFINE_integer("limit", None, "Examples of each part at most, drawn by a fixed seed.", lower_bound=1)
flags.DEFINE_integer("test_limit", None, "Examples measured on. Default: all; 200 of seq2seq and instruct.")
flags.DEFINE_enum("problem", "single", ["single", "multi", "regression"], "Of classify: one label, several, a number.")
flags.DEFINE_float("score_scale", 1.0, "Of embed: what scores are divided by, 5 for those from 0 to 5.")
flags.DEFINE_enum("loss", "cosine", ["cosine", "contrast", "triplet"], "Of embed: see zoo.TextEmbedder.")
flags.DEFINE_enum("class_weights", None, ["balanced"], "Of classify, tag and relate: every label counts as much.")
flags.DEFINE_bool("packing", False, "Of instruct: several conversations a row.")
flags.DEFINE_float("beta", 0.1, "Of prefer: how dear it is to leave the reference.")
flags.DEFINE_enum("measure", None, ["summarisation", "translation"], "Of seq2seq: ROUGE, the default, or BLEU, chrF.")
flags.DEFINE_integer("target_length", 64, "Of seq2seq: tokens of a text that is generated.")
flags.DEFINE_float("epochs", 3.0, "Epochs, where --steps is not given.")
flags.DEFINE_string("adapter", None, f"One of {', '.join(adapting.METHODS)}, with arguments: lora:rank=16,alpha=8.")
flags.DEFINE_integer("search", None, "Runs that look for the best flags first; needs keras-zoo[search].", lower_bound=1)
flags.DEFINE_list("search_space", None, "What they try, such as learning_rate=1e-5..1e-3,batch_size=8|16,epochs=1..4.")
flags.DEFINE_string("family", None, "Family of a new model, where there is no --preset. Default: one for the task.")
for name, value in starting.SIZES.items():
    flags.DEFINE_integer(name, None, f"Of a new model. Default: {value}.", lower_bound=1)


def main():
    # Everything that can be wrong with what was asked for, before anything is made.
    common.recall_flags()
    common.choose_backend()
    common.check_training_flags()
    parts = {name: some(part) for name, part in open_examples().items()}
    labels = None
    if FLAGS.task in ("tag", "relate") or (FLAGS.task == "classify" and FLAGS.problem != "regression"):
        labels = zoo.data.label_names(FLAGS.task, parts, FLAGS.problem)
    check_flags()
    space = searching.space(FLAGS.search_space, small=FLAGS.preset and not FLAGS.adapter) if FLAGS.search else None
    output = common.open_run(f"{FLAGS.task}-{datetime.datetime.now():%Y%m%d-%H%M%S}")
    if space and not (output / "run.cfg").exists():
        searching.search(output, FLAGS.search, space)
    FLAGS.search = None  # its best flags are this run's

    # The model, and examples as its arrays.
    from zoo import training  # before the seed, for Keras draws a number while it is imported

    random.seed(FLAGS.seed)  # all that is drawn starts here; Keras's set_random_seed imports every backend
    with common.in_turn("tokenizer"):
        tokenizer = None if FLAGS.preset else starting.make_tokenizer(parts["train"], output)
    model = starting.preset_model(labels) if FLAGS.preset else starting.new_model(labels, tokenizer)
    model.max_length = FLAGS.sequence_length
    if FLAGS.adapter:
        adapting.put(model, FLAGS.adapter)
        starting.check_length(model.backbone.position_limit)
    compile_model(model)
    parts = {name: answered(model, part, name) for name, part in parts.items()}
    data = {name: batches(model, parts[name], held_out=name != "train") for name in ("train", "validation")}
    rows = len(data["train"])
    FLAGS.steps = FLAGS.steps or max(1, round(FLAGS.epochs * rows))
    FLAGS.validate_every, FLAGS.checkpoint_every = FLAGS.validate_every or rows, FLAGS.checkpoint_every or rows
    optimizer = common.make_optimizer(5e-5 if FLAGS.preset and not FLAGS.adapter else 1e-3)
    optimizer = training.by_pattern(optimizer, model, no_decay=FLAGS.no_decay or None, freeze=FLAGS.freeze,
                                    layer_decay=FLAGS.layer_decay)  # fmt: skip
    compile_model(model, optimizer)
    common.write_flags(output / "run.cfg")
    done = training.restore(output / "checkpoints", model)
    describe(model, parts, done)

    # Training.
    def validate(model, step):
        count = min(FLAGS.validation_batches, len(data["validation"]))
        return training.validation_loss(model, (data["validation"].batch(i) for i in range(count)))

    if done < FLAGS.steps:
        done = train(model, data["train"], output, done, validate)

    # What came of it.
    load = f"import zoo; model = zoo.{KINDS[FLAGS.task][0]}.from_preset({str(output / 'preset')!r})"
    if FLAGS.adapter:
        load = adapting.save(model, FLAGS.adapter, FLAGS.preset, output / "adapter") or load
    whole = not zoo.adapters.names(model)
    if whole:
        model.save_to_preset(output / "preset")
    limit = FLAGS.test_limit or (200 if FLAGS.task in ("seq2seq", "instruct") else len(parts["test"]))
    part = parts["test"].take(range(min(limit, len(parts["test"]))))
    options = {"max_new_tokens": FLAGS.target_length} if FLAGS.task == "seq2seq" else {}
    found, records, *sides = measuring.measure(model, FLAGS.task, part, FLAGS.measure, seed=FLAGS.seed,
                                               batch_size=FLAGS.batch_size, **options)  # fmt: skip
    measures = {"task": FLAGS.task, "data": FLAGS.test_data or FLAGS.data, "step": done, **found}
    if common.is_first():
        measuring.write(output, measures, records)
        measuring.draw(output, FLAGS.task, *sides, title=f"{FLAGS.task} on {measures['data']}")
        if whole:
            write_card(model, measures, output)
    measuring.show(measures)
    print(f"\nThe run is in {output}. Load the model with\n\n    {load}")


def open_examples():
    """Dictionary of `Examples`: train, validation, test."""
    columns = dict(column.partition("=")[::2] for column in FLAGS.columns)
    if FLAGS.data == "pydocs":
        if columns:
            raise ValueError(f"--columns={','.join(FLAGS.columns)} is for files: the embedded examples need none.")
        if FLAGS.problem != "single":
            raise ValueError(f"--problem={FLAGS.problem}: the embedded examples have one label each; give --data.")
        return zoo.data.embedded(FLAGS.task)
    read = lambda spec: zoo.data.examples(FLAGS.task, spec, columns, FLAGS.problem)  # noqa: E731
    train = read(FLAGS.data)
    if FLAGS.validation_data:
        validation = read(FLAGS.validation_data)
    else:
        train, validation = train.split(FLAGS.validation_share or 0.1)
    return {"train": train, "validation": validation, "test": read(FLAGS.test_data) if FLAGS.test_data else validation}


def some(part):
    """At most --limit of the examples."""
    order = np.random.default_rng(0).permutation(len(part))
    return part if FLAGS.limit is None else part.take(order[: FLAGS.limit].tolist())


def check_flags():
    """Refuses flags that do not go together, and measures that are not here."""
    belongs = {"class_weights": ("classify", "tag", "relate"), "problem": ("classify",), "loss": ("embed",),
               "score_scale": ("embed",), "beta": ("prefer",), "packing": ("instruct",),
               "measure": ("seq2seq",)}  # fmt: skip
    for name, tasks in belongs.items():
        if FLAGS[name].value != FLAGS[name].default and FLAGS.task not in tasks:
            raise ValueError(f"--{name} is of {' and '.join(tasks)}, not of {FLAGS.task}: leave it out.")
    if FLAGS.class_weights and FLAGS.problem != "single":
        raise ValueError(f"--class_weights needs one label an example, not --problem={FLAGS.problem}: leave it out.")
    if FLAGS.accumulate > 1 and FLAGS.task not in ("seq2seq", "instruct"):
        raise ValueError(f"--accumulate={FLAGS.accumulate} is for tasks that predict tokens: leave it out.")
    if FLAGS.search and common.several():
        raise ValueError(f"--search={FLAGS.search} runs in one process: search there, and start several with the best.")
    if FLAGS.adapter:
        method, _ = adapting.parsed(FLAGS.adapter)
        if not FLAGS.preset:
            raise ValueError(f"--adapter={FLAGS.adapter} changes a model that is there: give --preset.")
        if method == "prompt" and FLAGS.packing:
            raise ValueError("--adapter=prompt stands before one conversation a row: leave --packing out.")
    if FLAGS.preset and (given := [name for name in (*starting.SIZES, "family") if FLAGS[name].value is not None]):
        raise ValueError(f"--preset={FLAGS.preset} sets the model and its tokenizer: leave --{given[0]} out.")
    if FLAGS.task == "prefer" and FLAGS.dropout is None:
        FLAGS.dropout = 0.0  # both answers and the reference are of one model
    if FLAGS.task == "seq2seq":
        zoo.metrics.TASKS[FLAGS.measure or "summarisation"](["a text"], ["a text"])  # by packages that may be missing


def answered(model, part, name):
    """A part without the examples whose answers lie beyond --sequence_length, which are counted."""
    if FLAGS.task not in ("instruct", "prefer"):
        return part
    held = zoo.data.answered(model.tokenizer, part.x, FLAGS.sequence_length)
    if len(held) < len(part):
        print(f"{name}: {len(part) - len(held):,} of {len(part):,} examples are left out, for their answers begin "
              f"beyond --sequence_length={FLAGS.sequence_length}")  # fmt: skip
    if not held:
        raise ValueError(f"--sequence_length={FLAGS.sequence_length} leaves no example of {name}: raise it.")
    return part.take(held)


def compile_model(model, optimizer="auto"):
    """Compiles with the loss of the flags."""
    options = {"accumulate": FLAGS.accumulate} if FLAGS.task in ("seq2seq", "instruct") else {}
    if FLAGS.task == "embed" and FLAGS.loss != "cosine":
        options["loss"] = zoo.InBatchContrast() if FLAGS.loss == "contrast" else zoo.TripletLoss()
    if FLAGS.task == "prefer":
        options["loss"] = zoo.PreferenceLoss(FLAGS.beta)
    model.compile(optimizer, weighted_metrics=None, **options)


def batches(model, part, held_out):
    """`zoo.data.Batches` of a part."""
    x, y = part.x, part.y
    if FLAGS.task == "instruct":
        x, y, w = zoo.data.instructions(model.tokenizer, x, FLAGS.sequence_length, FLAGS.packing and not held_out)
    else:
        if FLAGS.task == "answer":
            y = [spans[0] if spans else None for spans in y]
        elif FLAGS.task == "embed" and y is not None:
            y = [score / FLAGS.score_scale for score in y]
        x, y, w = model.prepare(x, y)
    if FLAGS.class_weights and not held_out:
        count = np.bincount(y[np.broadcast_to(True if w is None else w > 0, y.shape)], minlength=model.num_classes)
        w = (1 if w is None else w) * (count.sum() / np.maximum(count, 1) / (count > 0).sum())[y]
    exact = FLAGS.backend == "torch"
    return zoo.data.Batches(x, y, w, FLAGS.batch_size, FLAGS.seed, held_out, exact, *common.data_slice())


def describe(model, parts, done):
    """Says what is about to happen."""
    print(f"{type(model).__name__}, {model.backbone.num_parameters:,} parameters in its backbone, on {FLAGS.backend}")
    counts = ", ".join(f"{len(part):,} {name}" for name, part in parts.items())
    print(f"{FLAGS.data}: {counts} examples; {FLAGS.steps} steps" + f", {done} of which are done" * (done > 0))


def train(model, data, output, done, validate):
    """Trains from step `done` on; returns the step whose weights the model has in the end."""
    from zoo import backend, training

    log = training.CSVLog(output / "metrics.csv")
    title = f"{FLAGS.task}, {model.backbone.num_parameters / 1e6:.1f}M parameters, on {FLAGS.data}"
    reports = [log, training.LossPlot(output / "loss.png", log.path, title), training.ProgressBar()]
    reports += [training.TensorBoard(output / "tensorboard")] if FLAGS.tensorboard else []
    reports = reports if common.is_first() else []
    with training.Interruption() as stop:
        monitor = training.Monitor(
            reports, steps=FLAGS.steps, tokens_per_step=data.tokens_per_batch, done=done, every=FLAGS.log_every,
            validate=validate, validate_every=FLAGS.validate_every, patience=FLAGS.patience,
            checkpoints=output / "checkpoints", checkpoint_every=FLAGS.checkpoint_every,
            checkpoint_minutes=FLAGS.checkpoint_minutes, keep=FLAGS.keep, stop=stop,
            rows=lambda step: data.rows_of(step - 1),
        )  # fmt: skip
        steps = backend.feed(data.iterate(done, FLAGS.steps))
        model.fit(steps, steps_per_epoch=FLAGS.steps - done, shuffle=False, verbose=0, callbacks=[monitor])
    if monitor.step == FLAGS.steps:
        return monitor.step
    best = training.restore(output / "checkpoints", model, step=monitor.best_step)
    print(f"\nThe validation loss stopped falling: the model is that of step {best}, the best.")
    return best


def write_card(model, measures, output):
    """The preset's README.md with the measures in it."""
    path = output / "preset" / "README.md"
    path.unlink(missing_ok=True)
    name = getattr(model, "preset_task", None) or type(model).__name__
    card.write(output / "preset", output.name, name, base_model=FLAGS.preset)
    rows = [f"| {key} | {one['value']:.4g} | {one['low']:.4g} to {one['high']:.4g} |"
            for key, one in measures.items() if isinstance(one, dict) and None not in one.values()]  # fmt: skip
    table = ["", "## Results", "", f"Fine-tuned for `{FLAGS.task}` on {FLAGS.data}; measured on {measures['examples']} "
             f"examples of {measures['data']}, with 95 % bootstrap intervals.", "", "| measure | value | interval |",
             "|---|---|---|", *rows, ""]  # fmt: skip
    write_text(path, path.read_text(encoding="utf-8") + "\n".join(table))


if __name__ == "__main__":
    common.run(main)
