"""Tiny models of every family variant: name -> a function that returns their class and config in `transformers`.

The sizes make every switch visible: windows shorter than the text, fewer key/value heads than heads, heads wider than
their share, stacks of unequal depth. `transformers` is imported only inside the functions.
"""

VOCABULARY, WIDTH, LAYERS, HEADS, INNER, LENGTH = 96, 32, 2, 4, 48, 64

_SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "intermediate_size": INNER, "max_position_embeddings": LENGTH, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
_T5 = {
    "vocab_size": VOCABULARY, "d_model": WIDTH, "d_kv": 12, "d_ff": INNER, "num_layers": 3, "num_heads": HEADS,
    "num_decoder_layers": 2, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 16,
    "pad_token_id": 0, "decoder_start_token_id": 0,
}  # fmt: skip
_BART = {
    "vocab_size": VOCABULARY, "d_model": WIDTH, "encoder_layers": LAYERS, "decoder_layers": 1,
    "encoder_attention_heads": HEADS, "decoder_attention_heads": HEADS, "encoder_ffn_dim": INNER,
    "decoder_ffn_dim": INNER, "max_position_embeddings": LENGTH, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": None,
}  # fmt: skip
_ROBERTA = {**_SHAPE, "pad_token_id": 1, "bos_token_id": 0, "max_position_embeddings": LENGTH + 2}
_LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
_LINEAR = {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}
_YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16,
         "beta_fast": 4.0}  # fmt: skip
_LONGROPE = {
    "rope_type": "longrope", "short_factor": [1.0, 1.5, 2.0, 3.0], "long_factor": [1.5, 3.0, 6.0, 9.0],
}  # fmt: skip
_FALCON = {key: value for key, value in _SHAPE.items() if key != "intermediate_size"} | {"ffn_hidden_size": INNER}
_OPT = {key: value for key, value in _SHAPE.items() if key != "intermediate_size"} | {"ffn_dim": INNER}
_DEBERTA = {
    **_SHAPE, "relative_attention": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True,
    "pos_att_type": "p2c|c2p", "position_biased_input": False, "type_vocab_size": 0,
}  # fmt: skip
_MODERNBERT = {**_SHAPE, "num_hidden_layers": 4, "local_attention": 8, "cls_token_id": 1, "sep_token_id": 2}
_LAYER_TYPES = ["sliding_attention"] * (LAYERS - 1) + ["full_attention"]


def _rotary(theta=10000.0, fraction=None):
    share = {} if fraction is None else {"partial_rotary_factor": fraction}
    return {"rope_type": "default", "rope_theta": theta, **share}


def case(model, config, **fields):
    """A function that imports `transformers` and returns (model class, config)."""

    def build():
        import transformers

        return getattr(transformers, model), getattr(transformers, config)(**fields)

    return build


