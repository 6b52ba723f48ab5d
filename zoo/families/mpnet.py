"""MPNet (Song et al. 2020): RoBERTa's encoder with T5's relative buckets beside its positions."""

from zoo.families.bert import DEFAULTS, FIXED, encoder, head
from zoo.families.family import Family
from zoo.families.roberta import KEYS, derived, heads, read, write
from zoo.families.rows import embeddings, linears, norm
from zoo.weights import same


def _table(config):
    ours, theirs = "encoder/block_{}", "mpnet.encoder.layer.{}.attention"
    return {
        **embeddings(config, "mpnet.embeddings.word_embeddings.weight", head="lm_head.decoder.weight"),
        **encoder(config, "mpnet"),
        **linears(f"{ours}/attn", f"{theirs}.attn", {"query": "q", "key": "k", "value": "v", "out": "o"}),
        **norm(f"{ours}/attn_norm", f"{theirs}.LayerNorm"),
        "encoder/relative_bias/embeddings": ("mpnet.encoder.relative_attention_bias.weight", same),
        **head(config, "lm_head", "dense", "layer_norm"),
    }


FAMILY = Family(
    name="mpnet",
    backbone="MPNetBackbone",
    model_types=("mpnet",),
    architectures={
        "MaskedLM": "MPNetForMaskedLM",
        "TextClassifier": "MPNetForSequenceClassification",
        "TokenClassifier": "MPNetForTokenClassification",
        "QuestionAnswerer": "MPNetForQuestionAnswering",
        "MultipleChoice": "MPNetForMultipleChoice",
        "Backbone": "MPNetModel",
    },
    keys={key: field for key, field in KEYS.items() if key != "type_vocab_size"},
    defaults={**DEFAULTS, "num_token_types": 0, "relative": "buckets"},
    derived=derived,
    fixed={**FIXED, "relative_attention_num_buckets": (32,)},
    absent={"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
    extra_read=read,
    extra_write=write,
    table=_table,
    heads=lambda config: heads(config, "mpnet"),
    prefix="mpnet",
    ignore=(r"pooler\.", r"^lm_head\.bias$"),
    presets={
        "mpnet_base": ("microsoft/mpnet-base", "110M", "not stated"),
        "all_mpnet_base_v2": ("sentence-transformers/all-mpnet-base-v2", "109M", "apache-2.0"),
    },
)
