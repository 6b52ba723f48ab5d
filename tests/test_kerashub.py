"""KerasHub's presets, read without it to what its models compute; what we do not compute, and damage, is refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import zoo

keras_hub = pytest.importorskip("keras_hub")
h5py = pytest.importorskip("h5py")
ROOT = Path(__file__).parents[1]
PLAIN = {"vocabulary_size": 40, "num_layers": 2, "num_heads": 4, "hidden_dim": 32, "intermediate_dim": 48}
LEARNED = {**PLAIN, "max_sequence_length": 16}
SIZES = {key: value for key, value in PLAIN.items() if key != "num_heads"}
GROUPED = {**SIZES, "num_query_heads": 4, "num_key_value_heads": 2}
GEMMA = {**GROUPED, "head_dim": 16}
SANDWICH = {**GEMMA, "use_post_ffw_norm": True, "use_post_attention_norm": True, "final_logit_soft_cap": 3.0,
            "use_sliding_window_attention": True, "sliding_window_size": 4}  # fmt: skip
LLAMA3 = {**GROUPED, "rope_max_wavelength": 500000, "rope_frequency_adjustment_factor": 8.0,
          "rope_low_freq_factor": 1.0, "rope_high_freq_factor": 4.0, "rope_pretraining_sequence_length": 8}  # fmt: skip
SU = {**GROUPED, "max_sequence_length": 64, "rope_scaling_type": "su",
      "rope_scaling_short_factor": [1.0, 1.1, 1.2, 1.3], "rope_scaling_long_factor": [2.0, 3.0, 4.0, 5.0]}  # fmt: skip
ELECTRA = {"vocab_size": 40, **{key: value for key, value in LEARNED.items() if key != "vocabulary_size"}}
SMOLLM3 = {
    **SIZES, "num_attention_heads": 4, "num_key_value_heads": 2, "attention_bias": True, "attention_dropout": 0.0,
    "rope_layer_enabled_list": [True, False], "layer_types": ["full_attention"] * 2, "mlp_bias": True,
    "layer_norm_epsilon": 1e-6, "max_position_embeddings": 32, "rope_theta": 1e4, "partial_rotary_factor": 1.0,
}  # fmt: skip
GELU_TANH = keras_hub.src.utils.keras_utils.gelu_approximate
BACKBONES = [  # class, its fields, ours
    pytest.param("GPT2", LEARNED, "GPTBackbone", marks=pytest.mark.backends),
    pytest.param("Llama", GROUPED, "LlamaBackbone", marks=pytest.mark.backends),
    ("OPT", LEARNED, "OPTBackbone"),
    ("Bloom", PLAIN, "BLOOMBackbone"),
    ("Falcon", {**SIZES, "num_attention_heads": 4}, "FalconBackbone"),
    ("GPTNeoX", {**LEARNED, "rotary_percentage": 0.5}, "GPTNeoXBackbone"),
    ("Llama", {**GROUPED, "tie_word_embeddings": True}, "LlamaBackbone"),
    ("Llama3", LLAMA3, "LlamaBackbone"),
    ("Mistral", {**GROUPED, "sliding_window": 4, "rope_scaling_factor": 2.0}, "MistralBackbone"),
    ("Qwen", GROUPED, "Qwen2Backbone"),
    ("Qwen", {**GROUPED, "use_sliding_window_attention": True, "sliding_window_size": 4, "tie_word_embeddings": False},
     "Qwen2Backbone"),
    ("Qwen3", {**GEMMA, "sliding_window_size": 4, "layer_norm_epsilon": 1e-5}, "Qwen3Backbone"),
    ("SmolLM3", SMOLLM3, "SmolLM3Backbone"),
    ("Gemma", GEMMA, "GemmaBackbone"),
    ("Gemma", {**SANDWICH, "attention_logit_soft_cap": 5.0}, "Gemma2Backbone"),
    ("Gemma3", {**SANDWICH, "num_layers": 6, "image_size": 8, "global_rope_scaling_factor": 8.0}, "Gemma3Backbone"),
    ("Phi3", GROUPED, "Phi3Backbone"),
    ("Phi3", {**SU, "pretraining_sequence_length": 32}, "Phi3Backbone"),
    ("Phi3", {**SU, "pretraining_sequence_length": 4}, "Phi3Backbone"),
    ("Bert", LEARNED, "BERTBackbone"),
    ("Roberta", LEARNED, "RoBERTaBackbone"),
    ("XLMRoberta", LEARNED, "XLMRoBERTaBackbone"),
    ("DistilBert", LEARNED, "DistilBERTBackbone"),
    ("Albert", {**LEARNED, "num_layers": 4, "num_groups": 2, "embedding_dim": 24}, "ALBERTBackbone"),
    ("Electra", {**ELECTRA, "embedding_dim": 24}, "ELECTRABackbone"),
    ("Electra", {**ELECTRA, "embedding_dim": 32}, "ELECTRABackbone"),
    ("DebertaV3", {**LEARNED, "bucket_size": 4}, "DeBERTaV3Backbone"),
    ("Bart", LEARNED, "BARTBackbone"),
    ("T5", {**PLAIN, "activation": "gelu", "key_value_dim": 4}, "T5Backbone"),
    ("T5", {**PLAIN, "activation": GELU_TANH, "tie_embedding_weights": False}, "T5Backbone"),
    ("T5", {**PLAIN, "use_gated_activation": False}, "T5Backbone"),
]  # fmt: skip


def randomise(model, seed=0):
    rng = np.random.default_rng(seed)
    for v in model.trainable_weights:
        v.assign(rng.normal(1.0 if v.path.endswith(("/gamma", "/scale")) else 0.0, 0.2, v.shape))
    return model


def build(name, fields):
    return randomise(getattr(keras_hub.models, f"{name}Backbone")(**fields))


def batch(model):
    """Ragged rows in our names and in theirs, and where to compare."""
    rng = np.random.default_rng(1)
    ids, others = rng.integers(4, 40, (3, 10)).astype("int32"), rng.integers(4, 40, (3, 8)).astype("int32")
    mask, other_mask = np.ones_like(ids), np.ones_like(others)
    mask[0, 7:], mask[1, 3:], other_mask[2, 5:] = 0, 0, 0
    ours, theirs = {"token_ids": ids, "padding_mask": mask}, {"token_ids": ids, "padding_mask": mask}
    if "encoder_token_ids" in model.input:
        ours |= {"decoder_token_ids": others, "decoder_padding_mask": other_mask}
        theirs = {"encoder_token_ids": ids, "encoder_padding_mask": mask, "decoder_token_ids": others,
                  "decoder_padding_mask": other_mask}  # fmt: skip
        return ours, theirs, other_mask > 0
    if "segment_ids" in model.input:
        ours["token_type_ids"] = theirs["segment_ids"] = ids % 2
    return ours, theirs, mask > 0


def array(x):
    from keras import ops

    return ops.convert_to_numpy(x)


def run(model, inputs):
    """Compiled, which takes less time than a hundred small compilations; the decoder's states of an encoder-decoder."""
    y = model.predict_on_batch(inputs)
    return y.get("decoder_sequence_output", y.get("sequence_output")) if isinstance(y, dict) else y


