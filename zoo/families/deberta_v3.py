"""DeBERTa v2 and v3 (He et al. 2021, 2023): BERT's layers with content and distance scored apart."""

import dataclasses

from zoo.families.bert import DEFAULTS, KEYS, encoder, follow_dropout, head, heads
from zoo.families.family import Family
from zoo.families.rows import embeddings, linear, linears, norm
from zoo.weights import same, unfolded

_BOTH = {"c2p", "p2c"}
_COMPUTED = {"share_att_key": True, "norm_rel_ebd": "layer_norm"}  # with relative_attention


def _derived(fields):
    """Three products are summed, so the scores are scaled down further; the farthest distance is the longest text's."""
    if fields["relative"] is None or not {"hidden_dim", "num_heads"} <= fields.keys():
        return follow_dropout(fields)
    head_dim = fields.get("head_dim") or fields["hidden_dim"] // fields["num_heads"]
    return {**follow_dropout(fields), "attention_scale": (3 * head_dim) ** -0.5,
            "relative_distance": fields["max_sequence_length"]}  # fmt: skip


def _read(hf):
    kinds = hf.get("pos_att_type") or []
    kinds = {kind.strip() for kind in (kinds.lower().split("|") if isinstance(kinds, str) else kinds)} - {""}
    relative, buckets = bool(hf.get("relative_attention")), hf.get("position_buckets", -1)
    if kinds != (_BOTH if relative else set()):
        raise ValueError(f"pos_att_type={hf.get('pos_att_type')!r}: only c2p|p2c with relative_attention is supported.")
    fields = {"relative": "disentangled" if relative else None,
              "position": "learned" if hf.get("position_biased_input", True) else None}  # fmt: skip
    if relative:
        for key, value in _COMPUTED.items():
            if hf.get(key) != value:
                raise ValueError(f"{key}={hf.get(key)!r} is not supported for deberta_v3, only {value!r}.")
        if buckets < 1:
            raise ValueError(f"position_buckets={buckets} is not supported for deberta_v3, only buckets.")
        fields["relative_buckets"] = buckets
        if hf.get("max_relative_positions", -1) > 0:
            fields["relative_distance"] = hf["max_relative_positions"]
    if hf.get("conv_kernel_size"):
        fields["convolution"] = hf["conv_kernel_size"]
        if hf.get("conv_act", "tanh") != hf.get("hidden_act", "gelu") or hf.get("conv_groups", 1) != 1:
            raise ValueError("conv_act is not supported for deberta_v3, only that of hidden_act, and no conv_groups.")
    if hf.get("embedding_size", hf.get("hidden_size")) != hf.get("hidden_size"):
        raise ValueError(f"embedding_size={hf['embedding_size']} is not supported for deberta_v3, only hidden_size.")
    return fields


def _write(config):
    shared = {"position_biased_input": config.position == "learned", "relative_attention": False, "legacy": True}
    shared["conv_kernel_size"] = config.convolution or 0
    if config.relative != "disentangled":
        return shared
    far = -1 if config.relative_distance == config.max_sequence_length else config.relative_distance
    return {**shared, **_COMPUTED, "relative_attention": True, "pos_att_type": "p2c|c2p",
            "position_buckets": config.relative_buckets, "max_relative_positions": far}  # fmt: skip


def _table(config):
    attention = {"query": "query_proj", "key": "key_proj", "value": "value_proj"}
    rows = {
        **embeddings(config, "deberta.embeddings.word_embeddings.weight", head="cls.predictions.decoder.weight"),
        **encoder(config, "deberta"),
        **linears("encoder/block_{}/attn", "deberta.encoder.layer.{}.attention.self", attention),
        **head(config, "cls.predictions"),
    }
    pretrained = {  # the head of v3's own files, which is computed the same
        **linear("head/transform", "lm_predictions.lm_head.dense"),
        **norm("head/norm", "lm_predictions.lm_head.LayerNorm"),
        "head/bias": ("lm_predictions.lm_head.bias", same),
    }
    for name, (theirs, _) in pretrained.items():
        names, move = rows[name]
        rows[name] = (*((names,) if isinstance(names, str) else names), theirs), move
    if config.relative == "disentangled":
        rows["encoder/distance/embeddings"] = ("deberta.encoder.rel_embeddings.weight", same)
        rows |= norm("encoder/distance/norm", "deberta.encoder.LayerNorm")
    if config.convolution:
        rows |= linear("encoder/block_{}/convolution/dense", "deberta.encoder.conv.conv", move=unfolded)
        rows |= norm("encoder/block_{}/convolution/norm", "deberta.encoder.conv.LayerNorm")
    if config.position is None:
        del rows["encoder/position/embeddings"]
    return rows


def _heads(config):
    """BERT's heads, the pooler a part of them; its activation and rate have keys of their own."""
    found = heads(config, "deberta")
    pooled = dataclasses.replace(found["TextClassifier"], dense="pooler.dense", activation="gelu",
                                 keys={"cls_dropout": "dropout"}, fixed={"pooler_hidden_act": ("gelu",)})  # fmt: skip
    return {**found, "TextClassifier": pooled, "MultipleChoice": pooled}


FAMILY = Family(
    name="deberta_v3",
    backbone="DeBERTaV3Backbone",
    model_types=("deberta-v2",),
    architectures={
        "MaskedLM": "DebertaV2ForMaskedLM",
        "TextClassifier": "DebertaV2ForSequenceClassification",
        "TokenClassifier": "DebertaV2ForTokenClassification",
        "QuestionAnswerer": "DebertaV2ForQuestionAnswering",
        "MultipleChoice": "DebertaV2ForMultipleChoice",
        "Backbone": "DebertaV2Model",
    },
    keys={**KEYS, "conv_act": "activation"},
    defaults={**DEFAULTS, "norm_epsilon": 1e-7, "num_token_types": 0, "position": None, "relative": "disentangled",
              "relative_buckets": 256, "max_sequence_length": 512},
    derived=_derived,
    absent={"pad_token_id": 0},
    extra_read=_read,
    extra_write=_write,
    table=_table,
    heads=_heads,
    prefix="deberta",
    ignore=(r"pooler\.", r"position_embeddings", r"^mask_predictions\."),
    presets={
        "deberta_v3_xsmall": ("microsoft/deberta-v3-xsmall", "71M", "mit"),
        "deberta_v3_small": ("microsoft/deberta-v3-small", "141M", "mit"),
        "deberta_v3_base": ("microsoft/deberta-v3-base", "184M", "mit"),
        "deberta_v3_large": ("microsoft/deberta-v3-large", "434M", "mit"),
        "mdeberta_v3_base": ("microsoft/mdeberta-v3-base", "278M", "mit"),
    },
)  # fmt: skip
