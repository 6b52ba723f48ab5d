"""Pretrains a language model: text in, a preset out that opens in `zoo` and in `transformers`.

python recipes/pretrain.py                                         a small GPT-2 on the text every Python carries
python recipes/pretrain.py --family=t5 --data='books/*.txt'        another family, another text
python recipes/pretrain.py --flagfile=recipes/cards/bert_base.cfg  a card: flags in a file
python recipes/pretrain.py --preset=hf://openai-community/gpt2 --data=notes.txt   from a checkpoint
python recipes/pretrain.py --mixture='wiki=wiki/*.txt=3' --mixture=code=code.jsonl=1    sources by weight
python recipes/pretrain.py --output=runs/mine --resume             go on with a run that was interrupted
"""

import dataclasses
import datetime
import math
import random

import common
import numpy as np
from absl import flags

import zoo
from zoo import pretrained
from zoo.data.store import holds_store

FLAGS = flags.FLAGS
common.define_flags()
common.define_training_flags()
flags.DEFINE_string("family", None, "gpt2, llama, bert, roberta, t5 or bart. Default: the preset's, or gpt2.")
flags.DEFINE_string("objective", None, "See OBJECTIVES below, such as masked_lm or ul2. Default: the family's.")
flags.DEFINE_string(
    "tokenizer", None, "bpe, wordpiece, unigram or char, to be trained, or a preset. Default: the family's."
)
flags.DEFINE_bool("lowercase", False, "Whether a tokenizer that is trained lowers all letters.")
flags.DEFINE_integer("vocabulary_size", None, "Tokens of a tokenizer that is trained. Default: 2048.", lower_bound=1)
flags.DEFINE_integer("pad_vocabulary_to", 1, "A number that shall divide the size of a new model's vocabulary, such as "
                     "the model axis of --mesh; what is added stands for no token.", lower_bound=1)  # fmt: skip
flags.DEFINE_integer("num_layers", None, "Layers, of each stack where there are two. Default: 2.")
flags.DEFINE_integer("num_heads", None, "Attention heads. Default: 4.")
flags.DEFINE_integer("num_key_value_heads", None, "Heads of keys and values that groups of heads share.")
flags.DEFINE_integer("head_dim", None, "Width of a head. Default: hidden_dim / num_heads.")
flags.DEFINE_integer("hidden_dim", None, "Width. Default: 128.")
flags.DEFINE_integer("intermediate_dim", None, "Width of the feed-forward. Default: 4 x hidden_dim.")
flags.DEFINE_float("initializer_range", None, "Standard deviation of new matrices. Default: the family's, or 0.02.")
flags.DEFINE_multi_string("mixture", [], "In place of --data: name=path, or name=path=weight; once a source.")
flags.DEFINE_float("temperature", 1.0, "Of a mixture without weights: above 1 for more even shares.")
flags.DEFINE_enum("packing", "concatenate", ["concatenate", "best_fit"], "How documents share rows.")

OBJECTIVES = {  # name: (class, the task that learns it on each shape of model)
    "causal_lm": ("CausalLM", {"decoder": "CausalLM"}),
    "masked_lm": ("MaskedLM", {"encoder": "MaskedLM"}),
    "span_corruption": ("SpanCorruption", {"encoder_decoder": "Seq2SeqLM"}),
    "denoising": ("BARTDenoising", {"encoder_decoder": "Seq2SeqLM"}),
    "ul2": ("UL2", {"encoder_decoder": "Seq2SeqLM"}),
    "prefix_lm": ("PrefixLM", {"decoder": "CausalLM", "encoder_decoder": "Seq2SeqLM"}),
    "fill_in_the_middle": ("FillInTheMiddle", {"decoder": "CausalLM"}),
    "replaced_tokens": ("ReplacedTokenDetection", {"encoder": "ReplacedTokenDetector"}),
    "next_sentence": ("NextSentence", {"encoder": "NextSentence"}),
    "sentence_order": ("SentenceOrder", {"encoder": "NextSentence"}),
    "contrastive": ("Contrastive", {"encoder": "TextEmbedder", "decoder": "TextEmbedder"}),
}
TWO_CLASSES = {"NextSentence": "TextClassifier", "ReplacedTokenDetector": "TokenClassifier"}  # where families lack them
TRAINED = ("bpe", "wordpiece", "unigram", "char")


