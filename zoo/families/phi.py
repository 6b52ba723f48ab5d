"""Phi 1 to 2 (Gunasekar et al. 2023): attention and feed-forward side by side after one norm."""

from zoo.families.family import Family
from zoo.families.llama import KEYS, architectures, heads
from zoo.families.rotary import read_rotary, write_rotary
from zoo.families.rows import embeddings, linears, norm, untied_head
from zoo.weights import same

DROPOUTS = {"resid_pdrop": "dropout", "embd_pdrop": "dropout"}


def _table(config):
    ours, theirs = "decoder/block_{}", "model.layers.{}"
    attention = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "dense"}
    return {
        **embeddings(config, "model.embed_tokens.weight"),
        **linears(f"{ours}/attn", f"{theirs}.self_attn", attention),
        **linears(f"{ours}/mlp", f"{theirs}.mlp", {"up": "fc1", "down": "fc2"}),
        **norm(f"{ours}/attn_norm", f"{theirs}.input_layernorm"),
        **norm("decoder/final_norm", "model.final_layernorm"),
        "head/bias": ("lm_head.bias", same),
        **untied_head(config),
    }


def _write(config):
    return {**write_rotary(config), "partial_rotary_factor": config.rotary_fraction}


FAMILY = Family(
    name="phi",
    backbone="PhiBackbone",
    model_types=("phi",),
    architectures=architectures("Phi"),
    keys={**{k: v for k, v in KEYS.items() if k not in ("rms_norm_eps", "head_dim")}, **DROPOUTS,
          "layer_norm_eps": "norm_epsilon"},
    defaults={"architecture": "decoder", "norm": "layer", "norm_epsilon": 1e-5, "parallel": "one_norm",
              "rotary_theta": 10000.0, "rotary_fraction": 0.5, "activation": "gelu_tanh", "tie_embeddings": False,
              "head_bias": True, "max_sequence_length": 2048},
    fixed={"qk_layernorm": (False,)},
    absent={"bos_token_id": 1, "eos_token_id": 2},
    extra_read=read_rotary,
    extra_write=_write,
    table=_table,
    heads=heads,
    prefix="model",
    presets={"phi_1_5": ("microsoft/phi-1_5", "1.4B", "mit"), "phi_2": ("microsoft/phi-2", "2.8B", "mit")},
)  # fmt: skip
