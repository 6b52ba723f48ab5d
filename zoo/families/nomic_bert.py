"""Nomic BERT (Nussbaum et al. 2024): BERT with rotary positions and a gated feed-forward, for long texts."""

from zoo.families.bert import DEFAULTS, KEYS, follow_dropout, head, heads
from zoo.families.family import Family
from zoo.families.rotary import read_rotary, write_rotary
from zoo.families.rows import QKV, embeddings, fused, linear, linears, norm
from zoo.weights import outputs, same

# The first files have GPT-2's keys.
_LEGACY = {"n_embd": "hidden_dim", "n_layer": "num_layers", "n_head": "num_heads", "n_inner": "intermediate_dim",
           "n_positions": "max_sequence_length", "layer_norm_epsilon": "norm_epsilon", "resid_pdrop": "dropout",
           "attn_pdrop": "attention_dropout"}  # fmt: skip
_FIXED = {
    "prenorm": (False,), "parallel_block": (False,), "causal": (False,), "use_rms_norm": (False, None),
    "qkv_proj_bias": (False,), "mlp_fc1_bias": (False,), "mlp_fc2_bias": (False,), "rotary_scaling_factor": (None,),
    "activation_function": ("swiglu",),
}  # fmt: skip


def _read(hf):
    rotary = {"rope_theta": hf.get("rotary_emb_base"), "partial_rotary_factor": hf.get("rotary_emb_fraction"), **hf}
    legacy = {field: hf[key] for key, field in _LEGACY.items() if key in hf}
    return {**legacy, **read_rotary(rotary, 1000.0)}


def _write(config):
    return {**write_rotary(config), "pad_token_id": config.pad_token_id or 0}


def _table(config):
    ours, theirs, e = "encoder/block_{}", "nomic_bert.encoder.layers.{}", "nomic_bert.embeddings"
    qkv = [outputs([config.hidden_dim] * 3, i) for i in range(3)]
    types = {"encoder/token_type/embeddings": (f"{e}.token_type_embeddings.weight", same)}
    return {
        **embeddings(config, f"{e}.word_embeddings.weight", head="cls.predictions.decoder.weight"),
        **(types if config.num_token_types else {}),
        **norm("encoder/embedding_norm", "nomic_bert.emb_ln"),
        **fused(f"{ours}/attn", QKV, f"{theirs}.attn.Wqkv", qkv, bias=False),
        **linear(f"{ours}/attn/out", f"{theirs}.attn.out_proj", bias=False),
        **norm(f"{ours}/attn_norm", f"{theirs}.norm1"),
        **linears(f"{ours}/mlp", f"{theirs}.mlp", {"up": "fc11", "gate": "fc12", "down": "fc2"}, bias=False),
        **norm(f"{ours}/mlp_norm", f"{theirs}.norm2"),
        **head(config, "cls.predictions", norm_name="transform.layer_norm"),
    }


FAMILY = Family(
    name="nomic_bert",
    backbone="NomicBERTBackbone",
    model_types=("nomic_bert",),
    architectures={
        "MaskedLM": "NomicBertForMaskedLM",
        "TextClassifier": "NomicBertForSequenceClassification",
        "TokenClassifier": "NomicBertForTokenClassification",
        "Backbone": "NomicBertModel",
    },
    keys=KEYS,
    defaults={**DEFAULTS, "position": None, "rotary_theta": 1000.0, "activation": "silu", "gated": True,
              "qkv_bias": False, "out_bias": False, "mlp_bias": False, "dropout": 0.0, "max_sequence_length": 2048},
    derived=follow_dropout,
    fixed=_FIXED,
    absent={"pad_token_id": 0},
    extra_read=_read,
    extra_write=_write,
    table=_table,
    heads=lambda config: heads(config, "nomic_bert"),
    prefix="nomic_bert",
    ignore=(r"pooler\.", r"^cls\.predictions\.bias$"),
    presets={"nomic_embed_text_v1_5": ("nomic-ai/nomic-embed-text-v1.5", "137M", "apache-2.0")},
)  # fmt: skip