def error(x, y, where=...):
    """The largest difference, relative to the largest value."""
    return np.abs(x - y)[where].max() / np.abs(y[where]).max()


@pytest.fixture(autouse=True)
def windows(monkeypatch):
    """Their fused attention, which JAX and PyTorch take, forgets the window of Qwen; the other path has it."""
    for name in ("qwen", "qwen3"):
        module = sys.modules[f"keras_hub.src.models.{name}.{name}_attention"]
        monkeypatch.setattr(module, "fused_attention_op_available", lambda: False)


@pytest.mark.parametrize("name, fields, ours", BACKBONES)
def test_states_are_theirs(tmp_path, name, fields, ours):
    theirs = build(name, fields)
    theirs.save_to_preset(tmp_path)
    model = zoo.Backbone.from_preset(tmp_path)
    assert type(model).__name__ == ours
    inputs, their_inputs, where = batch(theirs)
    assert error(run(model, inputs), run(theirs, their_inputs), where) < 1e-5


@pytest.mark.parametrize("name, fields", [
    ("GPT2", LEARNED), ("Llama", GROUPED), ("Gemma", SANDWICH), ("Llama", {**GROUPED, "tie_word_embeddings": True}),
])  # fmt: skip
def test_logits_are_theirs(tmp_path, name, fields):
    """Tied, with a kernel of its own, with a soft cap, and tied where the file alone shows it, as Llama's does."""
    backbone = build(name, fields)
    theirs = getattr(keras_hub.models, f"{name}CausalLM")(backbone)
    theirs.save_to_preset(tmp_path)
    inputs, their_inputs, where = batch(theirs)
    model = zoo.CausalLM.from_preset(tmp_path)
    assert error(run(model, inputs), run(theirs, their_inputs), where) < 1e-5


