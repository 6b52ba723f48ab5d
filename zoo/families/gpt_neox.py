"""GPT-NeoX and Pythia (Black et al. 2022, Biderman et al. 2023): attention and feed-forward side by side, two norms."""

from zoo.families.family import Family
from zoo.families.llama import architectures, heads
from zoo.families.rotary import read_rotary, write_rotary
from zoo.families.rows import QKV, embeddings, fused, linear, linears, norm, untied_head
from zoo.weights import interleaved

_BRANCHES = {True: "two_norms", False: None}


def _read(hf):
    legacy = {"rope_theta": hf.get("rotary_emb_base"), "partial_rotary_factor": hf.get("rotary_pct", 0.25)}
    return {**read_rotary({**legacy, **hf}), "parallel": _BRANCHES[bool(hf.get("use_parallel_residual", True))]}


def _write(config):
    rotary = write_rotary(config)
    rotary["rope_parameters"]["partial_rotary_factor"] = config.rotary_fraction
    legacy = {"rotary_emb_base": config.rotary_theta, "rotary_pct": config.rotary_fraction}
    return {**rotary, **legacy, "use_parallel_residual": config.parallel is not None}


def _table(config):
    ours, theirs, heads = "decoder/block_{}", "gpt_neox.layers.{}", config.num_heads
    qkv = [interleaved(heads, i) for i in range(3)]
    head = ("embed_out.weight", "lm_head.weight")
    return {
        **embeddings(config, "gpt_neox.embed_in.weight", head=head[0]),
        **fused(f"{ours}/attn", QKV, f"{theirs}.attention.query_key_value", qkv, bias=config.qkv_bias),
        **linear(f"{ours}/attn/out", f"{theirs}.attention.dense", bias=config.out_bias),
        **linears(f"{ours}/mlp", f"{theirs}.mlp", {"up": "dense_h_to_4h", "down": "dense_4h_to_h"}),
        **norm(f"{ours}/attn_norm", f"{theirs}.input_layernorm"),
        **norm(f"{ours}/mlp_norm", f"{theirs}.post_attention_layernorm"),
        **norm("decoder/final_norm", "gpt_neox.final_layer_norm"),
        **untied_head(config, head),
    }


FAMILY = Family(
    name="gpt_neox",
    backbone="GPTNeoXBackbone",
    model_types=("gpt_neox",),
    architectures=architectures("GPTNeoX", spans=True),
    keys={
        "vocab_size": "vocabulary_size",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "hidden_size": "hidden_dim",
        "intermediate_size": "intermediate_dim",
        "max_position_embeddings": "max_sequence_length",
        "hidden_act": "activation",
        "layer_norm_eps": "norm_epsilon",
        "attention_bias": ("qkv_bias", "out_bias"),
        "hidden_dropout": "dropout",
        "attention_dropout": "attention_dropout",
        "initializer_range": "initializer_range",
        "tie_word_embeddings": "tie_embeddings",
    },
    defaults={"architecture": "decoder", "norm_epsilon": 1e-5, "parallel": "two_norms", "rotary_theta": 10000.0,
              "rotary_fraction": 0.25, "activation": "gelu", "tie_embeddings": False, "max_sequence_length": 2048},
    absent={"bos_token_id": 0, "eos_token_id": 2},
    extra_read=_read,
    extra_write=_write,
    table=_table,
    heads=lambda config: heads(config, "classifier", "gpt_neox"),
    prefix="gpt_neox",
    ignore=(r"\.attention\.(masked_)?bias$",),
    presets={
        "pythia_70m": ("EleutherAI/pythia-70m", "70M", "apache-2.0"),
        "pythia_160m": ("EleutherAI/pythia-160m", "162M", "apache-2.0"),
        "pythia_410m": ("EleutherAI/pythia-410m", "405M", "apache-2.0"),
        "pythia_1b": ("EleutherAI/pythia-1b", "1.0B", "apache-2.0"),
    },
)  # fmt: skip
