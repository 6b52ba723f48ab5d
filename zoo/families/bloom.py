"""BLOOM (BigScience 2022): ALiBi in place of positions, and a norm on the embeddings."""

from zoo.families.family import Family
from zoo.families.llama import architectures, heads
from zoo.families.rows import QKV, embeddings, fused, linear, linears, norm, untied_head
from zoo.weights import interleaved

_OLDER = {"n_embed": "hidden_dim", "num_attention_heads": "num_heads", "num_hidden_layers": "num_layers"}


def _read(hf):
    fields = {field: hf[key] for key, field in _OLDER.items() if key in hf}
    width = fields.get("hidden_dim", hf.get("hidden_size"))
    return fields | ({} if width is None else {"intermediate_dim": 4 * width})


def _table(config):
    ours, theirs = "decoder/block_{}", "transformer.h.{}"
    qkv = [interleaved(config.num_heads, i) for i in range(3)]
    return {
        **embeddings(config, "transformer.word_embeddings.weight"),
        **norm("decoder/embedding_norm", "transformer.word_embeddings_layernorm"),
        **fused(f"{ours}/attn", QKV, f"{theirs}.self_attention.query_key_value", qkv),
        **linear(f"{ours}/attn/out", f"{theirs}.self_attention.dense"),
        **linears(f"{ours}/mlp", f"{theirs}.mlp", {"up": "dense_h_to_4h", "down": "dense_4h_to_h"}),
        **norm(f"{ours}/attn_norm", f"{theirs}.input_layernorm"),
        **norm(f"{ours}/mlp_norm", f"{theirs}.post_attention_layernorm"),
        **norm("decoder/final_norm", "transformer.ln_f"),
        **untied_head(config),
    }


FAMILY = Family(
    name="bloom",
    backbone="BLOOMBackbone",
    model_types=("bloom",),
    architectures=architectures("Bloom", spans=True),
    keys={
        "vocab_size": "vocabulary_size",
        "n_layer": "num_layers",
        "n_head": "num_heads",
        "hidden_size": "hidden_dim",
        "seq_length": "max_sequence_length",
        "layer_norm_epsilon": "norm_epsilon",
        "hidden_dropout": "dropout",
        "attention_dropout": "attention_dropout",
        "initializer_range": "initializer_range",
        "tie_word_embeddings": "tie_embeddings",
    },
    defaults={"architecture": "decoder", "relative": "alibi", "embedding_norm": True, "norm_epsilon": 1e-5,
              "activation": "gelu_tanh", "max_sequence_length": 2048},
    fixed={"apply_residual_connection_post_layernorm": (False,)},
    absent={"bos_token_id": 1, "eos_token_id": 2},
    extra_read=_read,
    table=_table,
    heads=lambda config: heads(config, "classifier"),
    prefix="transformer",
    presets={
        "bloom_560m": ("bigscience/bloom-560m", "559M", "bigscience-bloom-rail-1.0"),
        "bloom_1b7": ("bigscience/bloom-1b7", "1.7B", "bigscience-bloom-rail-1.0"),
        "bloom_7b1": ("bigscience/bloom-7b1", "7.1B", "bigscience-bloom-rail-1.0"),
        "bloomz_560m": ("bigscience/bloomz-560m", "559M", "bigscience-bloom-rail-1.0"),
    },
)  # fmt: skip