CASES = {
    "gpt2": case("GPT2LMHeadModel", "GPT2Config", vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=WIDTH,
                 n_layer=LAYERS, n_head=HEADS, n_inner=INNER, bos_token_id=1, eos_token_id=2),
    "llama": case("LlamaForCausalLM", "LlamaConfig", **_SHAPE, num_key_value_heads=2),
    "llama_tied_biased": case("LlamaForCausalLM", "LlamaConfig", **_SHAPE, head_dim=16, attention_bias=True,
                              mlp_bias=True, tie_word_embeddings=True),
    "llama3": case("LlamaForCausalLM", "LlamaConfig", **_SHAPE, num_key_value_heads=2, rope_parameters=_LLAMA3),
    "llama_linear": case("LlamaForCausalLM", "LlamaConfig", **_SHAPE,
                         rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}),
    "llama_dynamic": case("LlamaForCausalLM", "LlamaConfig", **_SHAPE,
                          rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}),
    "llama_yarn": case("LlamaForCausalLM", "LlamaConfig", **_SHAPE, rope_parameters=_YARN),
    "gptj": case("GPTJForCausalLM", "GPTJConfig", vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=WIDTH,
                 n_layer=LAYERS, n_head=HEADS, n_inner=INNER, rotary_dim=4, bos_token_id=1, eos_token_id=2),
    "opt": case("OPTForCausalLM", "OPTConfig", **_OPT),
    "opt_350m": case("OPTForCausalLM", "OPTConfig", **_OPT, word_embed_proj_dim=24, do_layer_norm_before=False),
    "opt_narrow": case("OPTForCausalLM", "OPTConfig", **_OPT, word_embed_proj_dim=24, activation_function="gelu",
                       enable_bias=False),
    "bloom": case("BloomForCausalLM", "BloomConfig", vocab_size=VOCABULARY, hidden_size=WIDTH, n_layer=LAYERS,
                  n_head=HEADS, bos_token_id=1, eos_token_id=2),
    "bloom_six_heads": case("BloomForCausalLM", "BloomConfig", vocab_size=VOCABULARY, hidden_size=WIDTH + 4,
                            n_layer=LAYERS, n_head=6, bos_token_id=1, eos_token_id=2),
    "falcon": case("FalconForCausalLM", "FalconConfig", **_FALCON),
    "falcon_40b": case("FalconForCausalLM", "FalconConfig", **_FALCON, num_kv_heads=2, new_decoder_architecture=True),
    "falcon2_11b": case("FalconForCausalLM", "FalconConfig", **_FALCON, num_kv_heads=2, new_decoder_architecture=True,
                        num_ln_in_parallel_attn=1),
    "falcon_rw": case("FalconForCausalLM", "FalconConfig", **_FALCON, alibi=True, bias=True, multi_query=False,
                      parallel_attn=False),
    "gpt_neox": case("GPTNeoXForCausalLM", "GPTNeoXConfig", **_SHAPE, rope_parameters=_rotary(fraction=0.5)),
    "gpt_neox_serial": case("GPTNeoXForCausalLM", "GPTNeoXConfig", **_SHAPE, use_parallel_residual=False,
                            attention_bias=False, rope_parameters=_rotary(fraction=0.25)),
    "mistral": case("MistralForCausalLM", "MistralConfig", **_SHAPE, num_key_value_heads=2, sliding_window=5),
    "qwen2": case("Qwen2ForCausalLM", "Qwen2Config", **_SHAPE, num_key_value_heads=2),
    "qwen2_windows": case("Qwen2ForCausalLM", "Qwen2Config", **_SHAPE, num_key_value_heads=1, use_sliding_window=True,
                          sliding_window=5, max_window_layers=1, tie_word_embeddings=True),
    "qwen3": case("Qwen3ForCausalLM", "Qwen3Config", **_SHAPE, num_key_value_heads=2, head_dim=16),
    "gemma": case("GemmaForCausalLM", "GemmaConfig", **_SHAPE, num_key_value_heads=1, head_dim=16),
    "gemma2": case("Gemma2ForCausalLM", "Gemma2Config", **_SHAPE, num_key_value_heads=2, head_dim=16,
                   sliding_window=5, query_pre_attn_scalar=8, final_logit_softcapping=3.0, attn_logit_softcapping=2.0),
    "gemma3": case("Gemma3ForCausalLM", "Gemma3TextConfig", **_SHAPE, num_key_value_heads=2, head_dim=16,
                   sliding_window=5, query_pre_attn_scalar=8, layer_types=_LAYER_TYPES,
                   rope_parameters={"sliding_attention": _rotary(), "full_attention": _LINEAR}),
    "phi": case("PhiForCausalLM", "PhiConfig", **_SHAPE, rope_parameters=_rotary(fraction=0.5)),
    "phi3": case("Phi3ForCausalLM", "Phi3Config", **_SHAPE, num_key_value_heads=2, sliding_window=5),
    "phi3_longrope": case("Phi3ForCausalLM", "Phi3Config", **{**_SHAPE, "max_position_embeddings": 4 * LENGTH},
                          original_max_position_embeddings=LENGTH, rope_parameters=_LONGROPE),
    "olmo2": case("Olmo2ForCausalLM", "Olmo2Config", **_SHAPE, num_key_value_heads=2),
    "smollm3": case("SmolLM3ForCausalLM", "SmolLM3Config", **_SHAPE, num_key_value_heads=2),
    "smollm3_windows": case("SmolLM3ForCausalLM", "SmolLM3Config", **_SHAPE, num_key_value_heads=2,
                            no_rope_layers=[1, 0], use_sliding_window=True, sliding_window=5),
    "granite": case("GraniteForCausalLM", "GraniteConfig", **_SHAPE, num_key_value_heads=2, embedding_multiplier=12.0,
                    residual_multiplier=0.22, attention_multiplier=0.125, logits_scaling=49.0),
    "stablelm": case("StableLmForCausalLM", "StableLmConfig", **_SHAPE, num_key_value_heads=2),
    "stablelm_2_12b": case("StableLmForCausalLM", "StableLmConfig", **_SHAPE, num_key_value_heads=2, qk_layernorm=True,
                           use_parallel_residual=True, use_qkv_bias=True),
    "bert": case("BertForMaskedLM", "BertConfig", **_SHAPE),
    "bert_untied": case("BertForMaskedLM", "BertConfig", **_SHAPE, tie_word_embeddings=False),
    "roberta": case("RobertaForMaskedLM", "RobertaConfig", **_ROBERTA, type_vocab_size=1, layer_norm_eps=1e-5),
    "xlm_roberta": case("XLMRobertaForMaskedLM", "XLMRobertaConfig", **_ROBERTA, type_vocab_size=1,
                        layer_norm_eps=1e-5),
    "camembert": case("CamembertForMaskedLM", "CamembertConfig", **_ROBERTA, type_vocab_size=1, layer_norm_eps=1e-5),
    "distilbert": case("DistilBertForMaskedLM", "DistilBertConfig", vocab_size=VOCABULARY, n_layers=LAYERS,
                       n_heads=HEADS, dim=WIDTH, hidden_dim=INNER, max_position_embeddings=LENGTH),
    "albert": case("AlbertForMaskedLM", "AlbertConfig", **_SHAPE, embedding_size=24, num_hidden_groups=2),
    "electra": case("ElectraForMaskedLM", "ElectraConfig", **_SHAPE, embedding_size=24),
    "electra_wide": case("ElectraForMaskedLM", "ElectraConfig", **_SHAPE, embedding_size=WIDTH),
    "deberta_v3": case("DebertaV2ForMaskedLM", "DebertaV2Config", **_DEBERTA),
    "deberta_v2": case("DebertaV2ForMaskedLM", "DebertaV2Config", **{**_DEBERTA, "type_vocab_size": 2,
                       "position_biased_input": True, "max_relative_positions": 12, "conv_kernel_size": 3,
                       "conv_act": "gelu"}),
    "deberta_absolute": case("DebertaV2ForMaskedLM", "DebertaV2Config", **_SHAPE),
    "modernbert": case("ModernBertForMaskedLM", "ModernBertConfig", **_MODERNBERT),
    "modernbert_biased": case("ModernBertForMaskedLM", "ModernBertConfig", **_MODERNBERT, attention_bias=True,
                              mlp_bias=True, norm_bias=True, classifier_bias=True, decoder_bias=False),
    "mpnet": case("MPNetForMaskedLM", "MPNetConfig", **_ROBERTA),
    "nomic_bert": case("NomicBertForMaskedLM", "NomicBertConfig", **_SHAPE),
    "t5": case("T5ForConditionalGeneration", "T5Config", **_T5),
    "t5_v1_1": case("T5ForConditionalGeneration", "T5Config", **_T5, feed_forward_proj="gated-gelu",
                    tie_word_embeddings=False),
    "flan_t5": case("T5ForConditionalGeneration", "T5Config", **_T5, feed_forward_proj="gated-gelu",
                    tie_word_embeddings=False, n_positions=512, initializer_factor=1.0),
    "ul2": case("T5ForConditionalGeneration", "T5Config", **_T5, feed_forward_proj="gated-silu",
                tie_word_embeddings=False),
    "byt5": case("T5ForConditionalGeneration", "T5Config", **{**_T5, "vocab_size": 384, "num_decoder_layers": 1},
                 feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "mt5": case("MT5ForConditionalGeneration", "MT5Config", **_T5, feed_forward_proj="gated-gelu"),
    "umt5": case("UMT5ForConditionalGeneration", "UMT5Config", **_T5, feed_forward_proj="gated-gelu"),
    "bart": case("BartForConditionalGeneration", "BartConfig", **_BART),
    "bart_scaled": case("BartForConditionalGeneration", "BartConfig", **_BART, scale_embedding=True,
                        activation_function="relu"),
    "mbart": case("MBartForConditionalGeneration", "MBartConfig", **_BART, scale_embedding=True),
    "pegasus": case("PegasusForConditionalGeneration", "PegasusConfig", **_BART, scale_embedding=True,
                    activation_function="relu"),
    "marian": case("MarianMTModel", "MarianConfig", **_BART, scale_embedding=True, activation_function="swish"),
}  # fmt: skip


