"""DistilBERT (Sanh et al. 2019): BERT without sentence types, half as deep."""

from zoo.families.bert import DEFAULTS, follow_dropout
from zoo.families.family import Family
from zoo.families.heads import HeadSpec
from zoo.families.rows import embeddings, linear, linears, norm, untied_head
from zoo.weights import same


def _table(config):
    ours, theirs, e = "encoder/block_{}", "distilbert.transformer.layer.{}", "distilbert.embeddings"
    attention = {"query": "q_lin", "key": "k_lin", "value": "v_lin", "out": "out_lin"}
    return {
        **embeddings(config, f"{e}.word_embeddings.weight", head="vocab_projector.weight"),
        "encoder/position/embeddings": (f"{e}.position_embeddings.weight", same),
        **norm("encoder/embedding_norm", f"{e}.LayerNorm"),
        **linears(f"{ours}/attn", f"{theirs}.attention", attention),
        **norm(f"{ours}/attn_norm", f"{theirs}.sa_layer_norm"),
        **linears(f"{ours}/mlp", f"{theirs}.ffn", {"up": "lin1", "down": "lin2"}),
        **norm(f"{ours}/mlp_norm", f"{theirs}.output_layer_norm"),
        **linear("head/transform", "vocab_transform"),
        **norm("head/norm", "vocab_layer_norm"),
        "head/bias": ("vocab_projector.bias", same),
        **untied_head(config, "vocab_projector.weight"),
    }


def _heads(config):
    first = HeadSpec(pool="first", dense="pre_classifier", activation="relu", dropout=0.2,
                     keys={"seq_classif_dropout": "dropout"})  # fmt: skip
    return {
        "TextClassifier": first,
        "MultipleChoice": first,
        "TokenClassifier": HeadSpec(dropout=config.dropout),
        "QuestionAnswerer": HeadSpec(out="qa_outputs", dropout=0.1, keys={"qa_dropout": "dropout"}),
    }


FAMILY = Family(
    name="distilbert",
    backbone="DistilBERTBackbone",
    model_types=("distilbert",),
    architectures={
        "MaskedLM": "DistilBertForMaskedLM",
        "TextClassifier": "DistilBertForSequenceClassification",
        "TokenClassifier": "DistilBertForTokenClassification",
        "QuestionAnswerer": "DistilBertForQuestionAnswering",
        "MultipleChoice": "DistilBertForMultipleChoice",
        "Backbone": "DistilBertModel",
    },
    keys={
        "vocab_size": "vocabulary_size",
        "n_layers": "num_layers",
        "n_heads": "num_heads",
        "dim": "hidden_dim",
        "hidden_dim": "intermediate_dim",
        "max_position_embeddings": "max_sequence_length",
        "activation": "activation",
        "dropout": "dropout",
        "attention_dropout": "attention_dropout",
        "initializer_range": "initializer_range",
        "tie_word_embeddings": "tie_embeddings",
    },
    defaults={**DEFAULTS, "num_token_types": 0},
    derived=follow_dropout,
    absent={"pad_token_id": 0},
    table=_table,
    heads=_heads,
    prefix="distilbert",
    presets={
        "distilbert_base_uncased": ("distilbert/distilbert-base-uncased", "67M", "apache-2.0"),
        "distilbert_base_cased": ("distilbert/distilbert-base-cased", "66M", "apache-2.0"),
    },
)
