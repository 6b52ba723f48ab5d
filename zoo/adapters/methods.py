"""The methods of parameter-efficient tuning, a function each: what is put where, and what is trained.

They know no files.
"""

import itertools
import re

import numpy as np
from keras import ops

from zoo.adapters.attach import TOKENS, beside, chosen, freeze_but, held, places, put, train_only, trained
from zoo.adapters.layers import ACTIVATIONS, IA3, Bottleneck, LoRA, Prompt
from zoo.loading import weights
from zoo.tasks.downstream import Downstream


def lora(model, rank=8, alpha=16, pattern="(query|value)/kernel", name="default", train=None, seed=0):
    """Low-rank adaptation (Hu et al. 2022): kernels stay as they are, and A B · alpha / rank is learnt beside them.

    As with all methods here, everything else is frozen, but heads of tasks that are not language models, and how much
    is trained is printed. Compile the model afterwards if it has been trained before.

    Args:
        model: a task or a `Backbone`.
        rank: columns of A.
        alpha: see above.
        pattern: regular expression, searched for in the names of kernels, such as `decoder/block_0/attn/query/kernel`.
        name: of the adapter; a model may have several.
        train: pattern of further weights that are trained; None: "^head/" for tasks with a head of their own.
        seed: of the values of A.

    Raises:
        ValueError: a pattern that matches no kernel of a dense layer; it names some. A name that is taken.

    Example:

    ```python
    from zoo import BERTBackbone, TextClassifier, adapters

    backbone = BERTBackbone(vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=16, intermediate_dim=32)
    classifier = TextClassifier(backbone, num_classes=2)
    adapters.lora(classifier, rank=4)  # trained: 802 of 12,722 weights (6.30 %)
    ```
    """
    _check_whole("rank", rank)
    if not alpha > 0:
        raise ValueError(f"alpha must be above 0, got {alpha!r}.")
    layers = chosen(model, pattern)
    seeds = dict(zip(layers, itertools.count(seed)))

    def make(kernel, inputs, outputs, **named):
        return LoRA(inputs, outputs, rank, alpha / rank, seed=seeds[kernel], **named)

    _tune(model, name, layers, make, train)


def ia3(model, pattern="(key|value|mlp/down)/kernel", name="default", train=None):
    """IA³ (Liu et al. 2022): vectors, 1 at first, that keys, values and the inner features of feed-forwards are
    multiplied with.

    Args:
        model, name, train: as in `lora`.
        pattern: of kernels, as in `lora`. Of `mlp/down` the inputs are multiplied, of all others the outputs.

    Raises:
        ValueError: as in `lora`.
    """

    def make(kernel, inputs, outputs, **named):
        return IA3(inputs, outputs, kernel.endswith("mlp/down/kernel"), **named)

    _tune(model, name, chosen(model, pattern), make, train)


def bottleneck(model, size=64, pattern="(attn/out|cross/out|mlp/down)/kernel", activation="gelu", name="default",
               train=None, seed=0):  # fmt: skip
    """Bottleneck adapters (Houlsby et al. 2019): a small feed-forward of its own, with a residual branch around it,
    behind attentions and feed-forwards.

    Args:
        model, name, train, seed: as in `lora`.
        size: features between its two layers.
        pattern: of kernels, as in `lora`; "mlp/down/kernel" has one adapter a block (Pfeiffer et al. 2021).
        activation: "gelu", "relu" or "silu".

    Raises:
        ValueError: as in `lora`.
    """
    _check_whole("size", size)
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}.")
    layers = chosen(model, pattern)
    seeds = dict(zip(layers, itertools.count(seed)))

    def make(kernel, inputs, outputs, **named):
        return Bottleneck(outputs, size, activation, seed=seeds[kernel], **named)

    _tune(model, name, layers, make, train)


def prompt(model, length=20, text=None, name="default", train=None, seed=0):
    """Prompt tuning (Lester et al. 2021): vectors that stand before each text as tokens do, and are learnt.

    Of an encoder-decoder the encoder alone reads them. They take `length` of the positions that a model has; a head
    that reads a text's first token reads the first of them instead, as in PEFT. Rows hold one text each.

    Args:
        model, name, train: as in `lora`.
        length: number of vectors.
        text: whose tokens' vectors they are at first, repeated or cut; None: those of random tokens.
        seed: of these.

    Raises:
        ValueError: more vectors than the model has positions, or a name that is taken.
    """
    _check_whole("length", length)
    table, make = places(model)[TOKENS], prompted(model, length)
    ids = np.random.default_rng(seed).integers(table.input_dim, size=length)
    if text is not None:
        ids = np.resize(model.tokenizer.encode(text, add_special_tokens=False), length)
    start = table(ops.convert_to_tensor(ids, "int32"))
    _tune(model, name, {TOKENS: table}, make, train)
    held(model, name)[TOKENS].vectors.assign(ops.cast(start, "float32"))


def prompted(model, length):
    """What makes the `Prompt` of a model, for `put`.

    Raises:
        ValueError: more vectors than the model has positions.
    """
    limit = model.config.position_limit
    if limit is not None and length >= limit:
        raise ValueError(f"length={length} leaves no room for texts: the model has {limit} positions.")
    pooled = isinstance(model, Downstream) and model.spec.pool == "first"
    return lambda place, rows, width, **named: Prompt(rows, width, length, limit, pooled, **named)


def bitfit(model, pattern="(^|/)bias$", train=None):
    """Trains biases alone (Ben Zaken et al. 2022). They are the model's own: save a preset.

    Args:
        model, train: as in `lora`.
        pattern: of the weights that are trained.

    Raises:
        ValueError: a pattern that matches nothing, as in models without biases.
    """
    found = {name: v for name, v in weights(model).items() if re.search(pattern, name)}
    if not found:
        raise ValueError(f"{pattern!r} matches no weight of this model.")
    freeze_but(model, {id(v) for v in (*found.values(), *beside(model, train).values())})
    print(trained(model))


def _tune(model, name, layers, make, train):
    beside(model, train)  # a pattern that matches nothing is told before anything is changed
    put(model, name, layers, make)
    train_only(model, name, train)
    print(trained(model))


def _check_whole(name, value):
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} must be a whole number above 0, got {value!r}.")
