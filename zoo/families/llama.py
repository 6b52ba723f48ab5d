"""Llama 1 to 3 (Touvron et al. 2023, Dubey et al. 2024): a decoder with RMSNorm, rotary positions and grouped heads."""

from zoo.families.family import Family
from zoo.families.heads import HeadSpec
from zoo.families.rotary import read_rotary, write_rotary
from zoo.families.rows import embeddings, linear, linears, norm, untied_head

KEYS = {
    "vocab_size": "vocabulary_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "hidden_size": "hidden_dim",
    "intermediate_size": "intermediate_dim",
    "max_position_embeddings": "max_sequence_length",
    "hidden_act": "activation",
    "rms_norm_eps": "norm_epsilon",
    "attention_dropout": "attention_dropout",
    "initializer_range": "initializer_range",
    "tie_word_embeddings": "tie_embeddings",
}
DEFAULTS = {
    "architecture": "decoder", "norm": "rms", "norm_epsilon": 1e-6, "rotary_theta": 10000.0, "qkv_bias": False,
    "out_bias": False, "mlp_bias": False, "activation": "silu", "gated": True, "tie_embeddings": False,
    "max_sequence_length": 2048,
}  # fmt: skip


def architectures(name, spans=False):
    """The classes that `transformers` has for most decoders, and with `spans` the one for question answering."""
    return {
        "CausalLM": f"{name}ForCausalLM",
        "TextClassifier": f"{name}ForSequenceClassification",
        "TokenClassifier": f"{name}ForTokenClassification",
        **({"QuestionAnswerer": f"{name}ForQuestionAnswering"} if spans else {}),
        "Backbone": f"{name}Model",
    }


def heads(config, tokens="score", prefix="transformer"):
    """Heads on the last token, or on each; the class for question answering has a `prefix` of its own."""
    return {
        "TextClassifier": HeadSpec(pool="last", out="score", out_bias=False),
        "TokenClassifier": HeadSpec(out=tokens, dropout=0.1, keys={"classifier_dropout": "dropout"}),
        "QuestionAnswerer": HeadSpec(out="qa_outputs", prefix=prefix),
    }


def table(config):
    """All rows of a Llama and of the decoders that keep its names."""
    ours, theirs = "decoder/block_{}", "model.layers.{}"
    attention, qkv = f"{theirs}.self_attn", {"query": "q_proj", "key": "k_proj", "value": "v_proj"}
    inner = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
    return {
        **embeddings(config, "model.embed_tokens.weight"),
        **linears(f"{ours}/attn", attention, qkv, bias=config.qkv_bias),
        **linear(f"{ours}/attn/out", f"{attention}.o_proj", bias=config.out_bias),
        **linears(f"{ours}/mlp", f"{theirs}.mlp", inner, bias=config.mlp_bias),
        **norm(f"{ours}/attn_norm", f"{theirs}.input_layernorm", bias=False),
        **norm(f"{ours}/mlp_norm", f"{theirs}.post_attention_layernorm", bias=False),
        **norm("decoder/final_norm", "model.norm", bias=False),
        **untied_head(config),
    }


FAMILY = Family(
    name="llama",
    backbone="LlamaBackbone",
    model_types=("llama",),
    architectures=architectures("Llama", spans=True),
    keys={**KEYS, "attention_bias": ("qkv_bias", "out_bias"), "mlp_bias": "mlp_bias"},
    defaults=DEFAULTS,
    absent={"bos_token_id": 1, "eos_token_id": 2},
    extra_read=read_rotary,
    extra_write=write_rotary,
    table=table,
    heads=heads,
    prefix="model",
    presets={
        "llama2_7b": ("meta-llama/Llama-2-7b-hf", "6.7B", "llama2"),
        "llama3_2_1b": ("meta-llama/Llama-3.2-1B", "1.2B", "llama3.2"),
        "llama3_1_8b": ("meta-llama/Llama-3.1-8B", "8.0B", "llama3.1"),
        "tinyllama_1_1b": ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "1.1B", "apache-2.0"),
        "smollm2_135m": ("HuggingFaceTB/SmolLM2-135M", "135M", "apache-2.0"),
    },
)
