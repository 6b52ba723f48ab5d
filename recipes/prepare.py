"""Prepares text for training: cleans it, takes duplicates out, tokenizes it, and keeps the tokens in a store.

python recipes/prepare.py --data='books/*.txt' --data=web.jsonl.gz --output=store              a tokenizer of its own
python recipes/prepare.py --data=news.parquet --field=body --preset=gpt2 --output=store        that of a preset
python recipes/prepare.py --data=zh.txt --split=line --deduplicate=exact --output=store

--output then holds the store, tokenizer/, lengths.png and prepare.cfg, and is what `pretrain.py --data=store` takes.
"""

from pathlib import Path

import common
from absl import flags

import zoo
from zoo import data

FLAGS = flags.FLAGS
KINDS = ("bpe", "wordpiece", "unigram", "char", "byte")

flags.DEFINE_multi_string("data", ["pydocs"], "Text: 'pydocs', a file, a directory or a glob; may be repeated.")
flags.DEFINE_enum("split", None, ["line", "blank"], "How a text file falls into documents. Default: it is one.")
flags.DEFINE_string("field", "text", "Key or column of the text in JSON lines, CSV, TSV and Parquet.")
flags.DEFINE_enum("broken_lines", "fail", ["fail", "skip"], "What becomes of a line that cannot be read.")
flags.DEFINE_string("tokenizer", None, f"{', '.join(KINDS)}, to be trained, or a preset. Default: bpe.")
flags.DEFINE_string("preset", None, "Model whose tokenizer is used: a name, a directory, or hf://owner/repo.")
flags.DEFINE_integer("vocabulary_size", 8192, "Tokens of a tokenizer that is trained.", lower_bound=1)
flags.DEFINE_bool("lowercase", False, "Whether a tokenizer that is trained lowers all letters.")
flags.DEFINE_string("output", None, "Directory to write.")
flags.DEFINE_enum("normalization", "NFC", ["none", "NFC", "NFKC"], "Unicode normal form of the text.")
flags.DEFINE_integer("min_characters", 20, "Drop documents with fewer, white space aside.", lower_bound=0)
flags.DEFINE_float("min_letters", 0.3, "Drop documents with a smaller share of letters.", 0, 1)
flags.DEFINE_float("max_junk", 0.02, "Drop documents with a greater share of what is no text.", 0, 1)
flags.DEFINE_enum("deduplicate", "near", data.preparation.DEDUPLICATIONS, "Which duplicates are dropped.")
flags.DEFINE_float("similarity", 0.8, "Share of words that near-duplicates have in common.")
flags.DEFINE_float("validation_share", 0.05, "Share of the documents held out, chosen by a hash of their text.")


def main():
    if FLAGS.output is None:
        raise ValueError("--output is missing: name a directory to write.")
    normalization = None if FLAGS.normalization == "none" else FLAGS.normalization
    cleaning = data.Cleaning(normalization, FLAGS.min_characters, FLAGS.min_letters, FLAGS.max_junk)
    source = data.sources.open(FLAGS.data, FLAGS.split, FLAGS.field, FLAGS.broken_lines)
    tokenizer = make_tokenizer(source)
    output = Path(FLAGS.output)
    store = data.prepare(
        source, tokenizer, output, cleaning, FLAGS.deduplicate, FLAGS.similarity, FLAGS.validation_share
    )
    tokenizer.save(output / "tokenizer")
    data.length_histogram(store, output / "lengths.png")
    common.write_flags(output / "prepare.cfg")
    print(data.summary(store))
    print(f"\nThe store is in {output}. Train on it with\n\n    python recipes/pretrain.py --data={output}")


def make_tokenizer(source):
    """The preset's tokenizer, the one that --tokenizer names, or one trained on the text."""
    if FLAGS.preset and FLAGS.tokenizer:
        raise ValueError(f"--preset={FLAGS.preset} brings its tokenizer: leave --tokenizer out.")
    if FLAGS.preset or FLAGS.tokenizer not in (None, *KINDS):
        return zoo.Tokenizer.from_preset(FLAGS.preset or FLAGS.tokenizer)
    print("training the tokenizer")
    kind, size = FLAGS.tokenizer or "bpe", FLAGS.vocabulary_size
    return zoo.Tokenizer.train(source, kind=kind, vocabulary_size=size, lowercase=FLAGS.lowercase)


if __name__ == "__main__":
    common.run(main)
