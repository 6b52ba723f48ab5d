"""Adapter directories: what they mean in the checkpoints' own terms, and that the package `peft` opens them and writes
what we open, to equal logits."""

import json

import keras
import numpy as np
import pytest

import zoo
from tests.models import TINY, randomise, relative_error, run
from zoo import adapters
from zoo.adapters import files, formats, peft
from zoo.adapters.attach import held, kernels
from zoo.checkpoint import read_json
from zoo.loading import weights

RNG = np.random.default_rng(0)
IDS = RNG.integers(3, 96, (3, 12)).astype("int32")
TEXT = {"token_ids": IDS, "padding_mask": np.ones_like(IDS)}


def lm(backbone, **fields):
    return zoo.CausalLM(getattr(zoo, f"{backbone}Backbone")(**{**TINY, **fields}))


MODELS = {  # name -> (model, pattern, class in transformers)
    "llama": (lambda: lm("Llama", num_key_value_heads=2), "(query|value|gate)/kernel", "AutoModelForCausalLM"),
    "gpt2": (lambda: lm("GPT"), "(query|value)/kernel", "AutoModelForCausalLM"),
    "gpt2_ranks": (lambda: lm("GPT", num_layers=2), "(block_1/attn/.*|block_0/mlp/down)/kernel",
                   "AutoModelForCausalLM"),
    "gpt_neox": (lambda: lm("GPTNeoX"), "(query|key|value)/kernel", "AutoModelForCausalLM"),
    "gptj": (lambda: lm("GPTJ", rotary_fraction=0.5), "(query|value)/kernel", "AutoModelForCausalLM"),
    "gemma": (lambda: lm("Gemma", embedding_scale=32**0.5), "query/kernel", "AutoModelForCausalLM"),
    "phi3": (lambda: lm("Phi3"), "(key|up)/kernel", "AutoModelForCausalLM"),
    "bert": (lambda: zoo.TextClassifier(zoo.BERTBackbone(**TINY), labels=["a", "b", "c"]),
             "(query|attn/out)/kernel", "AutoModelForSequenceClassification"),
    "bert_bare": (lambda: zoo.BERTBackbone(**TINY), "(query|value)/kernel", "AutoModel"),
    "t5": (lambda: zoo.Seq2SeqLM(zoo.T5Backbone(**TINY, decoder_start_token_id=0)),
           "(query|value|down)/kernel", "AutoModelForSeq2SeqLM"),
}  # fmt: skip


def made(name):
    """A model with an adapter that does something."""
    make, pattern, theirs = MODELS[name]
    model = randomise(make())
    adapters.lora(model, rank=3, alpha=6, pattern=pattern)
    for adapter in held(model, "default").values():
        adapter.b.assign(RNG.normal(size=adapter.b.shape).astype("float32") * 0.5)
    return model, theirs


def inputs(model):
    start = {"decoder_token_ids": IDS[:, ::-1].copy()} if isinstance(model, zoo.Seq2SeqLM) else {}
    return {**TEXT, **start}


@pytest.mark.parametrize("name", MODELS)
def test_a_written_adapter_is_the_same_change_of_their_weights(name, tmp_path):
    """lora_B lora_A · alpha / r, as peft has it, is what the family's table makes of A B · alpha / r."""
    model, _ = made(name)
    adapters.save(model, tmp_path)
    config, tensors = read_json(tmp_path / files.CONFIG), files._Adapter(tmp_path)
    rows, found = formats.peft_rows(model), held(model, "default")
    seen = set()
    for module, (names, move) in peft.modules(rows, formats.widths(model)).items():
        if not set(names) & found.keys():
            continue
        a, b = (tensors.read(f"{peft.BASE}{module}.lora_{half}.weight") for half in "AB")
        alpha = config["alpha_pattern"].get(module, config["lora_alpha"])
        assert len(a) == config["rank_pattern"].get(module, config["r"]) == b.shape[1]
        ours = [keras.ops.convert_to_numpy(found[one].a @ found[one].b) * found[one].scale if one in found
                else np.zeros(kernels(model)[one].kernel.shape, "float32") for one in names]  # fmt: skip
        theirs = np.asarray(b) @ np.asarray(a) * (alpha / len(a))
        whole = move.save(ours)
        assert relative_error(theirs.T if config["fan_in_fan_out"] else theirs, whole) < 1e-5
        seen |= {f"{peft.BASE}{module}.lora_{half}.weight" for half in "AB"}
    heads = {rows[key][0][0] for key, v in weights(model).items() if key.startswith("head/") and v.trainable}
    assert set(tensors) == seen | {peft.BASE + key for key in heads} and bool(heads) == (name == "bert")
    assert bool(config["rank_pattern"]) == (name == "gpt2_ranks")


@pytest.mark.backends
@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_a_written_adapter_is_read_again(name, tmp_path):
    model, _ = made(name)
    expected = run(model, inputs(model))
    adapters.save(model, tmp_path, base="somewhere")
    other = randomise(MODELS[name][0]())
    adapters.load(other, tmp_path, name="again")
    assert relative_error(run(other, inputs(other)), expected) < 1e-5
    ranks = {adapter.rank for adapter in held(other, "again").values()}
    assert ranks == {3} and held(other, "again").keys() == held(model, "default").keys()
    assert {v.path.split("/adapter_")[0] for v in other.trainable_variables} == {
        v.path.split("/adapter_")[0] for v in model.trainable_variables
    }


