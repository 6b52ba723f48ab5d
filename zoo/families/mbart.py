"""mBART (Liu et al. 2020): BART on many languages, with norms before the branches and at the end."""

from zoo.families import bart
from zoo.families.family import Family

FAMILY = Family(
    name="mbart",
    backbone="MBARTBackbone",
    model_types=("mbart",),
    architectures={
        "Seq2SeqLM": "MBartForConditionalGeneration",
        "TextClassifier": "MBartForSequenceClassification",
        "QuestionAnswerer": "MBartForQuestionAnswering",
        "Backbone": "MBartModel",
    },
    keys=bart.KEYS,
    defaults={**bart.DEFAULTS, "norm_order": "pre", "final_norm": True},
    derived=bart.derived,
    fixed=bart.FIXED,
    absent={"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
    extra_read=bart.read,
    extra_write=bart.write,
    table=bart.table,
    heads=lambda config: bart.heads(config, "last"),
    prefix="model",
    ignore=bart.IGNORE,
    optional=("head/bias",),
    presets={
        "mbart_large_50": ("facebook/mbart-large-50", "611M", "mit"),
        "mbart_large_cc25": ("facebook/mbart-large-cc25", "611M", "not stated"),
    },
)
