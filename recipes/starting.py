"""The model and the tokenizer that finetune.py starts from: those of --preset, or small new ones.

It knows the flags of finetune.py, and neither how examples are read nor how training goes.
"""

import common
from absl import flags
from measuring import KINDS

import zoo
from zoo import pretrained
from zoo.tokenizers.chat import PLAIN

FLAGS = flags.FLAGS
FAMILIES = {"seq2seq": "t5", "instruct": "llama", "prefer": "llama"}  # of a new model; of other tasks bert
SIZES = {"num_layers": 2, "num_heads": 4, "hidden_dim": 128, "vocabulary_size": 4096}


def settings_of(labels):
    """The arguments of the task's class."""
    if FLAGS.task == "classify" and FLAGS.problem == "regression":
        return {"num_classes": 1, "problem_type": "regression"}
    if FLAGS.task == "classify":
        return {"labels": labels, "problem_type": f"{FLAGS.problem}_label_classification"}
    return {} if labels is None else {"labels": labels}


def preset_model(labels):
    """The task on the model of --preset."""
    from zoo.tasks.downstream import stored_labels

    path = pretrained.resolve(FLAGS.preset)
    family, config, hf = pretrained.read(path)
    check_length(config.position_limit)
    kind, settings = KINDS[FLAGS.task][0], settings_of(labels)
    fields = {**common.training_fields(family), "dtype": FLAGS.dtype}
    if family.task_of(hf) == kind and not fits(settings, stored := stored_labels(path, hf)):
        wanted = settings.get("labels") or ["a number"]
        print(f"note: {FLAGS.preset} has a head for {', '.join(stored[:20])}, the examples need one for "
              f"{', '.join(wanted[:20])}: that is new, from random weights")  # fmt: skip
        backbone = zoo.Backbone.from_preset(FLAGS.preset, **fields)
        model = getattr(zoo, kind)(backbone, zoo.Tokenizer.from_preset(FLAGS.preset), **settings)
    else:
        model = getattr(zoo, kind).from_preset(FLAGS.preset, **fields, **settings)
    with_chat_template(model.tokenizer)
    return model


def fits(settings, stored):
    """Whether a head for the stored labels will do; the same labels are put in the order that it has learnt."""
    from zoo.tasks.downstream import unnamed

    wanted = settings.get("labels")
    if wanted is None:
        return settings.get("num_classes", len(stored)) == len(stored)
    if sorted(wanted) == sorted(stored):
        settings["labels"] = stored
        return True
    return len(wanted) == len(stored) and unnamed(stored)


def check_length(limit):
    """Refuses texts that are longer than a model can take."""
    if limit is not None and FLAGS.sequence_length > limit:
        raise ValueError(f"--sequence_length={FLAGS.sequence_length} is more than the {limit} positions that "
                         f"{FLAGS.preset} has for texts: lower it.")  # fmt: skip


def with_chat_template(tokenizer):
    """A tokenizer that lacks one is given a plain template, where conversations are learnt."""
    if FLAGS.task == "instruct" and not tokenizer.has_chat_template:
        tokenizer.set_chat_template(PLAIN)
    return tokenizer


def make_tokenizer(train, output):
    """A tokenizer trained on the examples' texts, kept beside the run."""
    kept = output / "tokenizer"
    FLAGS.family = FLAGS.family or FAMILIES.get(FLAGS.task, "bert")
    FLAGS.vocabulary_size = FLAGS.vocabulary_size or SIZES["vocabulary_size"]
    if common.is_first() and not (output / "run.cfg").exists():
        texts, options = list(texts_in((train.x, train.y))), common.tokenizer_options(FLAGS.family)
        tokenizer = zoo.Tokenizer.train(texts, vocabulary_size=FLAGS.vocabulary_size, num_sentinels=0, **options)
        with_chat_template(tokenizer).save(kept)
    return zoo.Tokenizer.from_preset(kept)


def texts_in(value):
    """The strings in nested lists and dictionaries."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from texts_in(part)


def new_model(labels, tokenizer):
    """A small model for this tokenizer, from random weights."""
    family, sizes = zoo.families.by_name(FLAGS.family), {}
    for name, value in SIZES.items():
        sizes[name] = FLAGS[name].value = value if FLAGS[name].value is None else FLAGS[name].value
    sizes |= {"vocabulary_size": tokenizer.vocabulary_size, "intermediate_dim": 4 * FLAGS.hidden_dim, "dropout": 0.1}
    tokens = {f"{role}_token_id": getattr(tokenizer, f"{role}_id") for role in ("pad", "bos", "eos")}
    if "Seq2SeqLM" in family.architectures:
        tokens["decoder_start_token_id"] = next(i for i in (tokenizer.pad_id, tokenizer.bos_id) if i is not None)
    sizes["max_sequence_length"] = FLAGS.sequence_length
    fields = {**sizes, **tokens, **common.training_fields(family)}
    backbone = getattr(zoo, family.backbone)(dtype=FLAGS.dtype, **fields)
    return getattr(zoo, KINDS[FLAGS.task][0])(backbone, tokenizer, **settings_of(labels))
