"""The README.md of a repository: what a preset is, and how it is opened in `zoo` and in `transformers`.

It reads the preset's own files, so the card says what was saved.
"""

import math
from pathlib import Path

from zoo import pretrained
from zoo.checkpoint import Checkpoint, write_text
from zoo.registry import presets

_PIPELINES = {
    "CausalLM": "text-generation", "MaskedLM": "fill-mask", "Seq2SeqLM": "text2text-generation",
    "TextClassifier": "text-classification", "TokenClassifier": "token-classification",
    "QuestionAnswerer": "question-answering", "MultipleChoice": "multiple-choice",
    "TextEmbedder": "sentence-similarity",
}  # fmt: skip
_USES = {
    "CausalLM": 'print(model.generate("Once upon a time", max_new_tokens=50))',
    "Seq2SeqLM": 'print(model.generate("A text", max_new_tokens=50))',
    "MaskedLM": "mask = model.tokenizer.id_to_token(model.tokenizer.mask_id)\n"
    'print(model.fill_mask(f"It was {mask}."))',
    "TextClassifier": 'print(model.classify(["A text"]))',
    "TokenClassifier": 'print(model.tag(["A text"]))',
    "TextEmbedder": 'print(model.embed(["A text", "Another"]))',
}
_CARD = """---
{front}
---

# {name}

A {family} model with {parameters} parameters in {dtype}, saved by `zoo`.

| layers | hidden | heads | vocabulary |
|---|---|---|---|
| {layers} | {hidden} | {heads} | {vocabulary} |

## With zoo

On JAX, TensorFlow or PyTorch (`pip install keras-zoo`):

```python
from zoo import {task}

model = {task}.from_preset("hf://{name}")
{use}
```

## With transformers

```python
from transformers import AutoTokenizer, {their_class}

tokenizer = AutoTokenizer.from_pretrained("{name}")
model = {their_class}.from_pretrained("{name}")
```
"""


def write(directory, repository, task, license=None, base_model=None):
    """Writes README.md for a preset, unless there is one.

    Args:
        directory: a preset's local directory.
        repository: "owner/repo" where it will be.
        task: name of the class that opens it.
        license: as the Hub names it, such as "apache-2.0"; None for that of `base_model`, where that is a known preset.
        base_model: "owner/repo" that the model comes from, a preset's name, or None.
    """
    directory = Path(directory)
    if (directory / "README.md").exists():
        return
    family, config, hf = pretrained.read(directory)
    known = {preset.source.removeprefix("hf://"): preset for preset in presets().values()}
    if base_model in presets():
        base_model = presets()[base_model].source
    base_model = base_model and base_model.removeprefix("hf://").partition("@")[0]
    if license is None and base_model in known and known[base_model].license != "not stated":
        license = known[base_model].license
    held = Checkpoint(directory)
    front = ["library_name: keras", "tags:", "- zoo", f"- {family.name}"]
    front += [f"pipeline_tag: {_PIPELINES.get(task, 'feature-extraction')}"]
    front += [f"license: {license}"] if license else []
    front += [f"base_model: {base_model}"] if base_model else []
    text = _CARD.format(
        front="\n".join(front), name=repository, family=family.backbone.removesuffix("Backbone"), task=task,
        parameters=_short(sum(math.prod(held.shape(name)) for name in held)), dtype=hf["dtype"],
        layers=config.num_layers, hidden=config.hidden_dim, heads=config.num_heads, vocabulary=config.vocabulary_size,
        use=_USES.get(task, "model.summary()"), their_class=hf["architectures"][0],
    )  # fmt: skip
    write_text(directory / "README.md", text)


def _short(count):
    """1234567 as "1.2M"."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= size:
            return f"{count / size:.1f}{letter}"
    return str(count)