def main():
    # What was asked for, checked before anything is made.
    common.recall_flags()
    common.choose_backend()
    common.check_training_flags()
    config = preset_config() if FLAGS.preset else new_config()
    objective = make_objective(config)
    sources, weights = open_sources()
    optimizer = make_optimizer(config)
    output = common.open_run(f"{FLAGS.family}-{datetime.datetime.now():%Y%m%d-%H%M%S}")

    # Text to batches.
    with common.in_turn("tokenizer"):
        tokenizer = make_tokenizer(sources, output, objective)
    options = {name: FLAGS[name].value for name in ("sequence_length", "batch_size", "seed", "packing",
                                                    "validation_share")}  # fmt: skip
    options["process_index"], options["process_count"] = common.data_slice()
    with common.in_turn("data"):
        if FLAGS.mixture:
            data = zoo.data.mixed_pretraining(sources, tokenizer, objective, weights, FLAGS.temperature, **options)
        else:
            data = zoo.data.pretraining(sources, tokenizer, objective, **options)

    # The model, as it was left if the run is resumed.
    model = make_model(config, tokenizer, data.objective)
    compile_model(model, optimizer)
    common.write_flags(output / "run.cfg")

    from zoo import backend, training

    done = training.restore(output / "checkpoints", model)
    describe(model, data, done)

    # Training.
    def validate(model, step):
        held_out = data.validation
        count = len(held_out) if step == FLAGS.steps else min(FLAGS.validation_batches, len(held_out))
        spread = np.linspace(0, len(held_out) - 1, count, dtype=int)
        return training.validation_loss(model, (held_out.batch(i) for i in spread))

    log = training.CSVLog(output / "metrics.csv")
    title = f"{FLAGS.family}, {model.backbone.num_parameters / 1e6:.1f}M parameters, {FLAGS.objective}"
    title += f" on {' and '.join(FLAGS.mixture) or FLAGS.data}"
    reports = [log, training.LossPlot(output / "loss.png", log.path, title), training.ProgressBar()]
    reports += [training.TensorBoard(output / "tensorboard")] if FLAGS.tensorboard else []
    reports = reports if common.is_first() else []
    loss = None
    if done < FLAGS.steps:
        peak = training.device_peak() if is_language_model(model) else None
        with training.Interruption() as stop:
            monitor = training.Monitor(
                reports, steps=FLAGS.steps, tokens_per_step=data.tokens_per_batch, done=done, every=FLAGS.log_every,
                validate=validate, validate_every=FLAGS.validate_every, patience=FLAGS.patience,
                checkpoints=output / "checkpoints", checkpoint_every=FLAGS.checkpoint_every,
                checkpoint_minutes=FLAGS.checkpoint_minutes, keep=FLAGS.keep, stop=stop,
                peak_seconds=peak and training.step_flops(model, *data.batch(0)[:2]) * options["process_count"] / peak,
                bytes_per_token=bytes_per_token(data),
                rows=lambda step: data.rows_of(step - 1),
            )  # fmt: skip
            batches = backend.feed(data.iterate(done, FLAGS.steps), ragged=False)
            model.fit(batches, steps_per_epoch=FLAGS.steps - done, shuffle=False, verbose=0, callbacks=[monitor])
        done, loss = monitor.step, monitor.val_loss
    if done < FLAGS.steps:
        loss, done = None, training.restore(output / "checkpoints", model, step=monitor.best_step) or done
        print(f"\nThe validation loss stopped falling: the model is that of step {done}, the best.")

    # What came of it.
    if FLAGS.mixture:
        print("\nrows of each source: " + ", ".join(f"{name} {n:,}" for name, n in data.counts(done).items()))
    model.save_to_preset(output / "preset")
    loss = validate(model, FLAGS.steps) if loss is None else loss
    if is_language_model(model):
        perplexity, unigram = math.exp(loss), data.unigram_perplexity()
        print(f"\nheld-out perplexity {perplexity:.2f}, of a unigram model {unigram:.2f}\n")
        show_sample(model, data)
    else:
        print(f"\nheld-out loss {loss:.4f}; what it is measured on:\n")
        zoo.data.preview(data.validation, rows=1)
    print(f"\nThe run is in {output}. Load the model with\n")
    print(f"    import zoo; model = zoo.{type(model).__name__}.from_preset({str(output / 'preset')!r})")


