"""Families against `transformers`: every config.json and every tensor passes through ours and comes back the same."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from tests.parity_cases import CASES, model_of
from tests.variables import variables
from zoo import families, pretrained, weights
from zoo.checkpoint import Checkpoint
from zoo.config import Config


@pytest.fixture(scope="session", params=sorted(CASES))
def saved(request, tmp_path_factory):
    """A random model and the directory that `transformers` saved it in."""
    model = model_of(request.param)
    directory = tmp_path_factory.mktemp("saved") / request.param
    model.save_pretrained(directory)
    return model, directory


def load(directory):
    """What our model would hold: name -> array."""
    family, config, _ = pretrained.read(directory)
    arrays = {}
    targets = {name: (shape, lambda x, name=name: arrays.__setitem__(name, np.array(x)))
               for name, shape in variables(config).items()}  # fmt: skip
    report = pretrained.load_weights(directory, family, config, targets)
    assert not report.failed and not report.random_heads
    return family, config, arrays


def filled(config):
    """With what None stands for."""
    return replace(config, head_dim=config.resolved_head_dim, num_key_value_heads=config.resolved_key_value_heads)


@pytest.mark.filterwarnings("error")
def test_every_tensor_survives_both_ways(saved, tmp_path):
    _, directory = saved
    family, config, arrays = load(directory)
    assert {name: x.shape for name, x in arrays.items()} == variables(config)
    pretrained.save(tmp_path, family, config, family.task_of(pretrained.read(directory)[2]), arrays)
    ours, theirs = Checkpoint(tmp_path), Checkpoint(directory)
    for name in ours:
        np.testing.assert_array_equal(ours.read(name), theirs.read(name), err_msg=name)
    left = set(theirs) - set(ours)
    assert all(any(re.search(pattern, name) for pattern in family.ignored) for name in left), left


@pytest.mark.filterwarnings("ignore")
def test_transformers_opens_what_we_save(saved, tmp_path):
    import torch

    model, directory = saved
    family, config, arrays = load(directory)
    pretrained.save(tmp_path, family, config, family.task_of(pretrained.read(directory)[2]), arrays)
    again, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not info["unexpected_keys"] and not info["mismatched_keys"]
    ids = torch.randint(3, 90, (2, 12), generator=torch.Generator().manual_seed(1))
    inputs = {"input_ids": ids, **({"decoder_input_ids": ids} if config.architecture == "encoder_decoder" else {})}
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(**inputs).logits, model(**inputs).logits, rtol=0, atol=0)


def test_a_config_survives_both_ways(saved):
    """Keys that we write mean to `transformers` what its own did."""
    model, directory = saved
    family, config, hf = pretrained.read(directory)
    ours = family.write(config, family.task_of(hf))
    theirs, again = model.config.to_dict(), type(model.config).from_dict(ours).to_dict()
    free = {"dtype", "architectures", "transformers_version", "use_cache", "_name_or_path", "forced_eos_token_id",
            "hidden_act", "activation_function", "tie_word_embeddings", "max_window_layers"}  # fmt: skip
    assert {k: (v, again[k]) for k, v in theirs.items() if k not in free and again.get(k) != v} == {}
    assert filled(Config.from_dict(family.read(ours))) == filled(config)
    assert filled(Config.from_dict(family.read(again))) == filled(config)


@pytest.mark.parametrize("name", sorted(CASES))
def test_switches_alone_build_a_family(name):
    """A backbone made from its shape alone is what the published config.json says."""
    _, hf = CASES[name]()
    family = families.by_model_type(hf.model_type)
    if family.name == "deberta_v3":  # what its class assumes no published file says
        hf = CASES["deberta_v3"]()[1]
    published = Config.from_dict(family.read((hf if family.name == "deberta_v3" else type(hf)()).to_dict()))
    shape = {field: getattr(published, field) for field in
             ("vocabulary_size", "num_layers", "num_heads", "hidden_dim", "intermediate_dim", "max_sequence_length",
              "num_key_value_heads", "head_dim", "num_decoder_layers", "num_token_types", "norm_epsilon",
              "embedding_dim", "pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id",
              "attention_dropout", "window", "attention_scale", "logit_scale", "relative_buckets")}  # fmt: skip
    if family.name == "roberta":
        assert Config(**family.switches(shape) | shape).position_offset == 2
    assert Config(**{**family.switches(shape), **shape}) == published


@pytest.mark.parametrize(("model_type", "key", "value"), [
    ("gpt2", "activation_function", "quick_gelu"), ("gpt2", "scale_attn_by_inverse_layer_idx", True),
    ("bert", "is_decoder", True), ("bert", "position_embedding_type", "relative_key"), ("bert", "hidden_act", "mish"),
    ("bart", "decoder_ffn_dim", 7), ("bart", "decoder_attention_heads", 1), ("t5", "feed_forward_proj", "gated-tanh"),
    ("llama", "rope_parameters", {"rope_type": "proportional", "factor": 2.0}), ("llama", "hidden_act", "swiglu"),
    ("llama", "rope_parameters", {"rope_type": "longrope", "factor": 2.0}), ("roberta", "pad_token_id", None),
    ("gptj", "rotary_dim", None), ("opt", "layer_norm_elementwise_affine", False), ("falcon", "activation", "mish"),
    ("bloom", "apply_residual_connection_post_layernorm", True), ("deberta-v2", "conv_act", "tanh"),
    ("deberta-v2", "pos_att_type", "c2p"), ("deberta-v2", "embedding_size", 8),
])  # fmt: skip
def test_what_we_do_not_compute_is_refused_by_name(tmp_path, model_type, key, value):
    import transformers

    hf = transformers.AutoConfig.for_model(model_type).to_dict()
    pretrained.read(_written(tmp_path, hf))
    with pytest.raises(ValueError, match=key.removesuffix("_parameters").replace("rope", "rope_scaling")) as error:
        pretrained.read(_written(tmp_path, {**hf, key: value}))
    assert str(tmp_path / "config.json") in str(error.value)


def _written(directory, hf):
    (directory / "config.json").write_text(json.dumps(hf))
    return directory


def test_a_config_json_that_leaves_keys_out_means_what_transformers_assumes():
    import transformers

    for family in families.families().values():
        full = transformers.AutoConfig.for_model(family.model_types[0]).to_dict()
        shape = {key for key, field in family.keys.items() if field in
                 ("vocabulary_size", "num_layers", "num_heads", "hidden_dim", "intermediate_dim", "head_dim",
                  "max_sequence_length", "num_decoder_layers", "num_key_value_heads")}  # fmt: skip
        bare = {key: full[key] for key in shape | {"max_position_embeddings"} if key in full}
        ours, theirs = Config.from_dict(family.read(bare)), Config.from_dict(family.read(full))
        free = dict.fromkeys(("dropout", "attention_dropout", "activation_dropout", "final_dropout"), 0.0)
        free |= {"num_token_types": 0, "norm_epsilon": 1e-5}  # RoBERTa's class has BERT's, its files their own
        free = free if "roberta" in family.table.__module__ else {k: v for k, v in free.items() if "dropout" in k}
        assert replace(filled(ours), **free) == replace(filled(theirs), **free), family.name


LEGACY = [
    ("gpt2", {"n_inner": None}), ("gpt_neox", {"rotary_pct": 0.5, "rotary_emb_base": 5000}),
    ("llama", {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}}),
    ("llama", {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}, "eos_token_id": [1, 2]}),
    ("mistral", {"sliding_window": None}), ("phi", {"partial_rotary_factor": 0.25}),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 77, "max_window_layers": 30}),
    ("qwen2", {"use_sliding_window": True, "max_window_layers": 99}), ("gemma", {"hidden_act": "gelu"}),
    ("gemma2", {"attn_logit_softcapping": None, "final_logit_softcapping": None, "sliding_window": None}),
    ("gemma3_text", {"rope_theta": 2e6, "rope_local_base_freq": 777.0, "sliding_window_pattern": 4,
                     "rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
    ("modernbert", {"global_rope_theta": 5e4, "local_rope_theta": 1e3, "global_attn_every_n_layers": 4,
                    "local_attention": 32}),
    ("t5", {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}), ("bart", {"scale_embedding": True}),
    ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}), ("bloom", {"n_embed": 96, "n_head": 6}),
    ("qwen2", {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192}}),
    ("qwen2", {"rope_scaling": {"type": "yarn", "factor": 4.0, "mscale": 0.7, "mscale_all_dim": 1.0}}),
    ("qwen2", {"rope_scaling": {"type": "yarn", "factor": 4.0, "beta_slow": 2, "truncate": False}}),
    ("phi3", {"max_position_embeddings": 131072, "original_max_position_embeddings": 4096, "rope_scaling":
              {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48}}),
    ("smollm3", {"no_rope_layers": None, "no_rope_layer_interval": 3}), ("stablelm", {"partial_rotary_factor": 0.5}),
    ("falcon", {"num_kv_heads": None, "multi_query": False, "parallel_attn": False, "alibi": True}),
    ("falcon", {"num_attention_heads": 64, "hidden_size": 4096, "num_kv_heads": 8, "new_decoder_architecture": True}),
    ("opt", {"word_embed_proj_dim": 512, "do_layer_norm_before": False}), ("gptj", {"n_inner": None}),
    ("bert", {"hidden_act": "gelu_new", "tie_word_embeddings": False}), ("roberta", {"pad_token_id": 5}),
]  # fmt: skip


@pytest.mark.parametrize(("model_type", "keys"), LEGACY)
def test_older_spellings_mean_what_transformers_reads_in_them(model_type, keys):
    import transformers

    family = families.by_model_type(model_type)
    full = transformers.AutoConfig.for_model(model_type).to_dict()
    recent = {"rope_parameters", "layer_types", "scale_decoder_outputs"}
    older = {**{key: value for key, value in full.items() if key not in recent}, **keys}
    newer = transformers.AutoConfig.for_model(**older).to_dict()
    assert filled(Config.from_dict(family.read(older))) == filled(Config.from_dict(family.read(newer)))


def test_nothing_is_said_by_null():
    """A key that is null switches its part off; it does not mean the family's default."""
    read = lambda kind, **hf: Config.from_dict(families.by_model_type(kind).read({**SIZES, **hf}))  # noqa: E731
    config = read("gemma2", attn_logit_softcapping=None, final_logit_softcapping=None, sliding_window=None)
    assert (config.attention_softcap, config.logit_softcap, config.window) == (None, None, None)
    assert read("gemma2").attention_softcap == 50.0 and read("gemma2").window == 4096
    assert read("qwen2", use_sliding_window=True, max_window_layers=99).window is None
    assert families.by_name("gpt2").read({"n_embd": 8, "n_inner": None})["intermediate_dim"] == 4 * 8