def made_otherwise(method, name):
    """The same with IA³ or a prompt."""
    make, _, theirs = MODELS[name]
    model = randomise(make())
    options = {"length": 5} if method == "prompt" else {}
    getattr(adapters, method)(model, **options)
    for adapter in held(model, "default").values():
        for v in adapter.variables:
            v.assign(RNG.normal(size=v.shape).astype("float32"))
    return model, theirs


OTHERWISE = [("ia3", "llama"), ("ia3", "gpt2"), ("ia3", "bert"), ("ia3", "t5"), ("prompt", "gpt2"), ("prompt", "gemma"),
             ("prompt", "bert"), ("prompt", "t5")]  # fmt: skip


@pytest.mark.parametrize(("method", "name"), [("lora", name) for name in MODELS] + OTHERWISE)
def test_peft_opens_what_we_write(method, name, tmp_path):
    theirs, torch, transformers = opened(name)
    model, class_name = made(name) if method == "lora" else made_otherwise(method, name)
    adapters.save(model, tmp_path / "adapter")
    expected = run(model, inputs(model))
    adapters.use(model, None)
    plain = run(model, inputs(model))
    adapters.remove(model)
    model.save_to_preset(tmp_path / "preset")
    base = getattr(transformers, class_name).from_pretrained(tmp_path / "preset").eval()
    assert relative_error(answer(torch, base, model), plain) < 1e-4
    tuned = theirs.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    assert relative_error(answer(torch, tuned, model), expected) < 1e-4 < 1e-2 < relative_error(plain, expected)


TARGETS = {"llama": ["q_proj", "down_proj"], "gpt2": ["c_attn", "c_proj"], "t5": "decoder.*(q|v)",
           "bert": ["query", "value"], "gptj": ["q_proj"]}  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_we_open_what_peft_writes(name, tmp_path):
    theirs, torch, transformers = opened(name)
    make, _, class_name = MODELS[name]
    model = randomise(make())
    model.save_to_preset(tmp_path / "preset")
    base = getattr(transformers, class_name).from_pretrained(tmp_path / "preset")
    kind = {"bert": "SEQ_CLS", "t5": "SEQ_2_SEQ_LM"}.get(name, "CAUSAL_LM")
    options = {"use_rslora": name == "llama", "fan_in_fan_out": name == "gpt2", "task_type": kind}
    config = theirs.LoraConfig(r=4, lora_alpha=12, target_modules=TARGETS[name], init_lora_weights=False, **options)
    torch.manual_seed(0)
    tuned = theirs.get_peft_model(base, config).eval()
    tuned.save_pretrained(tmp_path / "adapter")
    adapters.load(model, tmp_path / "adapter")
    assert relative_error(run(model, inputs(model)), answer(torch, tuned, model)) < 1e-4
    adapters.merge(model)
    assert relative_error(run(model, inputs(model)), answer(torch, tuned, model)) < 1e-4


@pytest.mark.parametrize(("method", "name"), OTHERWISE)
def test_we_open_what_peft_writes_of_other_methods(method, name, tmp_path):
    theirs, torch, transformers = opened(name)
    make, _, class_name = MODELS[name]
    model = randomise(make())
    model.save_to_preset(tmp_path / "preset")
    base = getattr(transformers, class_name).from_pretrained(tmp_path / "preset")
    kind = {"task_type": {"bert": "SEQ_CLS", "t5": "SEQ_2_SEQ_LM"}.get(name, "CAUSAL_LM")}
    if method == "ia3":
        config = theirs.IA3Config(init_ia3_weights=False, **kind)  # peft knows the layers of each family
    else:
        config = theirs.PromptTuningConfig(num_virtual_tokens=6, num_transformer_submodules=1, **kind)
    torch.manual_seed(0)
    tuned = theirs.get_peft_model(base, config).eval()
    tuned.save_pretrained(tmp_path / "adapter")
    adapters.load(model, tmp_path / "adapter")
    assert relative_error(run(model, inputs(model)), answer(torch, tuned, model)) < 1e-4


def opened(name):
    return pytest.importorskip("peft"), pytest.importorskip("torch"), pytest.importorskip("transformers")


def answer(torch, theirs, model):
    """The logits, or hidden states, of a model of theirs."""
    given = {"input_ids": torch.tensor(IDS).long(), "attention_mask": torch.ones(IDS.shape).long()}
    if isinstance(model, zoo.Seq2SeqLM):
        given["decoder_input_ids"] = torch.tensor(IDS[:, ::-1].copy()).long()
    with torch.no_grad():
        found = theirs(**given)
    found = (found.logits if hasattr(found, "logits") else found.last_hidden_state).numpy()
    return found if found.ndim < 3 else found[:, -IDS.shape[1] :]  # peft leaves virtual tokens in


def test_what_is_refused(tmp_path):
    model, _ = made("llama")
    adapters.save(model, tmp_path)
    with pytest.raises(ValueError, match="holds no adapter_config"):
        adapters.load(model, tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"The adapter is for model\.layers\.0\.mlp\.gate_proj"):
        adapters.load(lm("GPT"), tmp_path)
    with pytest.raises(ValueError, match="has 32 outputs, not those of"):
        adapters.load(lm("Llama", hidden_dim=16), tmp_path)
    for key, value in (("use_dora", True), ("peft_type", "ADALORA"), ("bias", "all")):
        config = read_json(tmp_path / files.CONFIG)
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other" / files.CONFIG).write_text(json.dumps({**config, key: value}))
        with pytest.raises(ValueError, match=f"{key}="):
            adapters.load(lm("Llama"), tmp_path / "other")
    model = lm("Llama")
    adapters.lora(model, train="norm/scale")
    with pytest.raises(ValueError, match="norm/scale is trained beside the adapter"):
        adapters.save(model, tmp_path)
