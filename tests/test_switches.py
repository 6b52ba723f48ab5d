"""Every field of `Config` does something: flipped on a small model, each changes what the model computes."""

import dataclasses
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest

import zoo
from tests.models import run
from tests.parity_cases import CASES, KINDS, WAYS
from zoo import config as configs
from zoo import families
from zoo.config import Config
from zoo.loading import weights

SHAPE = {"vocabulary_size": 40, "num_layers": 2, "num_heads": 4, "hidden_dim": 32, "intermediate_dim": 48,
         "max_sequence_length": 32}  # fmt: skip
TIME = 20
ROTARY = {"rotary_theta": 100.0}
NARROW = {"embedding_dim": 24, "head_transform": True}
BUCKETS = {"relative": "buckets", "relative_buckets": 8}

# field -> (what else it needs, values that differ from the default)
FLIPS = {
    "vocabulary_size": ({}, [41]), "num_layers": ({}, [1]), "num_heads": ({}, [2]), "hidden_dim": ({}, [36]),
    "intermediate_dim": ({}, [64]), "architecture": ({}, ["encoder", "encoder_decoder"]),
    "num_decoder_layers": ({"architecture": "encoder_decoder"}, [1]), "num_key_value_heads": ({}, [1]),
    "head_dim": ({}, [12]), "embedding_dim": ({"head_transform": True}, [24]), "num_distinct_blocks": ({}, [1]),
    "norm": ({}, ["rms"]), "norm_epsilon": ({}, [0.1]), "norm_bias": ({}, [False]), "norm_offset": ({}, [1.0]),
    "norm_order": ({}, ["post", "sandwich", "branch"]), "parallel": ({}, ["two_norms", "one_norm"]),
    "embedding_norm": ({}, [True]), "final_norm": ({}, [False]), "first_attn_norm": ({}, [False]),
    "residual_scale": ({}, [0.5]), "convolution": ({"architecture": "encoder"}, [3, 4]),
    "embedding_scale": ({}, [2.0]), "embedding_projection": (NARROW, ["first"]),
    "num_token_types": ({}, [2]), "position": ({}, ["learned", "sinusoidal"]),
    "position_offset": ({"position": "learned"}, [2]), "rotary_theta": ({}, [100.0]),
    "rotary_local_theta": ({**ROTARY, "window": 5}, [3.0]), "rotary_fraction": (ROTARY, [0.5]),
    "rotary_pattern": (ROTARY, [(True, False), (False,)]),
    "rotary_scaling": (ROTARY, [
        ("linear", 2.0), ("dynamic", 2.0, 16), ("llama3", 8.0, 1.0, 4.0, 16), ("yarn", 4.0, 8, 4, 1, 1.0, True),
        ("longrope", 32, 1.1, *[1.0] * 8), ("longrope", 32, 1.0, *[2.0] * 4, *[1.0] * 4),
        ("longrope", 16, 1.0, *[1.0] * 4, *[2.0] * 4),
    ]),
    "relative": ({}, ["buckets", "buckets_per_layer", "alibi", "alibi_scaled"]),
    "relative_buckets": ({"relative": "buckets"}, [8]), "relative_distance": (BUCKETS, [16]),
    "qkv_bias": ({}, [False]), "out_bias": ({}, [False]), "qk_norm": ({}, ["head", "each_head", "all_heads"]),
    "attention_scale": ({}, [1.0]), "attention_softcap": ({}, [1.0]), "window": ({}, [3]),
    "window_pattern": ({"window": 3}, [(True, False)]), "activation": ({}, ["gelu_tanh", "relu", "silu"]),
    "gated": ({}, [True]), "mlp_bias": ({}, [False]), "tie_embeddings": ({}, [False]), "head_transform": ({}, [True]),
    "head_transform_bias": ({"head_transform": True}, [False]), "head_bias": ({}, [True]), "logit_scale": ({}, [2.0]),
    "logit_softcap": ({}, [1.0]),
}  # fmt: skip
ENCODER = {
    "relative": ({"architecture": "encoder"}, ["disentangled", "buckets", "alibi"]),
    "relative_buckets": ({"architecture": "encoder", "relative": "disentangled"}, [8]),
    "relative_distance": ({"architecture": "encoder", "relative": "disentangled", "relative_buckets": 8}, [16]),
    "window": ({"architecture": "encoder"}, [3]),
}
# Numbers that lead to the same operations, and those by which tokens find each other.
SIZES = {"vocabulary_size", "num_layers", "num_heads", "hidden_dim", "intermediate_dim", "num_decoder_layers",
         "head_dim", "norm_epsilon", "relative_buckets", "relative_distance"}  # fmt: skip
FINDING = {"architecture", "num_key_value_heads", "position", "position_offset", "rotary_theta", "rotary_local_theta",
           "rotary_fraction", "rotary_pattern", "relative", "window", "window_pattern", "convolution"}  # fmt: skip
