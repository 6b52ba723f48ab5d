"""OPT (Zhang et al. 2022): GPT-3's decoder with ReLU; 350M alone has norms after the branches and narrow embeddings."""

from zoo.families.family import Family
from zoo.families.llama import heads
from zoo.families.rows import embeddings, linear, linears, norm, untied_head
from zoo.weights import same


def _read(hf):
    before = bool(hf.get("do_layer_norm_before", True))
    final = before and not hf.get("_remove_final_layer_norm")
    narrow = hf.get("word_embed_proj_dim")
    return {"norm_order": "pre" if before else "post", "final_norm": final,
            "embedding_dim": None if narrow == hf.get("hidden_size") else narrow}  # fmt: skip


def _write(config):
    before = config.norm_order == "pre"
    return {"do_layer_norm_before": before, "_remove_final_layer_norm": before and not config.final_norm}


def _table(config):
    ours, theirs = "decoder/block_{}", "model.decoder.layers.{}"
    attention = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}
    rows = {
        **embeddings(config, "model.decoder.embed_tokens.weight"),
        "decoder/position/embeddings": ("model.decoder.embed_positions.weight", same),
        **linears(f"{ours}/attn", f"{theirs}.self_attn", attention, config.qkv_bias),
        **linears(f"{ours}/mlp", theirs, {"up": "fc1", "down": "fc2"}, config.mlp_bias),
        **norm(f"{ours}/attn_norm", f"{theirs}.self_attn_layer_norm"),
        **norm(f"{ours}/mlp_norm", f"{theirs}.final_layer_norm"),
        **untied_head(config),
    }
    if config.final_norm:
        rows |= norm("decoder/final_norm", "model.decoder.final_layer_norm")
    if config.resolved_embedding_dim != config.hidden_dim:
        rows |= linear("decoder/embedding_projection", "model.decoder.project_in", bias=False)
        rows |= linear("decoder/final_projection", "model.decoder.project_out", bias=False)
    return rows


FAMILY = Family(
    name="opt",
    backbone="OPTBackbone",
    model_types=("opt",),
    architectures={
        "CausalLM": "OPTForCausalLM",
        "TextClassifier": "OPTForSequenceClassification",
        "QuestionAnswerer": "OPTForQuestionAnswering",
        "Backbone": "OPTModel",
    },
    keys={
        "vocab_size": "vocabulary_size",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "hidden_size": "hidden_dim",
        "ffn_dim": "intermediate_dim",
        "word_embed_proj_dim": "embedding_dim",
        "max_position_embeddings": "max_sequence_length",
        "activation_function": "activation",
        "enable_bias": ("qkv_bias", "out_bias", "mlp_bias"),
        "dropout": "dropout",
        "attention_dropout": "attention_dropout",
        "init_std": "initializer_range",
        "tie_word_embeddings": "tie_embeddings",
    },
    defaults={"architecture": "decoder", "position": "learned", "position_offset": 2, "max_sequence_length": 2048,
              "embedding_projection": "first", "activation": "relu", "dropout": 0.1},
    fixed={"layer_norm_elementwise_affine": (True,)},
    absent={"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2},
    extra_read=_read,
    extra_write=_write,
    table=_table,
    heads=lambda config: heads(config, prefix="model"),
    prefix="model",
    presets={
        "opt_125m": ("facebook/opt-125m", "125M", "other"),
        "opt_350m": ("facebook/opt-350m", "331M", "other"),
        "opt_1_3b": ("facebook/opt-1.3b", "1.3B", "other"),
        "opt_2_7b": ("facebook/opt-2.7b", "2.7B", "other"),
        "opt_6_7b": ("facebook/opt-6.7b", "6.7B", "other"),
    },
)  # fmt: skip