SIZES = {"vocab_size": 9, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
         "intermediate_size": 8}  # fmt: skip


def test_the_first_nomic_files_have_other_keys():
    """What nomic-embed-text-v1.5 says in GPT-2's words is what its paper gives: 12 layers of 768, 12 heads."""
    hf = {"model_type": "nomic_bert", "n_embd": 768, "n_head": 12, "n_inner": 3072, "n_layer": 12, "n_positions": 8192,
          "activation_function": "swiglu", "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0, "vocab_size": 30528,
          "qkv_proj_bias": False, "prenorm": False, "layer_norm_epsilon": 1e-12, "type_vocab_size": 2}  # fmt: skip
    family = families.by_model_type("nomic_bert")
    config = Config.from_dict(family.read(hf))
    assert (config.num_layers, config.hidden_dim, config.num_heads, config.intermediate_dim) == (12, 768, 12, 3072)
    assert (config.rotary_theta, config.rotary_fraction, config.activation, config.gated) == (1000.0, 1.0, "silu", True)
    with pytest.raises(ValueError, match="prenorm=True"):
        family.read({**hf, "prenorm": True})


def test_rates_of_dropout_that_we_keep_as_one_are_warned_of():
    family = families.by_name("gpt2")
    with pytest.warns(UserWarning, match=r"resid_pdrop=0\.1 and embd_pdrop=0\.0 both set dropout"):
        assert family.read({"resid_pdrop": 0.1, "embd_pdrop": 0.0})["dropout"] == 0.1


