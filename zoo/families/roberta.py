"""RoBERTa (Liu et al. 2019): BERT's encoder; positions start after the padding index."""

from zoo.families import bert
from zoo.families.bert import DEFAULTS, FIXED, KEYS, encoder, follow_dropout, head
from zoo.families.family import Family
from zoo.families.heads import HeadSpec
from zoo.families.rows import embeddings

DEFAULTS = {**DEFAULTS, "num_token_types": 1, "norm_epsilon": 1e-5}
KEYS = {key: field for key, field in KEYS.items() if field != "max_sequence_length"}


def derived(fields):
    """The first position row follows the padding index, which RoBERTa never counts as a position."""
    pad = fields.get("pad_token_id")
    return {**follow_dropout(fields), "position_offset": 2 if pad is None else pad + 1}


def read(hf):
    """The position table's rows include those that no token uses."""
    if hf["pad_token_id"] is None:
        raise ValueError("pad_token_id=None is not supported: positions are counted from it.")
    offset = hf["pad_token_id"] + 1
    rows = {"max_sequence_length": hf["max_position_embeddings"] - offset} if "max_position_embeddings" in hf else {}
    return {"position_offset": offset, **rows}


def write(config):
    """The inverse of `read`."""
    return {
        "pad_token_id": config.position_offset - 1,
        "max_position_embeddings": config.max_sequence_length + config.position_offset,
    }


def table(config, prefix="roberta"):
    """All rows of a RoBERTa whose names begin with `prefix`."""
    return {
        **embeddings(config, f"{prefix}.embeddings.word_embeddings.weight", head="lm_head.decoder.weight"),
        **encoder(config, prefix),
        **head(config, "lm_head", "dense", "layer_norm"),
    }


def heads(config, prefix="roberta", activation="tanh"):
    """BERT's heads, but for a classifier with a dense layer of its own."""
    rates = {"dropout": config.dropout, "keys": {"classifier_dropout": "dropout"}}
    own = HeadSpec(pool="first", dense="classifier.dense", out="classifier.out_proj", activation=activation,
                   dropout_first=True, **rates)  # fmt: skip
    pooled = HeadSpec(pool="first", dense=f"{prefix}.pooler.dense", dropout=config.dropout)
    return {**bert.heads(config), "TextClassifier": own, "MultipleChoice": pooled}


FAMILY = Family(
    name="roberta",
    backbone="RoBERTaBackbone",
    model_types=("roberta",),
    architectures={
        "MaskedLM": "RobertaForMaskedLM",
        "TextClassifier": "RobertaForSequenceClassification",
        "TokenClassifier": "RobertaForTokenClassification",
        "QuestionAnswerer": "RobertaForQuestionAnswering",
        "MultipleChoice": "RobertaForMultipleChoice",
        "Backbone": "RobertaModel",
    },
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
        "roberta_base": ("FacebookAI/roberta-base", "125M", "mit"),
        "roberta_large": ("FacebookAI/roberta-large", "355M", "mit"),
        "distilroberta_base": ("distilbert/distilroberta-base", "82M", "apache-2.0"),
    },
)