RATES = ("dropout", "final_dropout", "attention_dropout", "activation_dropout")
ALL = [(field, context, value) for flips in (FLIPS, ENCODER) for field, (context, values) in flips.items()
       for value in values]  # fmt: skip


def model_of(fields):
    """A task model whose weights depend on their names alone: a longer table begins with the shorter one's rows."""
    config = Config(**{**SHAPE, **fields})
    task = {"decoder": zoo.CausalLM, "encoder": zoo.MaskedLM, "encoder_decoder": zoo.Seq2SeqLM}[config.architecture]
    model = task(zoo.Backbone(config))
    for name, v in weights(model).items():
        noise = np.random.default_rng(zlib.crc32(name.encode())).normal(size=v.shape) * 0.3
        v.assign((1.0 if "/scale" in name else 0.0) + noise.astype("float32"))
    return model


def logits(fields):
    ids = np.random.default_rng(0).integers(0, SHAPE["vocabulary_size"], (2, TIME)).astype("int32")
    both = fields.get("architecture") == "encoder_decoder"
    return run(model_of(fields), {"token_ids": ids, **({"decoder_token_ids": ids} if both else {})})


def test_every_field_is_flipped():
    """Beside initial weights, special tokens, and what changes training or compiling alone."""
    defaults = {f.name: f.default for f in dataclasses.fields(Config)}
    aside = {"remat", "scan_layers", "max_sequence_length", *RATES}
    for section in Path(configs.__file__).read_text(encoding="utf-8").split("\n    # "):
        if section.startswith(("Initial weights.", "Special tokens")):
            aside |= {name for name in defaults if f"    {name}: " in section}
    assert len(aside) == 13 and defaults.keys() - aside == FLIPS.keys()
    for name in configs._CHOICES.keys() - aside:
        tried = {value for flips in (FLIPS, ENCODER) for value in flips.get(name, ({}, []))[1]}
        assert tried | {defaults[name]} == set(configs._CHOICES[name])


def choices(name):
    """What is chosen for a case by the switches between operations: (field, value, or whether it is the default)."""
    _, theirs = CASES[name]()
    config, found = Config.from_dict(families.by_model_type(theirs.model_type).read(theirs.to_dict())), set()
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name == "num_key_value_heads":
            value = config.resolved_key_value_heads == config.num_heads
        elif not isinstance(value, str | bool):
            value = value == field.default
        found.add((field.name, value))
    return {(field, value) for field, value in found if field in FLIPS and field not in SIZES}


@pytest.mark.filterwarnings("ignore")
def test_the_kinds_that_every_backend_computes_make_every_choice():
    """And those that are packed and cached every choice of how tokens find each other."""
    pytest.importorskip("transformers")
    every = {name: choices(name) for name in CASES}
    assert set().union(*(every[name] for name in KINDS)) == set().union(*every.values())
    found, wanted = (set().union(*(every[name] for name in names)) for names in (WAYS, CASES))
    assert {choice for choice in wanted if choice[0] in FINDING} == {choice for choice in found if choice[0] in FINDING}


@pytest.fixture(scope="module")
def plain():
    """Logits of unflipped models, by what they need."""
    kept = {}

    def find(context):
        key = repr(sorted(context.items()))
        if key not in kept:
            kept[key] = logits(context)
        return kept[key]

    return find


@pytest.mark.uncompiled
@pytest.mark.parametrize(("field", "context", "value"), ALL, ids=[f"{field}={value}" for field, _, value in ALL])
def test_a_flip_changes_the_logits(plain, field, context, value):
    before, after = plain(context), logits({**context, field: value})
    assert np.isfinite(after).all()
    assert before.shape != after.shape or np.abs(before - after).max() > 1e-4 * np.abs(before).max()


def test_a_table_of_positions_ends():
    ids = {"token_ids": np.zeros((1, SHAPE["max_sequence_length"] + 1), "int32")}
    longer = {"position": "learned", "max_sequence_length": SHAPE["max_sequence_length"] + 1}
    assert np.isfinite(run(model_of(longer), ids)).all()
    with pytest.raises(ValueError, match="max_sequence_length"):
        model_of({"position": "learned"})(ids)


@pytest.mark.backends
@pytest.mark.parametrize("rate", RATES)
def test_each_dropout_changes_training_alone(plain, rate):
    model = model_of({rate: 0.5})
    ids = np.random.default_rng(0).integers(0, SHAPE["vocabulary_size"], (2, TIME)).astype("int32")
    np.testing.assert_array_equal(run(model, {"token_ids": ids}), plain({}))
    first, second = (keras.ops.convert_to_numpy(model({"token_ids": ids}, training=True)) for _ in range(2))
    assert np.abs(first - plain({})).max() > 0.1 and np.abs(first - second).max() > 0.1
