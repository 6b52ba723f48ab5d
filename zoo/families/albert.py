"""ALBERT (Lan et al. 2020): BERT whose layers share weights, with narrow embeddings."""

import dataclasses

from zoo.families.bert import DEFAULTS, FIXED, KEYS, follow_dropout, head, heads
from zoo.families.family import Family
from zoo.families.rows import embeddings, linear, linears, norm
from zoo.weights import same


def _table(config):
    ours, theirs = "encoder/block_{}", "albert.encoder.albert_layer_groups.{}.albert_layers.0"
    e, attention = "albert.embeddings", {"query": "query", "key": "key", "value": "value", "out": "dense"}
    return {
        **embeddings(config, f"{e}.word_embeddings.weight", head="predictions.decoder.weight"),
        "encoder/position/embeddings": (f"{e}.position_embeddings.weight", same),
        "encoder/token_type/embeddings": (f"{e}.token_type_embeddings.weight", same),
        **norm("encoder/embedding_norm", f"{e}.LayerNorm"),
        **linear("encoder/embedding_projection", "albert.encoder.embedding_hidden_mapping_in"),
        **linears(f"{ours}/attn", f"{theirs}.attention", attention),
        **norm(f"{ours}/attn_norm", f"{theirs}.attention.LayerNorm"),
        **linears(f"{ours}/mlp", theirs, {"up": "ffn", "down": "ffn_output"}),
        **norm(f"{ours}/mlp_norm", f"{theirs}.full_layer_layer_norm"),
        **head(config, "predictions", "dense", "LayerNorm"),
    }


def _heads(config):
    # Unlike BERT's, the rate of its heads is not that of the layers where config.json does not say it.
    found = heads(config, "albert", "pooler", "classifier_dropout_prob")
    rated = {task: dataclasses.replace(spec, dropout=0.1) for task, spec in found.items() if spec.keys}
    return found | rated


FAMILY = Family(
    name="albert",
    backbone="ALBERTBackbone",
    model_types=("albert",),
    architectures={
        "MaskedLM": "AlbertForMaskedLM",
        "TextClassifier": "AlbertForSequenceClassification",
        "TokenClassifier": "AlbertForTokenClassification",
        "QuestionAnswerer": "AlbertForQuestionAnswering",
        "MultipleChoice": "AlbertForMultipleChoice",
        "Backbone": "AlbertModel",
    },
    synonyms={"AlbertForPreTraining": "MaskedLM"},
    keys={**KEYS, "embedding_size": "embedding_dim", "num_hidden_groups": "num_distinct_blocks"},
    defaults={**DEFAULTS, "activation": "gelu_tanh", "dropout": 0.0, "embedding_dim": 128, "num_distinct_blocks": 1},
    derived=follow_dropout,
    fixed={**FIXED, "inner_group_num": (1,)},
    absent={"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3},
    table=_table,
    heads=_heads,
    prefix="albert",
    ignore=(r"pooler\.", r"^predictions\.bias$"),
    presets={
        "albert_base_v2": ("albert/albert-base-v2", "11M", "apache-2.0"),
        "albert_large_v2": ("albert/albert-large-v2", "17M", "apache-2.0"),
    },
)