@pytest.mark.parametrize("name", ["gpt2", "bert", "roberta", "distilbert", "llama", "bart", "t5", "modernbert"])
def test_checkpoints_of_other_tasks_give_their_backbone(name, tmp_path):
    """A classifier's file fills a bare backbone; its head is left aside, its body is all there."""
    import transformers

    config = CASES[name]()[1]
    family = families.by_name(name)
    for task in ("TextClassifier", "TokenClassifier", "QuestionAnswerer"):
        if task in family.architectures:
            config.update({"pad_token_id": config.pad_token_id or 0})
            model = getattr(transformers, family.architectures[task])(config)
            model.save_pretrained(tmp_path / task)
            _, ours, hf = pretrained.read(tmp_path / task)
            assert pretrained.task_of(hf) == task
            body = {n: s for n, s in variables(family.body(ours, task)).items() if not n.startswith("head/")}
            got = {}
            targets = {n: (s, lambda x, n=n: got.__setitem__(n, np.array(x))) for n, s in body.items()}  # noqa: B023
            pretrained.load_weights(tmp_path / task, family, ours, targets)
            state = model.get_input_embeddings().weight.detach().numpy()
            np.testing.assert_array_equal(got["token/embeddings"], state)
            assert got.keys() == body.keys()


def test_switches_that_no_config_json_knows_are_refused_before_anything_is_written(tmp_path):
    shape = {"vocabulary_size": 9, "num_layers": 1, "num_heads": 1, "hidden_dim": 4, "intermediate_dim": 8}
    family = families.by_name("gpt2")
    config = Config(**{**family.switches(shape), **shape, "norm": "rms"})
    with pytest.raises(ValueError, match=r"gpt2.*norm='rms'"):
        pretrained.save(tmp_path / "out", family, config, "CausalLM", {"token/embeddings": np.ones((9, 4), "float32")})
    assert not (tmp_path / "out").exists()


