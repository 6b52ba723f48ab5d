"""ELECTRA (Clark et al. 2020): BERT's encoder with narrow embeddings; generator and discriminator."""

from zoo.families import roberta
from zoo.families.bert import DEFAULTS, FIXED, KEYS, encoder, follow_dropout
from zoo.families.family import Family
from zoo.families.heads import HeadSpec
from zoo.families.rows import embeddings, linear, norm, untied_head
from zoo.weights import same


def _table(config):
    narrow = config.resolved_embedding_dim != config.hidden_dim
    return {
        **embeddings(config, "electra.embeddings.word_embeddings.weight", head="generator_lm_head.weight"),
        **encoder(config, "electra"),
        **(linear("encoder/embedding_projection", "electra.embeddings_project") if narrow else {}),
        **linear("head/transform", "generator_predictions.dense"),
        **norm("head/norm", "generator_predictions.LayerNorm"),
        "head/bias": ("generator_lm_head.bias", same),
        **untied_head(config, "generator_lm_head.weight"),
    }


_SUMMARY = {"summary_type": ("first",), "summary_use_proj": (True,), "summary_activation": ("gelu",)}


def _heads(config):
    summary = HeadSpec(pool="first", dense="sequence_summary.summary", activation="gelu", dropout=0.1,
                       keys={"summary_last_dropout": "dropout"}, fixed=_SUMMARY)  # fmt: skip
    discriminator = HeadSpec(dense="discriminator_predictions.dense", activation="gelu",
                             out="discriminator_predictions.dense_prediction")  # fmt: skip
    found = roberta.heads(config, activation="gelu")
    return {**found, "MultipleChoice": summary, "ReplacedTokenDetector": discriminator}


FAMILY = Family(
    name="electra",
    backbone="ELECTRABackbone",
    model_types=("electra",),
    architectures={
        "MaskedLM": "ElectraForMaskedLM",
        "TextClassifier": "ElectraForSequenceClassification",
        "TokenClassifier": "ElectraForTokenClassification",
        "QuestionAnswerer": "ElectraForQuestionAnswering",
        "MultipleChoice": "ElectraForMultipleChoice",
        "ReplacedTokenDetector": "ElectraForPreTraining",
        "Backbone": "ElectraModel",
    },
    keys={**KEYS, "embedding_size": "embedding_dim"},
    defaults=DEFAULTS,
    derived=follow_dropout,
    fixed={**FIXED, "hidden_act": ("gelu",)},  # the head has no other
    absent={"pad_token_id": 0, "embedding_size": 128},
    table=_table,
    heads=_heads,
    prefix="electra",
    presets={
        "electra_small_discriminator": ("google/electra-small-discriminator", "14M", "apache-2.0"),
        "electra_base_discriminator": ("google/electra-base-discriminator", "109M", "apache-2.0"),
        "electra_small_generator": ("google/electra-small-generator", "14M", "apache-2.0"),
    },
)
