"""XLM-RoBERTa (Conneau et al. 2020): RoBERTa on a hundred languages."""

from zoo.families.family import Family
from zoo.families.roberta import DEFAULTS, FIXED, KEYS, derived, heads, read, table, write


def architectures(name):
    """The classes that `transformers` has for RoBERTa and its relatives."""
    return {
        "MaskedLM": f"{name}ForMaskedLM",
        "TextClassifier": f"{name}ForSequenceClassification",
        "TokenClassifier": f"{name}ForTokenClassification",
        "QuestionAnswerer": f"{name}ForQuestionAnswering",
        "MultipleChoice": f"{name}ForMultipleChoice",
        "Backbone": f"{name}Model",
    }


FAMILY = Family(
    name="xlm_roberta",
    backbone="XLMRoBERTaBackbone",
    model_types=("xlm-roberta",),
    architectures=architectures("XLMRoberta"),
    keys=KEYS,
    defaults=DEFAULTS,
    derived=derived,
    fixed=FIXED,
    absent={"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
    extra_read=read,
    extra_write=write,
    table=table,
    heads=heads,
    prefix="roberta",
    ignore=(r"pooler\.", r"^lm_head\.bias$"),
    presets={
        "xlm_roberta_base": ("FacebookAI/xlm-roberta-base", "278M", "mit"),
        "xlm_roberta_large": ("FacebookAI/xlm-roberta-large", "560M", "mit"),
    },
)