def open_sources():
    """What --data names; or with --mixture a dictionary of sources by name, and their weights if they are given."""
    if not FLAGS.mixture:
        if holds_store(FLAGS.data):
            return zoo.data.Store(FLAGS.data), None
        return zoo.data.sources.open(FLAGS.data, FLAGS.split, FLAGS.field), None
    parts = [part.split("=") for part in FLAGS.mixture]
    names = [part[0] for part in parts]
    if any(len(part) not in (2, 3) or not all(part) for part in parts) or len(set(names)) < len(names):
        raise ValueError(f"--mixture={FLAGS.mixture} must be name=path or name=path=weight, each name once.")
    weights = {part[0]: part[2] for part in parts if len(part) == 3}
    if weights and len(weights) < len(parts):
        raise ValueError(f"--mixture={FLAGS.mixture}: give every source a weight, or none.")
    try:
        weights = {name: float(weight) for name, weight in weights.items()} or None
    except ValueError:
        raise ValueError(f"--mixture={FLAGS.mixture}: the weights must be numbers.") from None
    if weights and not (min(weights.values()) >= 0 < sum(weights.values())):
        raise ValueError(f"--mixture={FLAGS.mixture}: the weights are negative, or sum to zero.")
    return {part[0]: zoo.data.sources.open(part[1], FLAGS.split, FLAGS.field) for part in parts}, weights


def preset_config():
    """The `Config` of --preset."""
    for name in ("num_layers", "num_heads", "num_key_value_heads", "head_dim", "hidden_dim", "intermediate_dim",
                 "initializer_range", "vocabulary_size", "tokenizer", "pad_vocabulary_to"):  # fmt: skip
        if FLAGS[name].value not in (None, FLAGS[name].default):
            raise ValueError(f"--preset={FLAGS.preset} sets the model and its tokenizer: leave --{name} out.")
    family, config, _ = pretrained.read(pretrained.resolve(FLAGS.preset))
    if FLAGS.family not in (None, family.name):
        raise ValueError(f"--preset={FLAGS.preset} is a {family.name}, not a {FLAGS.family}: leave --family out.")
    FLAGS.family = family.name
    if config.position_limit is not None and FLAGS.sequence_length > config.position_limit:
        raise ValueError(
            f"--sequence_length={FLAGS.sequence_length} is more than the {config.position_limit} positions of "
            f"{FLAGS.preset}: lower it."
        )
    return dataclasses.replace(config, **common.training_fields(family))


def new_config():
    """The `Config` that the flags describe; what belongs to the tokenizer is put in by `make_model`."""
    FLAGS.family = FLAGS.family or "gpt2"
    family = zoo.families.by_name(FLAGS.family)
    defaults = {"num_layers": 2, "num_heads": 4, "hidden_dim": 128}
    dropout = 0.1 if FLAGS.objective == "contrastive" else 0.0  # there it makes two views of one text
    for name, value in {**defaults, "vocabulary_size": 2048, "dropout": dropout}.items():
        FLAGS[name].value = value if FLAGS[name].value is None else FLAGS[name].value
    FLAGS.intermediate_dim = FLAGS.intermediate_dim or 4 * FLAGS.hidden_dim
    optional = ("num_key_value_heads", "head_dim", "initializer_range")
    fields = {name: FLAGS[name].value for name in (*defaults, "vocabulary_size", "intermediate_dim")}
    fields |= {name: FLAGS[name].value for name in optional if FLAGS[name].value is not None}
    fields |= {"max_sequence_length": FLAGS.sequence_length, **common.training_fields(family)}
    return zoo.Config.from_dict({**family.switches(fields), **fields})


