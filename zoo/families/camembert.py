"""CamemBERT (Martin et al. 2020): RoBERTa on French."""

from zoo.families import roberta
from zoo.families.family import Family
from zoo.families.xlm_roberta import architectures

FAMILY = Family(
    name="camembert",
    backbone="CamemBERTBackbone",
    model_types=("camembert",),
    architectures=architectures("Camembert"),
    keys=roberta.KEYS,
    defaults=roberta.DEFAULTS,
    derived=roberta.derived,
    fixed=roberta.FIXED,
    absent={"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
    extra_read=roberta.read,
    extra_write=roberta.write,
    table=roberta.table,
    heads=roberta.heads,
    prefix="roberta",
    ignore=(r"pooler\.", r"^lm_head\.bias$"),
    presets={"camembert_base": ("almanach/camembert-base", "111M", "mit")},
)