def test_training_switches_without_a_key_of_their_own_come_back():
    shape = {"vocabulary_size": 9, "num_layers": 2, "num_heads": 2, "hidden_dim": 32, "intermediate_dim": 128}
    for family in families.families().values():
        changes = {"remat": True, "final_dropout": 0.25, "initializer": "normal"}
        config = Config(**{**family.switches(shape), **shape, **changes})
        again = Config.from_dict(family.read(json.loads(json.dumps(family.write(config)))))
        assert {name: getattr(again, name) for name in changes} == changes


def test_tables_have_no_row_that_no_model_uses(saved):
    _, directory = saved
    family, config, _ = pretrained.read(directory)
    ours = {re.sub(r"block_\d+", "block_{}", name) for name in variables(config)}
    assert {row for row in family.table(config) if row.startswith(weights._BODY)} <= ours


def test_the_registry_finds_and_suggests():
    for name, family in families.families().items():
        assert families.by_name(name) is family and families.by_backbone(family.backbone) is family
        assert all(families.by_model_type(kind) is family for kind in family.model_types)
    with pytest.raises(ValueError, match=r"did you mean .*gpt2.*\? Known are"):
        families.by_model_type("gpt3")


def test_every_architecture_exists_and_names_its_task():
    import transformers

    for family in families.families().values():
        for task, name in family.architectures.items():
            assert issubclass(getattr(transformers, name), transformers.PreTrainedModel)
            assert pretrained.task_of({"model_type": family.model_types[0], "architectures": [name]}) == task