# PyTorch compiles nothing and runs every check on every case. JAX and TensorFlow differ from it by operations, not by
# families: they compute the logits of these, and JAX of every family besides. Between them these make every choice by a
# switch of `Config` that a case makes, which tests/test_switches.py asserts; the kinds of rotary scaling are packed and
# cached in tests/test_variants.py.
KINDS = ("opt_350m", "bloom", "falcon_40b", "falcon_rw", "gemma2", "gemma3", "smollm3_windows", "olmo2", "granite",
         "stablelm_2_12b", "albert", "deberta_v2", "modernbert", "t5", "umt5", "pegasus")  # fmt: skip
# Those of them whose tokens find each other in ways of their own, which is all that packing and caching meet.
WAYS = ("opt_350m", "bloom", "falcon_rw", "gemma3", "smollm3_windows", "stablelm_2_12b", "deberta_v2", "modernbert",
        "t5", "umt5", "pegasus")  # fmt: skip


def model_of(name, **changes):
    """A random model of a case in evaluation mode: no weight at a special value, no tie where the case has none.

    `changes` are set where the case's config has them.
    """
    import torch

    torch.manual_seed(0)
    kind, config = CASES[name]()
    for key, value in changes.items():
        if hasattr(config, key):
            setattr(config, key, value)
    model = kind(config).eval()
    # The config class of T5's relatives forgets that their head is untied.
    untied = config.to_dict().get("scale_decoder_outputs") is False or config.model_type in ("mt5", "umt5")
    if untied:
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += torch.randn(parameter.shape) * 0.1
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.normal_()
    return model
