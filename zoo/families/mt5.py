"""mT5 (Xue et al. 2021): T5 v1.1 on a hundred languages."""

from zoo.families import t5
from zoo.families.family import Family


def _read(hf):
    # The head is always its own; newer files call it tied, and then it is loaded from the embeddings if need be.
    return {**t5.read(hf), "tie_embeddings": False}


def _write(config):
    return {**t5.write(config), "tie_word_embeddings": False}


FAMILY = Family(
    name="mt5",
    backbone="MT5Backbone",
    model_types=("mt5",),
    architectures=t5.classes("MT5"),
    keys=t5.KEYS,
    defaults={**t5.DEFAULTS, "activation": "gelu_tanh", "gated": True, "tie_embeddings": False},
    derived=t5.derived,
    fixed=t5.FIXED,
    absent={"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "feed_forward_proj": "gated-gelu"},
    extra_read=_read,
    extra_write=_write,
    table=t5.table,
    heads=t5.heads,
    prefix="transformer",
    ignore=t5.IGNORE,
    presets={
        "mt5_small": ("google/mt5-small", "300M", "apache-2.0"),
        "mt5_base": ("google/mt5-base", "582M", "apache-2.0"),
    },
)
