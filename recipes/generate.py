"""Generates text with a preset, to the terminal as it is made.

python recipes/generate.py --preset=runs/mine/preset --prompt='To be'
python recipes/generate.py --preset=hf://openai-community/gpt2 --file=prompts.txt --temperature=0.8 --top_p=0.9
python recipes/generate.py --preset=runs/mine/preset               asks for one prompt after the other

Prompts come from --prompt, which may be repeated, from --file, one a line, or from standard input, one a line.
"""

import sys
from pathlib import Path

import common
from absl import flags

import zoo
from zoo import pretrained

FLAGS = flags.FLAGS
common.define_flags()
flags.DEFINE_multi_string("prompt", [], "A text to continue, or the input of an encoder-decoder; may be repeated.")
flags.DEFINE_string("file", None, "A file of prompts, one a line.")
flags.DEFINE_integer("max_new_tokens", 128, "Most tokens to add.", lower_bound=1)
flags.DEFINE_float("temperature", 0.0, "Below 1 is likelier, above 1 wilder; 0 always takes the most probable token.")
flags.DEFINE_integer("top_k", None, "Choose among so many of the most probable tokens.", lower_bound=1)
flags.DEFINE_float("top_p", None, "Choose among the most probable tokens that together reach this probability.")
flags.DEFINE_multi_string("stop", [], "A string that ends the text; may be repeated.")


def main():
    common.choose_backend()
    if FLAGS.preset is None:
        raise ValueError("--preset is missing: name a preset, a directory, or hf://owner/repo.")
    sampler = make_sampler()
    prompts = read_prompts()
    model = load()
    for i, prompt in enumerate(prompts):
        for piece in model.stream(prompt, FLAGS.max_new_tokens, sampler, stop=FLAGS.stop, seed=FLAGS.seed + i):
            print(piece, end="", flush=True)
        print("\n", flush=True)


def make_sampler():
    """The sampler that the flags describe; greedy without any."""
    if FLAGS.top_k is not None and FLAGS.top_p is not None:
        raise ValueError("--top_k and --top_p exclude each other: give one of them.")
    if not FLAGS.temperature and FLAGS.top_k is None and FLAGS.top_p is None:
        return zoo.samplers.Greedy()
    temperature = FLAGS.temperature or 1.0
    if FLAGS.top_k is not None:
        return zoo.samplers.TopK(FLAGS.top_k, temperature)
    return zoo.samplers.Temperature(temperature) if FLAGS.top_p is None else zoo.samplers.TopP(FLAGS.top_p, temperature)


def read_prompts():
    """The prompts of the flags, or lines of standard input as they come."""
    if FLAGS.prompt and FLAGS.file:
        raise ValueError("--prompt and --file exclude each other: give one of them.")
    if FLAGS.file:
        return Path(FLAGS.file).read_text(encoding="utf-8").splitlines()
    return FLAGS.prompt or asked()


def asked():
    """Yields lines of standard input."""
    while True:
        try:
            yield input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return


def load():
    """The language model of --preset."""
    directory = pretrained.resolve(FLAGS.preset)
    architecture = pretrained.read(directory)[1].architecture
    if architecture == "encoder":
        raise ValueError(f"{FLAGS.preset} is an encoder, which generates no text: zoo.MaskedLM fills in its masks.")
    task = zoo.CausalLM if architecture == "decoder" else zoo.Seq2SeqLM
    return task.from_preset(directory, dtype=FLAGS.dtype)


if __name__ == "__main__":
    common.run(main)