def test_bart_decodes_with_its_embeddings(tmp_path):
    theirs = keras_hub.models.BartSeq2SeqLM(build("Bart", LEARNED))
    theirs.save_to_preset(tmp_path)
    inputs, their_inputs, where = batch(theirs)
    model = zoo.Seq2SeqLM.from_preset(tmp_path)
    assert error(run(model, inputs), run(theirs, their_inputs), where) < 1e-5


def test_masked_lm_head(tmp_path):
    theirs = randomise(keras_hub.models.RobertaMaskedLM(build("Roberta", LEARNED)))
    theirs.save_to_preset(tmp_path)
    inputs, their_inputs, _ = batch(theirs)
    places = np.array([[1, 3], [0, 2], [4, 9]], "int32")
    model, logits = zoo.MaskedLM.from_preset(tmp_path), run(theirs, {**their_inputs, "mask_positions": places})
    assert error(run(model, {**inputs, "mask_positions": places}), logits) < 1e-5


@pytest.mark.parametrize("name", ["Bert", "Roberta", "DistilBert", "Albert", "DebertaV3"])
def test_text_classifier(tmp_path, name):
    narrow = {"embedding_dim": 24} if name == "Albert" else {}
    theirs = getattr(keras_hub.models, f"{name}TextClassifier")(build(name, {**LEARNED, **narrow}), num_classes=3)
    randomise(theirs).save_to_preset(tmp_path)
    inputs, their_inputs, _ = batch(theirs)
    model = zoo.TextClassifier.from_preset(tmp_path)
    assert len(model.labels) == 3
    assert error(run(model, inputs), run(theirs, their_inputs)) < 1e-5


def test_a_head_that_is_not_there_is_named(tmp_path):
    build("Roberta", LEARNED).save_to_preset(tmp_path)
    with pytest.warns(UserWarning, match=r"head/transform/kernel.*left at random"):
        zoo.MaskedLM.from_preset(tmp_path)


def test_a_head_that_computes_something_else_is_refused(tmp_path):
    keras_hub.models.BertMaskedLM(build("Bert", LEARNED)).save_to_preset(tmp_path)
    with pytest.raises(ValueError, match=r"BertMaskedLM cannot be read: .*epsilon of 1e-5 and an exact gelu"):
        zoo.MaskedLM.from_preset(tmp_path)
    zoo.Backbone.from_preset(tmp_path)


@pytest.mark.parametrize("name, auto", [("GPT2", "AutoModelForCausalLM"), ("Roberta", "AutoModelForMaskedLM")])
def test_what_is_read_opens_in_transformers(tmp_path, name, auto):
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    task = {"GPT2": "CausalLM", "Roberta": "MaskedLM"}[name]
    theirs = getattr(keras_hub.models, f"{name}{task}")(build(name, LEARNED))
    theirs.save_to_preset(tmp_path / "theirs")
    inputs, _, where = batch(theirs)
    model = getattr(zoo, task).from_preset(tmp_path / "theirs")
    model.save_to_preset(tmp_path / "ours")
    peer = getattr(transformers, auto).from_pretrained(tmp_path / "ours").eval()
    ids, mask = (torch.tensor(inputs[key]).long() for key in ("token_ids", "padding_mask"))
    with torch.no_grad():
        logits = peer(input_ids=ids, attention_mask=mask).logits.numpy()
    assert error(run(model, inputs), logits, where) < 1e-5


