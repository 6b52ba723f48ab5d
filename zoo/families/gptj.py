"""GPT-J (Wang & Komatsuzaki 2021): attention and feed-forward side by side, rotary pairs of neighbouring features."""

from zoo.families.family import Family
from zoo.families.llama import heads
from zoo.families.rows import embeddings, linears, norm, untied_head
from zoo.weights import pairs, same


def _read(hf):
    if hf["rotary_dim"] is None:
        raise ValueError("rotary_dim=None is not supported for gptj: give a number.")
    fields = {"intermediate_dim": hf.get("n_inner") or 4 * hf["n_embd"]} if "n_embd" in hf else {}
    if "n_embd" in hf and "n_head" in hf:
        fields["rotary_fraction"] = hf["rotary_dim"] / (hf["n_embd"] // hf["n_head"])
    return fields


def _table(config):
    ours, theirs = "decoder/block_{}", "transformer.h.{}"
    attention = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}
    apart, turned = pairs(config.num_heads, config.rotary_width), {"query": "q_proj", "key": "k_proj"}
    return {
        **embeddings(config, "transformer.wte.weight"),
        **linears(f"{ours}/attn", f"{theirs}.attn", attention, bias=False),
        **{f"{ours}/attn/{name}/kernel": (f"{theirs}.attn.{one}.weight", apart) for name, one in turned.items()},
        **linears(f"{ours}/mlp", f"{theirs}.mlp", {"up": "fc_in", "down": "fc_out"}),
        **norm(f"{ours}/attn_norm", f"{theirs}.ln_1"),
        **norm("decoder/final_norm", "transformer.ln_f"),
        "head/bias": ("lm_head.bias", same),
        **untied_head(config),
    }


FAMILY = Family(
    name="gptj",
    backbone="GPTJBackbone",
    model_types=("gptj",),
    architectures={
        "CausalLM": "GPTJForCausalLM",
        "TextClassifier": "GPTJForSequenceClassification",
        "QuestionAnswerer": "GPTJForQuestionAnswering",
        "Backbone": "GPTJModel",
    },
    keys={
        "vocab_size": "vocabulary_size",
        "n_layer": "num_layers",
        "n_head": "num_heads",
        "n_embd": "hidden_dim",
        "n_inner": "intermediate_dim",
        "n_positions": "max_sequence_length",
        "activation_function": "activation",
        "layer_norm_epsilon": "norm_epsilon",
        "resid_pdrop": "dropout",
        "embd_pdrop": "dropout",
        "attn_pdrop": "attention_dropout",
        "initializer_range": "initializer_range",
        "tie_word_embeddings": "tie_embeddings",
    },
    defaults={"architecture": "decoder", "parallel": "one_norm", "rotary_theta": 10000.0, "rotary_fraction": 0.25,
              "norm_epsilon": 1e-5, "qkv_bias": False, "out_bias": False, "activation": "gelu_tanh",
              "tie_embeddings": False, "head_bias": True, "max_sequence_length": 2048},
    absent={"bos_token_id": 50256, "eos_token_id": 50256, "rotary_dim": 64},
    extra_read=_read,
    extra_write=lambda config: {"rotary_dim": config.rotary_width},
    table=_table,
    heads=heads,
    prefix="transformer",
    ignore=(r"\.attn\.(masked_)?bias$",),
    presets={"gptj_6b": ("EleutherAI/gpt-j-6b", "6.1B", "apache-2.0")},
)  # fmt: skip
