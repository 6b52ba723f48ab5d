"""PEGASUS (Zhang et al. 2020): mBART's layers with sinusoidal positions, for summaries."""

from zoo.families import bart
from zoo.families.family import Family

SINUSOIDAL = {"position": "sinusoidal", "position_offset": 0, "embedding_norm": False}
TABLES = r"embed_positions\.weight$"  # sinusoids are computed

FAMILY = Family(
    name="pegasus",
    backbone="PegasusBackbone",
    model_types=("pegasus",),
    architectures={"Seq2SeqLM": "PegasusForConditionalGeneration", "Backbone": "PegasusModel"},
    keys=bart.KEYS,
    defaults={**bart.DEFAULTS, **SINUSOIDAL, "norm_order": "pre", "final_norm": True},
    derived=bart.derived,
    fixed=bart.FIXED,
    absent={"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0},
    extra_read=bart.read,
    extra_write=bart.write,
    table=bart.table,
    prefix="model",
    ignore=(*bart.IGNORE, TABLES),
    optional=("head/bias",),
    presets={
        "pegasus_xsum": ("google/pegasus-xsum", "569M", "not stated"),
        "pegasus_cnn_dailymail": ("google/pegasus-cnn_dailymail", "569M", "not stated"),
    },
)
