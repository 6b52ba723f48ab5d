"""How zoo's peers make tokens and batches, each as its own documentation says; nothing of zoo.

A batch is an endless generator of pairs: how many real tokens a batch has, and how many places.
"""

import itertools
import json
import math
import os
import tempfile
from pathlib import Path

import numpy as np

BLOCK = 1000  # documents that a tokenizer gets together: the default of `datasets.map`


def preparing(library, way, texts, place):
    """A function that tokenizes all texts once and returns the number of tokens."""
    directory = Path(place, "bpe")
    if library == "tokenizers":
        import tokenizers

        fast = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
        together = fast.encode_batch_fast if way == ["no_offsets"] else fast.encode_batch
        encode = lambda block: [one.ids for one in together(block, add_special_tokens=False)]  # noqa: E731
        return lambda: sum(sum(map(len, encode(texts[i : i + BLOCK]))) for i in range(0, len(texts), BLOCK))
    if library == "datasets":
        import datasets  # noqa: F401 - first, for what follows takes long

    import transformers

    fast = transformers.AutoTokenizer.from_pretrained(directory)
    options = {"add_special_tokens": False, "return_attention_mask": False, "return_token_type_ids": False}
    encode = lambda block: fast(block, **options)["input_ids"]  # noqa: E731
    if library == "transformers":
        return lambda: sum(sum(map(len, encode(texts[i : i + BLOCK]))) for i in range(0, len(texts), BLOCK))
    return mapping(encode, texts, place, os.cpu_count() if way == ["processes"] else None)


def mapping(encode, texts, place, processes):
    """`datasets.map` in batches, to a file, with the tokenizer's own threads or with processes."""
    import datasets

    datasets.disable_progress_bars()
    source = datasets.Dataset.from_dict({"text": texts})

    def work():
        with tempfile.TemporaryDirectory(dir=place) as directory:
            made = source.map(
                lambda batch: {"input_ids": (ids := encode(batch["text"])), "length": [len(one) for one in ids]},
                batched=True, remove_columns=["text"], num_proc=processes, load_from_cache_file=False,
                cache_file_name=str(Path(directory, "tokens.arrow")),
            )  # fmt: skip
            return sum(made["length"])

    return work


def transformers(way, workload, directory, pieces, batch, length):
    """Collators by hand (numpy, torch), on rows that documents were joined to, or behind a DataLoader with workers."""
    import transformers as hf

    tokenizer = hf.AutoTokenizer.from_pretrained(directory)
    tensors = "np" if way == "numpy" else "pt"
    if workload == "packed":
        collate = hf.DataCollatorWithFlattening(return_tensors=tensors)
        ids = tokenizer(pieces, truncation=True, max_length=length - 1, add_special_tokens=False)["input_ids"]
        examples = [{"input_ids": [*one, tokenizer.eos_token_id]} for one in ids]
        batch = round(batch * length / np.mean([len(one["input_ids"]) for one in examples]))
        count = lambda made: (math.prod(made["input_ids"].shape),) * 2  # noqa: E731
    else:
        whole_word = workload == "whole_word"
        only_masks = {"mask_replace_prob": 1.0, "random_replace_prob": 0.0} if whole_word else {}
        collate = hf.DataCollatorForLanguageModeling(
            tokenizer, whole_word_mask=whole_word, return_tensors=tensors, **only_masks
        )
        examples = tokenizer(  # whole words need offsets, and the collator does not pad these
            pieces, truncation=True, max_length=length, return_token_type_ids=False, return_special_tokens_mask=True,
            return_offsets_mapping=whole_word, padding="max_length" if whole_word and way != "rows" else False,
        )  # fmt: skip
        examples = [dict(zip(examples, values)) for values in zip(*examples.values())]
        examples = joined(examples, length) if way == "rows" else examples
        count = lambda made: (int(made["attention_mask"].sum()), math.prod(made["input_ids"].shape))  # noqa: E731
    return map(count, collated(examples, collate, batch, os.cpu_count() if way == "workers" else 0))


def joined(examples, length):
    """All examples end to end, cut to rows of `length`; a shorter tail is dropped."""
    whole = {key: list(itertools.chain.from_iterable(one[key] for one in examples)) for key in examples[0]}
    starts = range(0, len(whole["input_ids"]) - length + 1, length)
    return [{key: values[start : start + length] for key, values in whole.items()} for start in starts]


def collated(examples, collate, batch, workers):
    """Batches of examples in random order, without end."""
    if workers:
        from torch.utils.data import DataLoader, RandomSampler

        sampler = RandomSampler(examples, replacement=True, num_samples=1 << 30)
        yield from DataLoader(examples, batch, sampler=sampler, collate_fn=collate, num_workers=workers)
    rng = np.random.default_rng(0)
    while True:
        order = rng.permutation(len(examples))
        for start in range(0, len(order) - batch + 1, batch):
            yield collate([dict(examples[i]) for i in order[start : start + batch]])


def keras_hub(way, workload, directory, pieces, batch, length):
    """Preprocessors in a tf.data pipeline, as `fit` puts them there, or by hand on lists of strings."""
    os.environ["KERAS_BACKEND"] = "tensorflow" if way == "tf.data" else "jax"
    if way == "tf.data":
        import tensorflow_text  # noqa: F401 - the pipeline needs it

    import keras
    import keras_hub as hub

    whole = json.loads(Path(directory, "tokenizer.json").read_text(encoding="utf-8"))
    model = whole["model"]
    if workload == "packed":
        merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]]
        tokenizer = hub.models.GPT2Tokenizer(model["vocab"], merges)
        preprocessor = hub.models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=length)
    else:
        names = sorted(model["vocab"], key=model["vocab"].get)
        tokenizer = hub.models.BertTokenizer(names, lowercase=whole["normalizer"]["lowercase"])
        masks = {"mask_selection_length": math.ceil(0.15 * length)}
        preprocessor = hub.models.BertMaskedLMPreprocessor(tokenizer, sequence_length=length, **masks)
    if way == "tf.data":
        import tensorflow as tf

        stream = tf.data.Dataset.from_tensor_slices(pieces).shuffle(10_000).repeat().batch(batch)
        stream = stream.map(preprocessor, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
        made = stream.as_numpy_iterator()
    else:
        rng = np.random.default_rng(0)
        made = (preprocessor([pieces[i] for i in rng.integers(len(pieces), size=batch)]) for _ in itertools.count())
    for x, _, _ in made:
        mask = keras.ops.convert_to_numpy(x["padding_mask"])
        yield np.count_nonzero(mask), mask.size
