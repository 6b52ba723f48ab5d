"""KerasHub's backbone classes: their fields, what they compute that no field says, and their paths in the weights.

One entry of `KINDS` a class. It knows names and numbers, and opens no file.
"""

import dataclasses
from collections.abc import Callable

from zoo.kerashub import fields as f
from zoo.kerashub import rows
from zoo.kerashub.rows import MASKED_LM, OWN, POOLED, Block, heads_first, joint, norm, table

_HEAD = "their masked-LM head has {}, which ours takes from the layers below: open the Backbone alone"
_EPSILON, _GELU = _HEAD.format("an epsilon of 1e-5"), _HEAD.format("an epsilon of 1e-5 and an exact gelu")
_TANH = {"activation": "gelu_tanh"}
_BERT_ROLES = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
_ENDS = {"bos": "<s>", "eos": "</s>", "pad": "<pad>"}
_END_OF_TEXT = {"bos": "<|endoftext|>", "eos": "<|endoftext|>"}


def _nothing(_):
    return {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """One class.

    Args:
        family: the name of our family, or a function of their fields that gives it.
        keys: their field -> ours, or several that it sets alike.
        only: their field -> the values with which we compute the same.
        read: their fields -> more of ours, from those in `also`.
        fixed: ours -> what their code says.
        blocks: our stack -> `Block`.
        rows: `Config` -> our name -> (their path, move), without the blocks.
        heads: task -> rows of its head, whose weights are in a file of their own.
        unlike: task -> why a head of theirs is not one of ours.
        roles: role -> the token that has it in their vocabulary, or several.
        usual: whether their vocabularies number special tokens as the family's do.
    """

    family: str | Callable
    keys: dict
    blocks: dict
    rows: Callable
    only: dict = dataclasses.field(default_factory=dict)
    read: Callable = _nothing
    also: tuple = ()
    fixed: dict = dataclasses.field(default_factory=dict)
    heads: dict = dataclasses.field(default_factory=dict)
    unlike: dict = dataclasses.field(default_factory=dict)
    roles: dict = dataclasses.field(default_factory=dict)
    usual: bool = True


_ENCODER = Block(layer="transformer_encoder")
_DECODER = Block(layer="transformer_decoder")
_UNDERSCORED = {"query": "_query_dense", "key": "_key_dense", "value": "_value_dense", "out": "_output_dense"}


def _final(layer, **more):
    """Rows of a decoder whose last layer is a norm of this class, the first of it unless numbered."""
    return lambda config: {**norm("decoder/final_norm", f"layers/{layer}"), **more}


def _relative(name, norm_name, **more):
    """The blocks and rows of one of Llama's relatives."""
    block = Block(layer=f"{name}_transformer_decoder", **_UNDERSCORED, attn_norm="_self_attention_layernorm",
                  mlp_norm="_feedforward_layernorm", gate="_feedforward_gate_dense", **more)  # fmt: skip
    return {"blocks": {"decoder": block}, "rows": _final(norm_name)}


_GEMMA_BLOCK = dict(
    attn="attention", into=heads_first, attn_norm="pre_attention_norm", mlp_norm="pre_ffw_norm",
    attn_post_norm="post_attention_norm", mlp_post_norm="post_ffw_norm", gate="gating_ffw", up="gating_ffw_2",
    down="ffw_linear",
)  # fmt: skip
# Their blocks keep an epsilon of 1e-6 and scale by the width of a head, whatever the fields say.
_GEMMA_ONLY = {"layer_norm_epsilon": (1e-6,), "query_head_dim_normalize": (True,)}
_T5_BLOCK = dict(
    layer="t5_transformer_layer", attn="self_attention", query="query_projector", key="key_projector",
    value="value_projector", out="output_projector", attn_norm="self_attention_layer_norm", mlp_norm="layer_norm",
    gate="input_projector", up="gate_projector", down="output_projector",
)  # fmt: skip
_BLOOM = Block(
    layer="bloom_decoder", **_UNDERSCORED, attn_norm="_pre_attention_layernorm", mlp_norm="_post_attention_layernorm",
    up="_mlp_intermediate_dense", down="_mlp_output_dense",
)  # fmt: skip
_FALCON = Block(layer="falcon_transformer_decoder", attn="attention_layer", attn_norm="input_layernorm",
                mlp_norm="post_attention_layernorm", up="dense_h_to_4h", down="dense_4h_to_h")  # fmt: skip
_NEOX = Block(layer="gpt_neo_x_decoder", fused="_qkv_dense", out="_output_dense")
_PHI3 = Block(layer="phi3_decoder", attn="attention", attn_norm="pre_attention_layernorm",
              mlp_norm="post_attention_layernorm", gate="feedforward_gate_dense", up="feedforward_intermediate_dense",
              down="feedforward_output_dense")  # fmt: skip
_SMOLLM3 = Block(layer="smol_lm3_decoder_layer", attn="self_attn", query="q_proj", key="k_proj", value="v_proj",
                 out="o_proj", attn_norm="input_layernorm", mlp_norm="post_attention_layernorm", gate="mlp/gate_proj",
                 up="mlp/up_proj", down="mlp/down_proj")  # fmt: skip
_DEBERTA = Block(layer="disentangled_attention_encoder", **_UNDERSCORED)

_ROBERTA = dict(
    keys=f.LEARNED, blocks={"encoder": _ENCODER}, rows=rows.roberta,
    heads={"MaskedLM": MASKED_LM, "TextClassifier": OWN}, roles={**_ENDS, "unk": "<unk>", "mask": "<mask>"},
)  # fmt: skip
KINDS = {
    "GPT2": Kind(
        family="gpt2", keys=f.LEARNED, blocks={"decoder": _DECODER}, roles=_END_OF_TEXT,
        rows=_final("layer_normalization", **table("decoder/position", "position_embedding")),
    ),
    "GPTNeoX": Kind(
        family="gpt_neox", blocks={"decoder": _NEOX}, rows=_final("layer_normalization"), roles=_END_OF_TEXT,
        keys={**f.LEARNED, "rotary_percentage": "rotary_fraction", "rotary_max_wavelength": "rotary_theta",
              "layer_norm_epsilon": "norm_epsilon"},
        fixed={**_TANH, "rotary_fraction": 0.25, "tie_embeddings": True},
    ),
    "OPT": Kind(
        family="opt", keys=f.LEARNED, blocks={"decoder": _DECODER}, roles={**_ENDS, "bos": "</s>"},
        rows=lambda config: {**joint(config), **_final("layer_normalization")(config)},
    ),
    "Bloom": Kind(
        family="bloom", keys={**f.PLAIN, "layer_norm_epsilon": "norm_epsilon"}, blocks={"decoder": _BLOOM}, roles=_ENDS,
        rows=_final("layer_normalization_1", **norm("decoder/embedding_norm", "layers/layer_normalization")),
    ),
    "Falcon": Kind(  # the epsilon is that of the last norm alone
        family="falcon", blocks={"decoder": _FALCON}, rows=_final("layer_normalization"), roles=_END_OF_TEXT,
        keys={**f.SIZES, "num_attention_heads": ("num_heads", "num_key_value_heads"),
              "attention_dropout_rate": "attention_dropout", "feedforward_dropout_rate": "dropout"},
        only={"layer_norm_epsilon": (1e-5,)},
        fixed={"relative": "alibi_scaled", "parallel": None, "rotary_theta": None, "qkv_bias": True, "out_bias": True,
               "mlp_bias": True},
    ),
    "Llama": Kind(
        family="llama", **_relative("llama", "llama_layer_norm"), read=f.llama, also=f.LLAMA3,
        keys={**f.ROTATED, "tie_word_embeddings": "tie_embeddings"}, roles={"bos": "<s>", "eos": "</s>"},
        only={"rope_position_scaling_factor": (1.0,)},  # their code drops it
    ),
    "Mistral": Kind(
        family="mistral", **_relative("mistral", "mistral_layer_normalization"), read=f.linear,
        keys={**f.ROTATED, "sliding_window": "window", "head_dim": "head_dim"}, also=("rope_scaling_factor",),
        fixed={"window": 512}, roles={"bos": "<s>", "eos": "</s>"},
    ),
    "Qwen": Kind(
        family="qwen2", **_relative("qwen", "qwen_layer_norm"), read=f.qwen, roles={"eos": "<|endoftext|>"},
        keys={**f.ROTATED, "tie_word_embeddings": "tie_embeddings"}, fixed={"tie_embeddings": True},
        also=("rope_scaling_factor", *f.WINDOWED),
    ),
    # Their norms of queries and keys keep an epsilon of 1e-5 whatever the field says; Qwen's own code obeys it, and so
    # do we.
    "Qwen3": Kind(
        family="qwen3", read=f.linear, also=("rope_scaling_factor",), fixed={"tie_embeddings": True, "window": 32768},
        **_relative("qwen3", "qwen3_layer_norm", query_norm="_query_dense_layer_norm",
                    key_norm="_key_dense_layer_norm"),
        keys={**f.ROTATED, "head_dim": "head_dim", "sliding_window_size": "window",
              "tie_word_embeddings": "tie_embeddings"},
        roles={"eos": "<|im_end|>", "pad": "<|endoftext|>"},
    ),
    "SmolLM3": Kind(
        family="smollm3", blocks={"decoder": _SMOLLM3}, rows=_final("rms_normalization"), read=f.smollm3,
        keys={**f.SIZES, "num_attention_heads": "num_heads", "num_key_value_heads": "num_key_value_heads",
              "attention_bias": "qkv_bias", "mlp_bias": "mlp_bias", "attention_dropout": "attention_dropout",
              "layer_norm_epsilon": "norm_epsilon", "rope_theta": "rotary_theta",
              "max_position_embeddings": "max_sequence_length"},
        only={"partial_rotary_factor": (1.0,)}, also=("rope_layer_enabled_list", "layer_types"),
        fixed={"out_bias": False}, roles={"eos": "<|end_of_text|>"},
    ),
    "Gemma": Kind(
        family=lambda c: "gemma2" if c.get("use_post_ffw_norm") else "gemma", keys=f.GEMMA, only=_GEMMA_ONLY,
        also=(*f.WINDOWED, "use_post_ffw_norm", "use_post_attention_norm"), read=f.gemma,
        blocks={"decoder": Block(layer="gemma_decoder_block", **_GEMMA_BLOCK)}, rows=_final("rms_normalization"),
        roles={"bos": "<bos>", "eos": "<eos>", "pad": "<pad>"},
        fixed={"window_pattern": (True, False), "attention_softcap": None, "logit_softcap": None},
    ),
    "Gemma3": Kind(
        family="gemma3", keys=f.GEMMA, also=(*f.WINDOWED, "global_rope_scaling_factor", "image_size"),
        blocks={"decoder": Block(layer="gemma3_decoder_block", query_norm="query_norm", key_norm="key_norm",
                                 **_GEMMA_BLOCK)},
        rows=_final("rms_normalization"), read=f.gemma3, roles={"bos": "<bos>", "eos": "<eos>", "pad": "<pad>"},
        only={**_GEMMA_ONLY, "use_query_key_norm": (True,), "use_post_ffw_norm": (True,),
              "use_post_attention_norm": (True,), "local_rope_scaling_factor": (1.0,), "vision_encoder": (None,),
              "use_bidirectional_attention": (False,), "is_embedding_model": (False,),
              "pooling_intermediate_dim": (None,), "embedding_dim": (None,)},
    ),
    "Phi3": Kind(
        family="phi3", blocks={"decoder": _PHI3}, rows=_final("phi3_layer_norm"), read=f.phi3,
        keys={**f.ROTATED, "max_sequence_length": "max_sequence_length"}, only={"rope_scaling_type": (None, "su")},
        also=("pretraining_sequence_length", "rope_scaling_short_factor", "rope_scaling_long_factor"),
        roles={"bos": "<s>", "eos": "<|endoftext|>"},
    ),
    "Bert": Kind(
        family="bert", keys=f.TYPED, blocks={"encoder": _ENCODER}, rows=rows.bert, fixed=_TANH,
        heads={"TextClassifier": POOLED}, unlike={"MaskedLM": _GELU}, roles=_BERT_ROLES,
    ),
    "Roberta": Kind(family="roberta", **_ROBERTA),
    "XLMRoberta": Kind(family="xlm_roberta", **_ROBERTA),
    "DistilBert": Kind(
        family="distilbert", keys=f.LEARNED, blocks={"encoder": _ENCODER}, heads={"TextClassifier": OWN},
        rows=lambda config: {**joint(config), **norm("encoder/embedding_norm", "layers/layer_normalization")},
        unlike={"MaskedLM": _EPSILON}, roles=_BERT_ROLES,
    ),
    "Albert": Kind(
        family="albert", blocks={"encoder": _ENCODER}, rows=rows.bert, fixed=_TANH, read=f.albert,
        keys={**f.TYPED, "embedding_dim": "embedding_dim", "num_groups": "num_distinct_blocks"},
        only={"num_inner_repetitions": (1,)}, heads={"TextClassifier": POOLED}, unlike={"MaskedLM": _EPSILON},
        roles={**_BERT_ROLES, "pad": "<pad>", "unk": "<unk>"},
    ),
    "Electra": Kind(
        family="electra", blocks={"encoder": _ENCODER}, rows=rows.bert, fixed=_TANH,
        keys={"vocab_size": "vocabulary_size", "embedding_dim": "embedding_dim",
              **{key: ours for key, ours in f.TYPED.items() if key != "vocabulary_size"}},
        roles=_BERT_ROLES,
    ),
    "DebertaV3": Kind(
        family="deberta_v3", keys={**f.LEARNED, "bucket_size": "relative_buckets"}, blocks={"encoder": _DEBERTA},
        rows=lambda config: {**norm("encoder/embedding_norm", "layers/layer_normalization"),
                             **table("encoder/distance", "relative_embedding"),
                             **norm("encoder/distance/norm", "layers/relative_embedding/layer_norm")},
        heads={"TextClassifier": OWN}, unlike={"MaskedLM": _EPSILON}, roles=_BERT_ROLES,
    ),
    "Bart": Kind(
        family="bart", keys=f.LEARNED, rows=rows.bart, roles={**_ENDS, "decoder_start": "</s>"},
        blocks={"encoder": _ENCODER, "decoder": dataclasses.replace(
            _DECODER, cross="_cross_attention_layer", cross_norm="_cross_attention_layer_norm")},
    ),
    "T5": Kind(
        family="t5", rows=rows.t5, read=f.t5, also=("activation",), roles={"eos": "</s>", "pad": "<pad>"},
        keys={**f.PLAIN, "key_value_dim": "head_dim", "use_gated_activation": "gated",
              "layer_norm_epsilon": "norm_epsilon", "tie_embedding_weights": "tie_embeddings"},
        fixed={"gated": True, "decoder_start_token_id": 0},
        blocks={"encoder": Block(**_T5_BLOCK), "decoder": Block(**_T5_BLOCK, after=True, cross="cross_attention",
                                                                cross_norm="cross_attention_layer_norm")},
    ),
}  # fmt: skip
KINDS["Llama3"] = dataclasses.replace(
    KINDS["Llama"], roles={"bos": "<|begin_of_text|>", "eos": ("<|end_of_text|>", "<|eot_id|>")}, usual=False
)
