"""Generates text with a preset, to the terminal as it is made, or for a file of prompts to JSON lines.

python recipes/generate.py --preset=runs/mine/preset --prompt='To be'
python recipes/generate.py --preset=hf://openai-community/gpt2 --file=prompts.txt --temperature=0.8 --top_p=0.9
python recipes/generate.py --preset=t5_small --file=prompts.txt --num_beams=4 --output=texts.jsonl
python recipes/generate.py --preset=hf://openai-community/gpt2-xl --draft=hf://openai-community/gpt2 --quantize=int8
python recipes/generate.py --preset=runs/mine/preset               asks for one prompt after the other
python recipes/generate.py --preset=hf://HuggingFaceTB/SmolLM2-135M-Instruct --chat          holds a conversation

Prompts come from --prompt, which may be repeated, from --file, one a line, or from standard input, one a line.
Without flags about sampling the preset's generation_config.json decides, and without one the likeliest token is taken.
"""

import json
import os
import sys
from pathlib import Path

import common
from absl import flags
from tqdm import tqdm

import zoo
from zoo import pretrained

FLAGS = flags.FLAGS
common.define_flags()
flags.DEFINE_multi_string("prompt", [], "A text to continue, or the input of an encoder-decoder; may be repeated.")
flags.DEFINE_string("file", None, "A file of prompts, one a line.")
flags.DEFINE_string("output", None, "A file of JSON lines, {prompt, text, score} each, in place of the terminal.")
flags.DEFINE_bool("chat", False, "Prompts are a user's messages, and the preset's chat template surrounds them.")
flags.DEFINE_integer("batch_size", 16, "Prompts that are decoded together for --output.", lower_bound=1)
flags.DEFINE_integer("max_new_tokens", None, "Most tokens to add. Default: the preset's, or 64.", lower_bound=1)
flags.DEFINE_float("temperature", None, "Below 1 is likelier, above 1 wilder; 0 always takes the most probable token.")
flags.DEFINE_integer("top_k", None, "Choose among so many of the most probable tokens.", lower_bound=1)
flags.DEFINE_float("top_p", None, "Choose among the most probable tokens that together reach this probability.")
flags.DEFINE_float("min_p", None, "Choose among the tokens at least so probable as this share of the likeliest one's.")
flags.DEFINE_float("typical_p", None, "Choose among the tokens of typical information that reach this probability.")
flags.DEFINE_integer("num_beams", None, "Search for the likeliest text with so many beams.", lower_bound=1)
flags.DEFINE_float("length_penalty", 1.0, "Power of its length that a beam's score is divided by.")
flags.DEFINE_float("contrastive", None, "Contrastive search with this weight of likeness, among --top_k tokens.")
flags.DEFINE_string("draft", None, "A smaller preset of the same vocabulary that guesses tokens for this one to check.")
flags.DEFINE_integer("draft_tokens", 4, "How many tokens --draft guesses at a time.", lower_bound=1)
flags.DEFINE_enum("quantize", None, ["int8", "int4"], "Make the weights integers, for want of memory.")
flags.DEFINE_float("repetition_penalty", 1.0, "Above 1, makes tokens that were there less likely.")
flags.DEFINE_integer("no_repeat_ngram", None, "No run of so many tokens occurs twice.", lower_bound=1)
flags.DEFINE_multi_string("stop", [], "A string that ends the text; may be repeated.")
_FILTERS = ("top_k", "top_p", "min_p", "typical_p")


def main():
    common.choose_backend()
    if FLAGS.preset is None:
        raise ValueError("--preset is missing: name a preset, a directory, or hf://owner/repo.")
    given = {"max_new_tokens": FLAGS.max_new_tokens, "sampler": make_sampler(), "stop": FLAGS.stop}
    prompts = read_prompts()
    if FLAGS.output and FLAGS.chat:
        raise ValueError("--output and --chat exclude each other: a conversation is held in the terminal.")
    if FLAGS.output and not Path(FLAGS.output).absolute().parent.is_dir():
        raise ValueError(f"--output={FLAGS.output} is in no directory: make it first.")
    model = load(FLAGS.preset)
    if FLAGS.quantize:
        model.quantize(FLAGS.quantize)
    if FLAGS.draft:
        given |= {"draft": load(FLAGS.draft), "draft_tokens": FLAGS.draft_tokens}
    if FLAGS.output:
        return write(model, list(prompts), given)
    messages = []
    for i, prompt in enumerate(prompts):
        try:
            show(model, prompt, messages, {**given, "seed": FLAGS.seed + i})
        except ValueError as error:
            if not asks():
                raise
            print(f"error: {error}", file=sys.stderr)  # and the next prompt may be better


