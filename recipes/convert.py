"""Converts a preset of any kind to a directory of safetensors that zoo and transformers open.

python recipes/convert.py --preset=hf://google-bert/bert-base-uncased --output=bert --dtype=bfloat16
python recipes/convert.py --preset=runs/mine/preset --output=smaller --max_shard_size=500MB --verify

--verify opens the result with zoo and with transformers, and compares what they compute.
"""

import re
from pathlib import Path

import common
import numpy as np
from absl import flags

import zoo
from zoo import pretrained
from zoo.checkpoint import Checkpoint

FLAGS = flags.FLAGS
TASKS = ("CausalLM", "MaskedLM", "Seq2SeqLM", "TextClassifier", "TokenClassifier", "QuestionAnswerer", "MultipleChoice",
         "NextSentence", "ReplacedTokenDetector", "TextEmbedder", "Backbone")  # fmt: skip
UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
TOLERANCE = 1e-4  # relative, float32

flags.DEFINE_enum("backend", None, common.BACKENDS, "Keras backend. Default: KERAS_BACKEND, else the first installed.")
flags.DEFINE_string("preset", None, "What to convert: a name, a directory, or hf://owner/repo.")
flags.DEFINE_string("output", None, "Directory to write.")
flags.DEFINE_enum("dtype", None, ["float32", "bfloat16", "float16"], "Dtype to store. Default: that of the preset.")
flags.DEFINE_string("max_shard_size", "5GB", "Size of a file of weights above which another is begun: 500MB, 5GB.")
flags.DEFINE_enum("task", None, TASKS, "Class to convert. Default: the one that the preset was made for.")
flags.DEFINE_bool("verify", False, "Compare the result in zoo with the result in transformers.")


def main():
    common.choose_backend()
    for name in ("preset", "output"):
        if FLAGS[name].value is None:
            raise ValueError(f"--{name} is missing.")
    size, source = parse_size(FLAGS.max_shard_size), pretrained.resolve(FLAGS.preset)
    task, dtype = FLAGS.task or task_of(source), FLAGS.dtype or dtype_of(source)
    model = getattr(zoo, task).from_preset(source, dtype=dtype)
    kwargs = {"dtype": dtype, "max_shard_size": size}
    if task == "Backbone" and pretrained.has_tokenizer(source):
        kwargs["tokenizer"] = zoo.Tokenizer.from_preset(source)
    model.save_to_preset(FLAGS.output, **kwargs)
    print(f"{FLAGS.preset} -> {FLAGS.output}: {task}, {dtype}")
    for path in sorted(Path(FLAGS.output).iterdir()):
        print(f"  {path.stat().st_size:>15,} {path.name}")
    if FLAGS.verify:
        del model
        verify(task)


def parse_size(text):
    """Bytes in a text such as "500MB"."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *([KMG]?B?)", text.strip().upper())
    if not found or found[2] not in UNITS or not float(found[1]):
        raise ValueError(f"--max_shard_size={text} is no size: write 500MB or 5GB.")
    return int(float(found[1]) * UNITS[found[2]])


def task_of(source):
    """The task that a preset was made for, or its backbone."""
    if (source / "modules.json").is_file():
        return "TextEmbedder"
    found = pretrained.task_of(pretrained.read(source)[2])
    return found if found in TASKS else "Backbone"


def dtype_of(source):
    """The dtype that most of a preset's numbers are stored in."""
    held, sizes = Checkpoint(source), {}
    for name in held:
        if held.is_float(name):
            dtype = held.dtype(name).name
            sizes[dtype] = sizes.get(dtype, 0) + np.prod(held.shape(name))
    found = max(sizes, key=sizes.get)
    return found if found in ("bfloat16", "float16") else "float32"


def verify(task):
    """Opens the result twice and prints the largest difference of what comes out; fails where it is no rounding."""
    try:
        import torch
        import transformers
    except ImportError:
        raise ImportError("--verify needs transformers: pip install keras-zoo[torch] transformers.") from None
    task = "Backbone" if task == "TextEmbedder" else task  # pooling is no part of the model in transformers
    ours = getattr(zoo, task).from_preset(FLAGS.output, dtype="float32")
    hf = pretrained.read(FLAGS.output)[2]
    kind = getattr(transformers, hf["architectures"][0])
    theirs = kind.from_pretrained(FLAGS.output, dtype=torch.float32).eval()
    inputs = sample(ours.config, task)
    named = {"token_ids": "input_ids", "decoder_token_ids": "decoder_input_ids", "padding_mask": "attention_mask"}
    with torch.no_grad():
        out = theirs(**{named[name]: torch.tensor(x).long() for name, x in inputs.items()})
    expected = numbers(out)
    found = ours.predict(inputs, verbose=0)
    difference = np.abs(found - expected).max()
    relative = difference / np.abs(expected).max()
    print(f"largest difference from {type(theirs).__name__}: {difference:.3g}, relative {relative:.3g}")
    if not relative < TOLERANCE:
        raise ValueError(f"{FLAGS.output}: zoo and transformers differ by {relative:.3g} relative: do not use it.")


def sample(config, task):
    """A small batch of random tokens; two rows end where texts end, for the heads that read the end."""
    rng, (rows, length) = np.random.default_rng(0), (2, 16)
    shape = (rows, 3, length) if task == "MultipleChoice" else (rows, length)
    ids = rng.integers(min(5, config.vocabulary_size - 1), config.vocabulary_size, shape).astype("int32")
    end = config.eos_token_id[0] if isinstance(config.eos_token_id, tuple) else config.eos_token_id
    if task in ("TextClassifier", "QuestionAnswerer") and end is not None:
        ids = np.where(ids == end, 0, ids).astype("int32")
        ids[..., -1] = end
    inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    if config.architecture == "encoder_decoder" and task in ("Seq2SeqLM", "Backbone"):
        inputs["decoder_token_ids"] = ids[:, ::-1].copy()
    return inputs


def numbers(out):
    """What a model of transformers returns, as one array."""
    if "start_logits" in out:
        return np.stack([out.start_logits.numpy(), out.end_logits.numpy()], axis=1)
    return (out.logits if "logits" in out else out.last_hidden_state).numpy()


if __name__ == "__main__":
    common.run(main)
