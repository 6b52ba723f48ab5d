"""XLM-RoBERTa (Conneau et al. 2020) and CamemBERT: RoBERTa on other languages."""

from zoo.families.family import Family
from zoo.families.roberta import DEFAULTS, FIXED, KEYS, derived, read, table, write

_CLASSES = {"MaskedLM": "ForMaskedLM", "TextClassifier": "ForSequenceClassification",
            "TokenClassifier": "ForTokenClassification", "QuestionAnswerer": "ForQuestionAnswering",
            "Backbone": "Model"}  # fmt: skip

FAMILY = Family(
    name="xlm_roberta",
    backbone="XLMRoBERTaBackbone",
    model_types=("xlm-roberta", "camembert"),
    architectures={task: f"XLMRoberta{name}" for task, name in _CLASSES.items()},
    synonyms={f"Camembert{name}": task for task, name in _CLASSES.items()},
    keys=KEYS,
    defaults=DEFAULTS,
    derived=derived,
    fixed=FIXED,
    absent={"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
    extra_read=read,
    extra_write=write,
    table=table,
    prefix="roberta",
    ignore=(r"pooler\.", r"^lm_head\.bias$"),
    presets={
        "xlm_roberta_base": ("FacebookAI/xlm-roberta-base", "278M"),
        "xlm_roberta_large": ("FacebookAI/xlm-roberta-large", "560M"),
        "camembert_base": ("almanach/camembert-base", "111M"),
    },
)
