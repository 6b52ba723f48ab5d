"""GPT-2 (Radford et al. 2019): a pre-norm decoder with learned positions."""

from zoo.families.family import Family
from zoo.families.llama import heads
from zoo.families.rows import QKV, embeddings, fused, linear, norm, untied_head
from zoo.weights import columns, same


def _read(hf):
    return {} if hf.get("n_inner") is not None or "n_embd" not in hf else {"intermediate_dim": 4 * hf["n_embd"]}


def _table(config):
    ours, theirs, d = "decoder/block_{}", "transformer.h.{}", config.hidden_dim
    return {
        **embeddings(config, "transformer.wte.weight"),
        "decoder/position/embeddings": ("transformer.wpe.weight", same),
        **fused(f"{ours}/attn", QKV, f"{theirs}.attn.c_attn", [columns([d] * 3, i) for i in range(3)]),
        **linear(f"{ours}/attn/out", f"{theirs}.attn.c_proj", move=same),
        **linear(f"{ours}/mlp/up", f"{theirs}.mlp.c_fc", move=same),
        **linear(f"{ours}/mlp/down", f"{theirs}.mlp.c_proj", move=same),
        **norm(f"{ours}/attn_norm", f"{theirs}.ln_1"),
        **norm(f"{ours}/mlp_norm", f"{theirs}.ln_2"),
        **norm("decoder/final_norm", "transformer.ln_f"),
        **untied_head(config),
    }


FAMILY = Family(
    name="gpt2",
    backbone="GPTBackbone",
    model_types=("gpt2",),
    architectures={
        "CausalLM": "GPT2LMHeadModel",
        "TextClassifier": "GPT2ForSequenceClassification",
        "TokenClassifier": "GPT2ForTokenClassification",
        "QuestionAnswerer": "GPT2ForQuestionAnswering",
        "Backbone": "GPT2Model",
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
    defaults={"architecture": "decoder", "position": "learned", "max_sequence_length": 1024, "activation": "gelu_tanh",
              "norm_epsilon": 1e-5, "dropout": 0.1, "initializer": "scaled"},
    derived=lambda fields: {"attention_dropout": fields["dropout"]},
    fixed={"scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False,), "add_cross_attention": (False,)},
    absent={"bos_token_id": 50256, "eos_token_id": 50256},
    extra_read=_read,
    table=_table,
    heads=lambda config: heads(config, "classifier"),
    prefix="transformer",
    ignore=(r"\.attn\.(masked_)?bias$",),
    presets={
        "gpt2": ("openai-community/gpt2", "124M", "mit"),
        "gpt2_medium": ("openai-community/gpt2-medium", "355M", "mit"),
        "gpt2_large": ("openai-community/gpt2-large", "774M", "mit"),
        "gpt2_xl": ("openai-community/gpt2-xl", "1.6B", "mit"),
        "distilgpt2": ("distilbert/distilgpt2", "82M", "apache-2.0"),
    },
)  # fmt: skip