def make_sampler():
    """The sampler that the flags describe; None without any, which leaves it to the preset."""
    filters = {name: FLAGS[name].value for name in _FILTERS if FLAGS[name].value is not None}
    constraints = {"repetition_penalty": FLAGS.repetition_penalty, "no_repeat_ngram": FLAGS.no_repeat_ngram}
    if FLAGS.num_beams is not None:
        if filters or FLAGS.temperature is not None or FLAGS.contrastive is not None:
            raise ValueError("--num_beams and sampling exclude each other: leave out --temperature and the like.")
        return zoo.samplers.Beam(FLAGS.num_beams, FLAGS.length_penalty, **constraints)
    if FLAGS.contrastive is not None:
        if FLAGS.temperature is not None or set(filters) - {"top_k"}:
            raise ValueError("--contrastive draws nothing: leave out --temperature and the like, --top_k excepted.")
        return zoo.samplers.Contrastive(FLAGS.top_k or 4, FLAGS.contrastive, **constraints)
    if not filters and FLAGS.temperature is None and constraints == {"repetition_penalty": 1, "no_repeat_ngram": None}:
        return None
    temperature = (1.0 if filters else 0.0) if FLAGS.temperature is None else FLAGS.temperature
    if filters and temperature == 0:
        raise ValueError(f"--temperature=0 takes the most probable token: leave out --{next(iter(filters))}.")
    return zoo.samplers.Sampler(temperature, **filters, **constraints)


def read_prompts():
    """The prompts of the flags, or lines of standard input as they come."""
    if FLAGS.prompt and FLAGS.file:
        raise ValueError("--prompt and --file exclude each other: give one of them.")
    if FLAGS.file:
        return Path(FLAGS.file).read_text(encoding="utf-8").splitlines()
    if common.several() and not FLAGS.prompt:
        raise ValueError("Several processes read no standard input: give --prompt or --file.")
    return FLAGS.prompt or asked()


def asks():
    """Whether somebody types prompts."""
    return not FLAGS.prompt and not FLAGS.file and sys.stdin.isatty()


def asked():
    """Yields lines of standard input."""
    while True:
        try:
            yield input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return


def show(model, prompt, messages, given):
    """Prints a text as it is made; with --chat the answer, which `messages` then hold."""
    if FLAGS.chat:
        asked = [*messages, {"role": "user", "content": prompt}]
        prompt = model.tokenizer.apply_chat_template(asked)
        given = {**given, "echo": False, "add_special_tokens": False}
    pieces = []
    for piece in model.stream(prompt, **given):
        pieces.append(piece)
        print(piece, end="", flush=True)
    print("\n", flush=True)
    if FLAGS.chat:
        messages[:] = [*asked, {"role": "assistant", "content": "".join(pieces).strip()}]


def write(model, prompts, given):
    """Writes a line of JSON a prompt, in their order; the file is there when all of it is."""
    path = Path(FLAGS.output)
    part = path.with_name(f".{path.name}.part") if common.is_first() else Path(os.devnull)
    try:
        with open(part, "w", encoding="utf-8") as file, tqdm(total=len(prompts), unit="text") as bar:
            for start in range(0, len(prompts), FLAGS.batch_size):
                batch = prompts[start : start + FLAGS.batch_size]
                given |= {"seed": FLAGS.seed + start, "batch_size": FLAGS.batch_size}
                found = model.generate(batch, **given, details=True)
                for prompt, result in zip(batch, found):
                    line = {"prompt": prompt, "text": result.text, "score": round(result.score, 6)}
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
                bar.update(len(batch))
        if common.is_first():
            os.replace(part, path)
    finally:
        if common.is_first():
            part.unlink(missing_ok=True)


def load(preset):
    """The language model of a preset."""
    directory = pretrained.resolve(preset)
    architecture = pretrained.read(directory)[1].architecture
    if architecture == "encoder":
        raise ValueError(f"{preset} is an encoder, which generates no text: zoo.MaskedLM fills in its masks.")
    task = zoo.CausalLM if architecture == "decoder" else zoo.Seq2SeqLM
    return task.from_preset(directory, dtype=FLAGS.dtype)


if __name__ == "__main__":
    common.run(main)
