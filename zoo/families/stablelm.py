"""StableLM (Bellagente et al. 2024): Llama with LayerNorm and a quarter of each head rotated; 12B one branch."""

from zoo.families.family import Family
from zoo.families.llama import DEFAULTS, KEYS, architectures, heads
from zoo.families.llama import table as llama_table
from zoo.families.rotary import read_rotary, write_rotary
from zoo.families.rows import norm
from zoo.weights import same


def _read(hf):
    return {
        **read_rotary({"partial_rotary_factor": 0.25, **hf}),
        "parallel": "one_norm" if hf.get("use_parallel_residual") else None,
        "qk_norm": "each_head" if hf.get("qk_layernorm") else None,
    }


def _write(config):
    rotary = write_rotary(config)
    rotary["rope_parameters"]["partial_rotary_factor"] = config.rotary_fraction
    return {**rotary, "partial_rotary_factor": config.rotary_fraction, "qk_layernorm": config.qk_norm is not None,
            "use_parallel_residual": config.parallel is not None}  # fmt: skip


def _table(config):
    ours, theirs = "decoder/block_{}", "model.layers.{}"
    rows = llama_table(config) | norm(f"{ours}/attn_norm", f"{theirs}.input_layernorm")
    rows |= norm("decoder/final_norm", "model.norm") | norm(f"{ours}/mlp_norm", f"{theirs}.post_attention_layernorm")
    for name, heads_ in (("query", config.num_heads), ("key", config.resolved_key_value_heads)):
        if config.qk_norm:
            names = f"{theirs}.self_attn.{name[0]}_layernorm.norms"
            rows |= {f"{ours}/attn/{name}_norm/scale_{i}": (f"{names}.{i}.weight", same) for i in range(heads_)}
    return {name: row for name, row in rows.items() if not (config.parallel and "/mlp_norm/" in name)}


FAMILY = Family(
    name="stablelm",
    backbone="StableLMBackbone",
    model_types=("stablelm",),
    architectures=architectures("StableLm"),
    keys={**{key: field for key, field in KEYS.items() if key not in ("rms_norm_eps", "head_dim")},
          "layer_norm_eps": "norm_epsilon", "use_qkv_bias": "qkv_bias", "hidden_dropout": "dropout"},
    defaults={**DEFAULTS, "norm": "layer", "norm_epsilon": 1e-5, "rotary_fraction": 0.25, "max_sequence_length": 4096},
    absent={"bos_token_id": 0, "eos_token_id": 0, "num_key_value_heads": 32},
    extra_read=_read,
    extra_write=_write,
    table=_table,
    heads=heads,
    prefix="model",
    presets={
        "stablelm_3b": ("stabilityai/stablelm-3b-4e1t", "2.8B", "cc-by-sa-4.0"),
        "stablelm_2_1_6b": ("stabilityai/stablelm-2-1_6b", "1.6B", "other"),
        "stablelm_2_12b": ("stabilityai/stablelm-2-12b", "12.1B", "other"),
    },
)  # fmt: skip