def test_numbers_of_two_bytes_and_shards(tmp_path):
    theirs = build("GPT2", {**LEARNED, "dtype": "bfloat16"})
    theirs.save_to_preset(tmp_path / "whole")
    theirs.save_to_preset(tmp_path / "shards", max_shard_size=1e-5)
    assert len(list((tmp_path / "shards").glob("model_*.weights.h5"))) > 2
    for directory in (tmp_path / "whole", tmp_path / "shards"):
        held = zoo.Backbone.from_preset(directory)
        values = {v.path.split("/", 1)[1]: array(v.value) for v in held.variables}
        kernel = array(theirs.transformer_layers[1]._feedforward_output_dense.kernel.value.astype("float32"))
        assert np.array_equal(values["decoder/block_1/mlp/down/kernel"], kernel)
        assert np.array_equal(values["token/embeddings"], array(theirs.token_embedding.embeddings).astype("float32"))


def test_without_keras_hub(tmp_path):
    """In a process where importing it, or TensorFlow, is an error."""
    theirs = keras_hub.models.GPT2CausalLM(build("GPT2", LEARNED))
    theirs.save_to_preset(tmp_path)
    inputs, their_inputs, where = batch(theirs)
    np.savez(tmp_path / "x.npz", **inputs, logits=run(theirs, their_inputs), where=where)
    code = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("keras_hub", "tensorflow", "tensorflow_text"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
import numpy as np, zoo
x = dict(np.load(sys.argv[1] + "/x.npz"))
logits, where = x.pop("logits"), x.pop("where")
found = np.asarray(zoo.CausalLM.from_preset(sys.argv[1])(x))
print("error", np.abs(found - logits)[where].max() / np.abs(logits[where]).max())
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True,
                          timeout=300, env={**os.environ, "KERAS_BACKEND": "jax"})  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout.split("error")[1]) < 1e-5


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    path = tmp_path_factory.mktemp("kerashub") / "gpt2"
    build("GPT2", LEARNED).save_to_preset(path)
    return path


def changed(preset, target, change, file="config.json"):
    """A copy whose JSON file was changed."""
    shutil.copytree(preset, target)
    content = json.loads((target / file).read_text())
    change(content)
    (target / file).write_text(json.dumps(content))
    return target


@pytest.mark.parametrize("name, field, value, message", [
    ("GPT2", "num_experts", 8, "GPT2Backbone: the field num_experts=8 is not known"),
    ("GPT2", "num_segments", 2, "GPT2Backbone: the field num_segments=2 is not known"),
    ("GPT2", "hidden_dim", "32", "hidden_dim must be a positive integer"),
    ("GPT2", "vocabulary_size", 10**9, "needs more weights than"),
    ("GPT2", "dtype", {"class_name": "QuantizedDTypePolicy"}, "is quantised"),
    ("Llama", "rope_position_scaling_factor", 2.0, r"LlamaBackbone: rope_position_scaling_factor=2.0 is not supported"),
    ("Llama", "rope_low_freq_factor", 1.0, "LlamaBackbone: rope_frequency_adjustment_factor.* need each other"),
    ("Falcon", "layer_norm_epsilon", 1e-6, "FalconBackbone: layer_norm_epsilon=1e-06 is not supported"),
    ("Gemma", "use_post_ffw_norm", True, "GemmaBackbone: use_post_ffw_norm and use_post_attention_norm must agree"),
    ("Gemma", "query_head_dim_normalize", False, "GemmaBackbone: query_head_dim_normalize=False is not supported"),
    ("Gemma3", "use_bidirectional_attention", True, "Gemma3Backbone: use_bidirectional_attention=True is not"),
    ("Gemma3", "vision_encoder", {}, "Gemma3Backbone: vision_encoder={} is not supported"),
    ("Albert", "num_inner_repetitions", 2, "AlbertBackbone: num_inner_repetitions=2 is not supported"),
    ("Albert", "embedding_dim", 32, "AlbertBackbone: embedding_dim=32 must differ"),
    ("Phi3", "rope_scaling_type", "yarn", "Phi3Backbone: rope_scaling_type='yarn' is not supported"),
    ("SmolLM3", "layer_types", ["sliding_attention"], "SmolLM3Backbone: layer_types with .* are not supported"),
    ("T5", "activation", "mish", "T5Backbone: activation='mish' is not supported"),
])  # fmt: skip
def test_fields_that_we_do_not_compute_are_refused(tmp_path, name, field, value, message):
    fields = {
        "GPT2": LEARNED, "Llama": GROUPED, "Falcon": {**SIZES, "num_attention_heads": 4}, "Gemma": GEMMA,
        "Gemma3": SANDWICH, "Albert": {**LEARNED, "embedding_dim": 24}, "Phi3": GROUPED, "SmolLM3": SMOLLM3,
        "T5": PLAIN,
    }[name]  # fmt: skip
    config = {"registered_name": f"keras_hub>{name}Backbone", "config": {**fields, field: value}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message) as found:
        zoo.Backbone.from_preset(tmp_path, load_weights=field == "vocabulary_size")
    assert str(tmp_path / "config.json") in str(found.value)


