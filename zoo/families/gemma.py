"""Gemma (Mesnard et al. 2024): Llama with scaled embeddings, wide heads and scales stored minus one."""

from zoo.families.family import Family
from zoo.families.llama import DEFAULTS, KEYS, architectures, heads, table
from zoo.families.rotary import read_rotary, write_rotary

GEMMA_KEYS = {**{key: field for key, field in KEYS.items() if field != "activation"},
              "attention_bias": ("qkv_bias", "out_bias")}  # fmt: skip
GEMMA_DEFAULTS = {**DEFAULTS, "norm_offset": 1.0, "activation": "gelu_tanh", "tie_embeddings": True,
                  "max_sequence_length": 8192}  # fmt: skip
GEMMA_ABSENT = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "head_dim": 256}
ONE_WAY = {"use_bidirectional_attention": (None, False)}
TANH = ("gelu_pytorch_tanh", "gelu_new", None)


def scaled(fields):
    """Embeddings are scaled by the square root of their width."""
    return {"embedding_scale": fields["hidden_dim"] ** 0.5} if "hidden_dim" in fields else {}


def write(config):
    """The rotary keys, and the one activation in both spellings."""
    return {**write_rotary(config), "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh"}


FAMILY = Family(
    name="gemma",
    backbone="GemmaBackbone",
    model_types=("gemma",),
    architectures=architectures("Gemma"),
    keys=GEMMA_KEYS,
    defaults=GEMMA_DEFAULTS,
    derived=scaled,
    fixed={**ONE_WAY, "hidden_act": (*TANH, "gelu"), "hidden_activation": TANH},  # its first files say gelu for tanh
    absent={**GEMMA_ABSENT, "num_key_value_heads": 16},
    extra_read=read_rotary,
    extra_write=write,
    table=table,
    heads=heads,
    prefix="model",
    presets={"gemma_2b": ("google/gemma-2b", "2.5B", "gemma"), "gemma_7b": ("google/gemma-7b", "8.5B", "gemma")},
)