def make_objective(config):
    """The objective, from --objective or as the family was pretrained."""
    usual = [name for name, (_, tasks) in OBJECTIVES.items() if config.architecture in tasks]
    if FLAGS.objective is None:
        FLAGS.objective = "denoising" if FLAGS.family == "bart" else usual[0]
    if FLAGS.objective not in OBJECTIVES:
        raise ValueError(f"Unknown --objective={FLAGS.objective}; known are {', '.join(OBJECTIVES)}.")
    if FLAGS.objective not in usual:
        raise ValueError(f"--objective={FLAGS.objective} does not fit {FLAGS.family}: use {' or '.join(usual)}.")
    options = {
        "prefix_lm": {"architecture": config.architecture},
        "next_sentence": {"token_types": config.num_token_types > 1},
        "sentence_order": {"token_types": config.num_token_types > 1},
        "contrastive": {"views": "same" if config.dropout else "neighbours"},
    }
    return getattr(zoo.data, OBJECTIVES[FLAGS.objective][0])(**options.get(FLAGS.objective, {}))


def is_language_model(model):
    """Whether it predicts tokens."""
    return isinstance(model, (zoo.CausalLM, zoo.MaskedLM, zoo.Seq2SeqLM))


def make_loss(model):
    """What `compile` is told of the loss: its slices, and where it is not the task's own."""
    if FLAGS.accumulate > 1:
        if not is_language_model(model):
            raise ValueError(f"--accumulate={FLAGS.accumulate} is for objectives that predict tokens: leave it out.")
        return {"accumulate": FLAGS.accumulate}
    return {"loss": zoo.InBatchContrast()} if FLAGS.objective == "contrastive" else {}


def make_optimizer(config):
    """That of the flags, with a learning rate that suits the model."""
    return common.make_optimizer(1e-4 if FLAGS.preset else 1e-3 if config.norm_order == "post" else 3e-3)


def compile_model(model, optimizer):
    """Compiles the model, with the optimizer as the flags say for each weight."""
    from zoo import training

    optimizer = training.by_pattern(optimizer, model, no_decay=FLAGS.no_decay or None, freeze=FLAGS.freeze,
                                    layer_decay=FLAGS.layer_decay)  # fmt: skip
    # Keras leaves XLA out on TensorFlow's CPUs, where it takes half the time. PyTorch's compiler is left to Keras.
    xla = {"jit_compile": True} if FLAGS.backend == "tensorflow" and not FLAGS.mesh else {}
    model.compile(optimizer, weighted_metrics=None, **xla, **make_loss(model))


def make_tokenizer(sources, output, objective):
    """The tokenizer of the preset, of --tokenizer, of the store, or one trained on the text and kept beside the run.

    One that is trained gets the special tokens that the objective needs, beyond --vocabulary_size.
    """
    if FLAGS.preset:
        return zoo.Tokenizer.from_preset(FLAGS.preset)
    options = common.tokenizer_options(FLAGS.family)
    if isinstance(sources, zoo.data.Store):
        if FLAGS.tokenizer in TRAINED:
            raise ValueError(
                f"--tokenizer={FLAGS.tokenizer}: a store is trained on with its own tokenizer: leave it out."
            )
        FLAGS.tokenizer = FLAGS.tokenizer or str(sources.directory / "tokenizer")
    if FLAGS.tokenizer not in (None, *TRAINED):
        return zoo.Tokenizer.from_preset(FLAGS.tokenizer)
    if FLAGS.tokenizer not in (None, options["kind"]):
        options = {"kind": FLAGS.tokenizer}
    FLAGS.tokenizer = options["kind"]
    kept = output / "tokenizer"
    if (output / "run.cfg").exists() or not common.is_first():
        return zoo.Tokenizer.from_preset(kept)
    text = zoo.data.sources.open(list(sources.values())) if FLAGS.mixture else sources
    tokenizer = zoo.Tokenizer.train(text, vocabulary_size=FLAGS.vocabulary_size, lowercase=FLAGS.lowercase, **options)
    objective.add_tokens(tokenizer, FLAGS.sequence_length)
    tokenizer.save(kept)
    return tokenizer