@pytest.mark.parametrize("content, message", [
    ({"registered_name": "keras_hub>MixtralBackbone"}, "'keras_hub>MixtralBackbone' is no class"),
    ({"registered_name": "os>system"}, "'os>system' is no class"),
    ({"registered_name": ["keras_hub>GPT2Backbone"]}, "is no class"),
    ({"registered_name": "keras_hub>GPT2Backbone", "config": None}, "There is no config of"),
    ({"registered_name": "keras_hub>GPT2Backbone", "config": {}}, "there is no 'vocabulary_size'"),
])  # fmt: skip
def test_classes_are_names(tmp_path, content, message):
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        zoo.Backbone.from_preset(tmp_path)


EMBEDDINGS = "layers/reversible_embedding/vars/0"


def truncated(path):
    held = path.read_bytes()
    path.write_bytes(held[: len(held) // 2])


def edited(change):
    def damage(path):
        with h5py.File(path, "a") as file:
            change(file, path)

    return damage


def replaced(*args, **kwargs):
    def change(file, _):
        del file[EMBEDDINGS]
        file.create_dataset(EMBEDDINGS, *args, **kwargs)

    return edited(change)


def linked(make):
    """The embeddings are a link to what `make` gives of the path of another whole file."""

    def change(file, path):
        del file[EMBEDDINGS]
        file[EMBEDDINGS] = make(str(path.with_name("other.h5")))

    return edited(change)


def virtual(file, path):
    del file[EMBEDDINGS]
    layout = h5py.VirtualLayout(shape=(40, 32), dtype="float32")
    layout[:] = h5py.VirtualSource(str(path.with_name("other.h5")), EMBEDDINGS, shape=(40, 32))
    file.create_virtual_dataset(EMBEDDINGS, layout)


def external(file, path):
    del file[EMBEDDINGS]
    raw = path.with_name("raw")
    raw.write_bytes(bytes(40 * 32 * 4))
    file.create_dataset(EMBEDDINGS, (40, 32), "float32", external=[(str(raw), 0, 40 * 32 * 4)])


def circular(file, _):
    file["layers/again"] = file["layers"]


def removed(file, _):
    del file[EMBEDDINGS]


def added(file, _):
    file["layers/dense/vars/0"] = np.zeros((3, 3), "float32")


@pytest.mark.parametrize("damage, message", [
    (truncated, "is not a whole file of weights"),
    (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64)), "is not a whole file of weights"),
    (lambda path: path.write_text("{}"), "is not a whole file of weights"),
    (edited(removed), "token/embeddings"),
    (edited(added), "in the checkpoint, not ours .*layers/dense/vars/0"),
    (replaced(data=np.zeros((39, 32), "float32")), r"token/embeddings \(40, 32\), but .*\(39, 32\)"),
    (replaced(data=np.zeros((40, 32), "int32")), "no plain floating-point numbers"),
    (replaced(data=np.zeros((40, 32), "V2")), "no plain floating-point numbers"),
    (replaced((10**9, 10**6), "float32"), "needs .* bytes, but 0 are stored"),
    (replaced((40, 32), "float32", chunks=(8, 8), compression="gzip"), "needs 5120 bytes, but 0 are stored"),
    (replaced(shape=None, dtype="float32"), "of shape None"),
    (linked(lambda other: h5py.ExternalLink(other, EMBEDDINGS)), "is a link to elsewhere"),
    (linked(lambda other: h5py.SoftLink("/layers/position_embedding/vars/0")), "is a link to elsewhere"),
    (edited(virtual), "keeps its numbers in another file"),
    (edited(external), "keeps its numbers in another file"),
    (edited(circular), "is stored under another name too"),
])  # fmt: skip
def test_damaged_weights_are_refused(tmp_path, preset, damage, message):
    shutil.copytree(preset, tmp_path / "preset")
    path = tmp_path / "preset" / "model.weights.h5"
    shutil.copyfile(path, path.with_name("other.h5"))
    damage(path)
    with pytest.raises(ValueError, match=message) as found:
        zoo.Backbone.from_preset(path.parent)
    assert str(path.parent) in str(found.value)


