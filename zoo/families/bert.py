"""BERT (Devlin et al. 2019): a post-norm encoder with sentence types and a masked-LM head."""

from zoo.families.family import Family
from zoo.families.heads import HeadSpec
from zoo.families.rows import embeddings, linear, linears, norm, untied_head
from zoo.weights import same

KEYS = {
    "vocab_size": "vocabulary_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "hidden_size": "hidden_dim",
    "intermediate_size": "intermediate_dim",
    "max_position_embeddings": "max_sequence_length",
    "type_vocab_size": "num_token_types",
    "hidden_act": "activation",
    "layer_norm_eps": "norm_epsilon",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
    "initializer_range": "initializer_range",
    "tie_word_embeddings": "tie_embeddings",
}
DEFAULTS = {
    "architecture": "encoder", "position": "learned", "num_token_types": 2, "embedding_norm": True,
    "norm_order": "post", "final_norm": False, "norm_epsilon": 1e-12, "activation": "gelu", "dropout": 0.1,
    "head_transform": True, "head_bias": True,
}  # fmt: skip
FIXED = {"is_decoder": (False,), "add_cross_attention": (False,), "position_embedding_type": ("absolute",)}


def follow_dropout(fields):
    """One dropout rate for all, as published, unless they are given apart."""
    return {"attention_dropout": fields["dropout"]}


def encoder(config, prefix):
    """Rows of BERT's embeddings and layers, without the token embeddings."""
    ours, theirs, e = "encoder/block_{}", f"{prefix}.encoder.layer.{{}}", f"{prefix}.embeddings"
    types = {"encoder/token_type/embeddings": (f"{e}.token_type_embeddings.weight", same)}
    return {
        "encoder/position/embeddings": (f"{e}.position_embeddings.weight", same),
        **(types if config.num_token_types else {}),
        **norm("encoder/embedding_norm", f"{e}.LayerNorm"),
        **linears(f"{ours}/attn", f"{theirs}.attention.self", {"query": "query", "key": "key", "value": "value"}),
        **linear(f"{ours}/attn/out", f"{theirs}.attention.output.dense"),
        **norm(f"{ours}/attn_norm", f"{theirs}.attention.output.LayerNorm"),
        **linear(f"{ours}/mlp/up", f"{theirs}.intermediate.dense"),
        **linear(f"{ours}/mlp/down", f"{theirs}.output.dense"),
        **norm(f"{ours}/mlp_norm", f"{theirs}.output.LayerNorm"),
    }


def head(config, theirs, transform="transform.dense", norm_name="transform.LayerNorm"):
    """Rows of a masked-LM head whose bias the decoder repeats; untied, the decoder's own counts."""
    bias = (f"{theirs}.bias", f"{theirs}.decoder.bias") if config.tie_embeddings else f"{theirs}.decoder.bias"
    return {
        **linear("head/transform", f"{theirs}.{transform}"),
        **norm("head/norm", f"{theirs}.{norm_name}"),
        "head/bias": (bias, same),
        **untied_head(config, f"{theirs}.decoder.weight"),
    }


def heads(config, prefix="bert", pooler="pooler.dense", rate="classifier_dropout"):
    """Heads on the state of the first token, through the pooler that pretraining made, or on each token."""
    pooled = {"pool": "first", "dense": f"{prefix}.{pooler}"}
    rates = {"dropout": config.dropout, "keys": {rate: "dropout"}}
    return {
        "TextClassifier": HeadSpec(**pooled, **rates),
        "MultipleChoice": HeadSpec(**pooled, **rates),
        "TokenClassifier": HeadSpec(**rates),
        "QuestionAnswerer": HeadSpec(out="qa_outputs"),
        "NextSentence": HeadSpec(**pooled, out="cls.seq_relationship"),
    }


def _table(config):
    return {
        **embeddings(config, "bert.embeddings.word_embeddings.weight", head="cls.predictions.decoder.weight"),
        **encoder(config, "bert"),
        **head(config, "cls.predictions"),
    }


FAMILY = Family(
    name="bert",
    backbone="BERTBackbone",
    model_types=("bert",),
    architectures={
        "MaskedLM": "BertForMaskedLM",
        "TextClassifier": "BertForSequenceClassification",
        "TokenClassifier": "BertForTokenClassification",
        "QuestionAnswerer": "BertForQuestionAnswering",
        "MultipleChoice": "BertForMultipleChoice",
        "NextSentence": "BertForNextSentencePrediction",
        "Backbone": "BertModel",
    },
    synonyms={"BertForPreTraining": "MaskedLM"},
    keys=KEYS,
    defaults=DEFAULTS,
    derived=follow_dropout,
    fixed=FIXED,
    absent={"pad_token_id": 0},
    table=_table,
    heads=heads,
    prefix="bert",
    ignore=(r"pooler\.", r"^cls\.predictions\.bias$"),
    presets={
        "bert_base_uncased": ("google-bert/bert-base-uncased", "110M", "apache-2.0"),
        "bert_base_cased": ("google-bert/bert-base-cased", "108M", "apache-2.0"),
        "bert_large_uncased": ("google-bert/bert-large-uncased", "335M", "apache-2.0"),
        "bert_base_multilingual_cased": ("google-bert/bert-base-multilingual-cased", "178M", "apache-2.0"),
        "bert_base_chinese": ("google-bert/bert-base-chinese", "102M", "apache-2.0"),
        "chinese_roberta_wwm_ext": ("hfl/chinese-roberta-wwm-ext", "102M", "apache-2.0"),
        "all_minilm_l6_v2": ("sentence-transformers/all-MiniLM-L6-v2", "23M", "apache-2.0"),
    },
)
