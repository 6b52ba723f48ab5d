"""umT5 (Chung et al. 2023): mT5 with relative buckets of each layer's own."""

from zoo.families import mt5, t5
from zoo.families.family import Family


def _read(hf):
    # Published files say untied, and their logits are not scaled; "tied" ones are. Newer files say all are tied, and
    # whether they are scaled beside it.
    fields = {**t5.read(hf), "tie_embeddings": False}
    scaled = hf.get("scale_decoder_outputs", hf.get("tie_word_embeddings", True))
    return {**fields, "logit_scale": hf["d_model"] ** -0.5} if scaled and "d_model" in hf else fields


def _write(config):
    scaled = config.logit_scale != 1.0
    return {**t5.write(config), "tie_word_embeddings": scaled, "scale_decoder_outputs": scaled}


FAMILY = Family(
    name="umt5",
    backbone="UMT5Backbone",
    model_types=("umt5",),
    architectures=t5.classes("UMT5"),
    keys=t5.KEYS,
    defaults={**mt5.FAMILY.defaults, "relative": "buckets_per_layer"},
    derived=t5.derived,
    fixed=t5.FIXED,
    absent=mt5.FAMILY.absent,
    extra_read=_read,
    extra_write=_write,
    table=t5.table,
    heads=t5.heads,
    prefix="transformer",
    ignore=t5.IGNORE,
    presets={
        "umt5_small": ("google/umt5-small", "307M", "apache-2.0"),
        "umt5_base": ("google/umt5-base", "592M", "apache-2.0"),
    },
)