def make_model(config, tokenizer, objective, load_weights=True):
    """The task model: the preset's, or a new one for this tokenizer."""
    random.seed(FLAGS.seed)  # all that is drawn starts here; Keras's set_random_seed imports every backend
    family = zoo.families.by_name(FLAGS.family)
    name, settings = OBJECTIVES[FLAGS.objective][1][config.architecture], {}
    if name in TWO_CLASSES and name not in family.architectures:
        name, settings = TWO_CLASSES[name], {"num_classes": 2}
    task = getattr(zoo, name)
    if FLAGS.preset:
        fields = {**settings, **common.training_fields(family)}
        return task.from_preset(FLAGS.preset, dtype=FLAGS.dtype, tokenizer=tokenizer, load_weights=load_weights,
                                **fields)  # fmt: skip
    tokens = {f"{role}_token_id": getattr(tokenizer, f"{role}_id") for role in ("pad", "bos", "eos")}
    if config.architecture == "encoder_decoder":
        tokens["decoder_start_token_id"] = objective.start_id
    size, multiple = tokenizer.vocabulary_size, FLAGS.pad_vocabulary_to
    fields = {**dataclasses.asdict(config), **tokens, "vocabulary_size": -(-size // multiple) * multiple}
    config = zoo.Config(**{**fields, **family.derived(fields)})
    return task(getattr(zoo, family.backbone)(config, dtype=FLAGS.dtype), tokenizer, **settings)


def bytes_per_token(data):
    """UTF-8 bytes of a held-out row for each of its labels; None where those are not the running text."""
    if not isinstance(data.objective, zoo.data.CausalLM):
        return None
    rows, text = range(min(data.batch_size, data.validation.rows)), data.objective.tokenizer.decode
    held_out = [data.validation.row(0, i)[1:] for i in rows]
    return sum(len(text(y[w > 0]).encode()) for y, w in held_out) / float(sum(w.sum() for _, w in held_out))


def describe(model, data, done):
    """Says what is about to happen."""
    tokens = FLAGS.steps * data.tokens_per_batch
    print(f"{type(model.backbone).__name__} with {model.backbone.num_parameters:,} parameters on {FLAGS.backend}")
    stores = [part.store for part in data.parts.values()] if FLAGS.mixture else [data.store]
    found, name = sum(len(store.tokens) for store in stores), ", ".join(FLAGS.mixture) or FLAGS.data
    print(f"{name}: {found:,} tokens; {FLAGS.steps} steps are {tokens:,}, "
          f"{FLAGS.steps / len(data):.1f} epochs" + f"; {done} steps are done" * (done > 0))  # fmt: skip


def show_sample(model, data):
    """Prints what the model makes of the first held-out row."""
    x, *rest = data.validation.row(0, 0)
    x, (y, w) = {name: value[None] for name, value in x.items()}, (value[None] for value in rest)
    labels = y[0][w[0] > 0]
    text = model.tokenizer.decode
    if isinstance(model, zoo.CausalLM):
        start = x["token_ids"][0, : min(8, FLAGS.sequence_length // 2)]
        sampler, length = zoo.samplers.TopP(0.9, temperature=0.8), min(64, FLAGS.sequence_length // 2)
        print("A sample:\n\n" + model.generate(text(start), length, sampler, seed=FLAGS.seed))
    elif isinstance(model, zoo.MaskedLM):
        guesses = model.predict(x, verbose=0)[0, w[0] > 0].argmax(-1)
        print(f"Held-out text:\n\n{text(x['token_ids'][0], skip_special_tokens=False)}\n")
        print("Hidden:  " + " | ".join(text([i]).strip() for i in labels))
        print("Guessed: " + " | ".join(text([i]).strip() for i in guesses))
    else:
        segments = x["decoder_segment_ids"][0]
        document = np.bincount(segments[w[0] > 0]).argmax()  # that with most to predict of those in the row
        source, target = x["token_ids"][:, x["segment_ids"][0] == document], y[0][(w[0] > 0) & (segments == document)]
        output = model.generate({"token_ids": source}, len(target), seed=FLAGS.seed, echo=False)
        for title, row in (("Input", source[0]), ("Target", target), ("Output", output[0])):
            print(f"{title}: {text(row, skip_special_tokens=False)}\n")


if __name__ == "__main__":
    common.run(main)
