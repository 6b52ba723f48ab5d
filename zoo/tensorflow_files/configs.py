"""What stands in for a config.json beside a checkpoint of TensorFlow: BERT's and ALBERT's own file, or a T5's tensors.

It gives the keys that `transformers` would have written, and leaves to the families what they mean.
"""

import ast
import re
from pathlib import Path

from zoo.checkpoint import read_json
from zoo.tensorflow_files.files import index_of, stored

_CONFIGS = {  # file -> what it leaves out
    "config.json": {},
    "bert_config.json": {"model_type": "bert", "architectures": ["BertForPreTraining"]},
    "albert_config.json": {"model_type": "albert", "architectures": ["AlbertForPreTraining"]},
}
_GIN = "operative_config.gin"
_FEED_FORWARDS = {  # what Mesh TensorFlow calls gelu is its approximation by tanh, which transformers has gated alone
    ("relu",): "relu", ("relu", "linear"): "gated-relu", ("gelu", "linear"): "gated-gelu",
    ("silu", "linear"): "gated-silu", ("swish", "linear"): "gated-silu",
}  # fmt: skip
_SAID = {
    "num_heads": "SelfAttention.num_heads", "d_kv": "SelfAttention.key_value_size",
    "d_ff": "DenseReluDense.hidden_size",
    "relative_attention_num_buckets": "SelfAttention.relative_attention_num_buckets",
}  # fmt: skip


def model_type(directory):
    """The `model_type` that a file in place of a config.json stands for, or None."""
    known = (hf.get("model_type") for name, hf in _CONFIGS.items() if (Path(directory) / name).is_file())
    return next(known, "t5" if (Path(directory) / _GIN).is_file() else None)


def read_config(directory):
    """The contents of a config.json, or what it would say: (the file that says it, its contents).

    T5 has no such file: its shape is that of its tensors, and its switches are in operative_config.gin.

    Raises:
        ValueError: nothing that says it, or not enough; the message names the file.
    """
    directory = Path(directory)
    for name, hf in _CONFIGS.items():
        if (file := directory / name).is_file():
            return file, {**hf, **read_json(file)}
    gin = directory / _GIN
    if not gin.is_file() and not any(directory.glob("*.index")):
        raise ValueError(f"{directory} has neither a config.json nor anything that stands in for one.")
    index, gin = index_of(directory), gin if gin.is_file() else None
    return gin or index, _t5_config(index, gin)


def _t5_config(index, gin):
    """A T5's config.json from the shapes of its tensors, which the gin file must not contradict."""
    shapes, place = {name: shape for name, (shape, _) in stored(index)[0].items()}, gin or index
    said = _bindings(gin) if gin else {}

    def take(name, default, *allowed):
        """A value of the gin file, one for all scopes, and one of those allowed."""
        values = said.get(name, [default])
        if any(value != values[0] for value in values) or (allowed and values[0] not in allowed):
            wanted = f"only {allowed[0]!r}" if allowed else "only equal values"
            raise ValueError(f"{place}: {name}={values} is not supported for T5, {wanted}.")
        return values[0]

    up, sizes = _t5_sizes(index, shapes)
    activation = take("DenseReluDense.activation", "relu" if up == ["wi"] else None)
    activation = (activation,) if isinstance(activation, str) else tuple(activation or ())
    if activation not in _FEED_FORWARDS or len(activation) != len(up):
        raise ValueError(f"{place}: DenseReluDense.activation={list(activation)} for {up} is not one of "
                         f"{[list(known) for known in _FEED_FORWARDS]}: write a config.json.")  # fmt: skip
    for key, name in _SAID.items():  # where nothing says it, T5 has 32 buckets
        if (wanted := take(name, 32 if name.endswith("buckets") else sizes[key])) != sizes[key]:
            raise ValueError(f"{index} holds {key}={sizes[key]}, but {name} is {wanted} in {place}, or where it says "
                             "nothing: write a config.json.")  # fmt: skip
    take("SelfAttention.relative_attention_type", "bias_shared", "bias_shared")
    take("SelfAttention.fold_scaling_into_initializer", True, True)
    return {
        "model_type": "t5", "architectures": ["T5ForConditionalGeneration"], **sizes,
        "relative_attention_max_distance": 128, "feed_forward_proj": _FEED_FORWARDS[activation],
        "layer_norm_epsilon": take("sublayer_rms_norm.epsilon", 1e-6), "dropout_rate": take("dropout_rate", 0.1),
        "tie_word_embeddings": "decoder/logits/kernel" not in shapes, "decoder_start_token_id": 0, "pad_token_id": 0,
        "eos_token_id": 1,
    }  # fmt: skip


def _t5_sizes(index, shapes):
    """The layers that a feed-forward begins with, and the keys that shapes alone give."""
    first, blocks = "encoder/block_000/layer_00", [re.match(r"(\w+)/block_(\d+)/", name) for name in shapes]
    try:
        heads, buckets = shapes[f"{first}0/SelfAttention/relative_attention_bias"]
        vocabulary, width = shapes["shared/embedding"]
        inner = shapes[f"{first}0/SelfAttention/q"][-1]
        up = [name for name in ("wi", "wi_0", "wi_1") if f"{first}1/DenseReluDense/{name}/kernel" in shapes]
        hidden = shapes[f"{first}1/DenseReluDense/{up[0]}/kernel"][-1]
    except (LookupError, ValueError) as error:
        raise ValueError(f"{index} has no config.json beside it, and does not have the tensors of a T5: "
                         f"{error}.") from None  # fmt: skip
    if inner % heads:
        raise ValueError(f"{index}: {heads} heads do not divide queries of {inner}: write a config.json.")
    depth = {stack: len({found[2] for found in blocks if found and found[1] == stack})
             for stack in ("encoder", "decoder")}  # fmt: skip
    return up, {
        "vocab_size": vocabulary, "d_model": width, "d_kv": inner // heads, "d_ff": hidden, "num_heads": heads,
        "num_layers": depth["encoder"], "num_decoder_layers": depth["decoder"],
        "relative_attention_num_buckets": buckets,
    }  # fmt: skip


def _bindings(gin):
    """What a gin file binds: "macro" or "Name.parameter", without modules and scopes -> its values in all scopes."""
    found, text = {}, re.sub(r"\\\s*\n", " ", gin.read_text(encoding="utf-8"))
    for key, value in re.findall(r"^\s*([\w./]+)\s*=\s*(.+?)\s*$", text, re.M):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            pass  # a reference, or a list that goes on in the next line
        found.setdefault(".".join(key.split("/")[-1].split(".")[-2:]), []).append(value)
    resolved = lambda v: found.get(v[1:], [v])[-1] if isinstance(v, str) and v.startswith("%") else v  # noqa: E731
    return {key: [resolved(value) for value in values] for key, values in found.items()}