@pytest.mark.parametrize("shard, message", [
    ("../model_0.weights.h5", "only weight files beside the index are read"),
    ("model.keras", "only weight files beside the index are read"),
    (7, "only weight files beside the index are read"),
    ("model_0.weights.h5", "which is missing"),
])  # fmt: skip
def test_an_index_stays_in_its_directory(tmp_path, preset, shard, message):
    shutil.copytree(preset, tmp_path / "preset")
    (tmp_path / "preset" / "model.weights.h5").rename(tmp_path / "preset" / "aside.h5")
    (tmp_path / "preset" / "model.weights.json").write_text(json.dumps({"weight_map": {"/layers": [shard]}}))
    with pytest.raises(ValueError, match=message):
        zoo.Backbone.from_preset(tmp_path / "preset")


TEXT = "the cat sat on the mat, and it's 12 dogs' day!\nTwo lines."


def test_wordpiece_gives_their_ids(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "on", "ma", "##t", ",", "!"]
    for lowercase in (True, False):
        theirs = keras_hub.models.BertTokenizer(vocabulary=words, lowercase=lowercase)
        theirs.save_to_preset(tmp_path)
        tokenizer = zoo.Tokenizer.from_preset(tmp_path)
        for text in (TEXT, TEXT.upper()):
            assert tokenizer.encode(text) == [2, *map(int, theirs(text)), 3]


@pytest.mark.parametrize("name, special, start, end", [
    ("GPT2", ["<|endoftext|>"], ["<|endoftext|>"], []),
    ("Roberta", ["<s>", "</s>", "<pad>", "<mask>"], ["<s>"], ["</s>"]),
])  # fmt: skip
def test_byte_pairs_give_their_ids(tmp_path, name, special, start, end):
    zoo.Tokenizer.train([TEXT] * 20, kind="bpe", vocabulary_size=290).save(tmp_path / "trained")
    model = json.loads((tmp_path / "trained" / "tokenizer.json").read_text())["model"]
    vocabulary = dict(model["vocab"])
    for token in special:
        vocabulary.setdefault(token, len(vocabulary))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    theirs = getattr(keras_hub.models, f"{name}Tokenizer")(vocabulary=vocabulary, merges=merges)
    theirs.save_to_preset(tmp_path / "preset")
    tokenizer = zoo.Tokenizer.from_preset(tmp_path / "preset")
    ids = [int(i) for i in theirs(TEXT)]
    assert tokenizer.encode(TEXT, add_special_tokens=False) == ids
    assert tokenizer.encode(TEXT) == [*map(vocabulary.get, start), *ids, *map(vocabulary.get, end)]


def test_a_tokenizer_that_is_not_read(tmp_path, preset):
    shutil.copytree(preset, tmp_path / "preset")
    file, config = tmp_path / "preset" / "tokenizer.json", {"registered_name": "keras_hub>BloomTokenizer", "config": {}}
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="BloomTokenizer alone does not say how to cut a text"):
        zoo.Tokenizer.from_preset(tmp_path / "preset")
    assert zoo.CausalLM.from_preset(tmp_path / "preset").tokenizer is None


def test_links_out_of_a_preset_are_refused(tmp_path, preset):
    shutil.copytree(preset, tmp_path / "preset")
    (tmp_path / "preset" / "model.weights.h5").rename(tmp_path / "weights")
    (tmp_path / "preset" / "model.weights.h5").symlink_to(tmp_path / "weights")
    with pytest.raises(ValueError, match="outside its directory"):
        zoo.Backbone.from_preset(tmp_path / "preset")
