"""`tf_model.h5` and checkpoints of TensorFlow, under the names that their makers gave, against `transformers`."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import zoo
from tests.hub import Hub
from tests.models import relative_error, run
from tests.parity_cases import VOCABULARY, model_of
from tests.test_hub import RESOLVE
from tests.test_pretrained import assert_same, loaded
from zoo import pretrained
from zoo.tensorflow_files import TensorFlowFiles, read_config

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
TOLERANCE = 1e-5

# What transformers 4.48 wrote for the first layer: family, place in the file, and which of PyTorch's tensors is there
# and how, found by value and not by name.
RECORDED = [line.split("\t") for line in Path(__file__).with_name("tf_model_h5.tsv").read_text().splitlines()]
H5 = list(dict.fromkeys(row[0] for row in RECORDED))


def recorded(family, state):
    """Place in a tf_model.h5 -> array."""
    found, turns = {}, {"same": lambda x: x, "transposed": lambda x: x.T, "row": lambda x: x[None]}
    for _, place, name, turn in (row for row in RECORDED if row[0] == family):
        for i in range(4):
            of_layer = re.sub(r"\.0\.", f".{i}.", name, count=1)
            if of_layer in state:
                found[re.sub(r"(_\._|layers\.)0", rf"\g<1>{i}", place, count=1)] = turns[turn](state[of_layer])
    return found


def write_h5(path, arrays):
    import h5py

    with h5py.File(path, "w") as file:
        for place, array in arrays.items():
            file[place] = array


@pytest.fixture(scope="module")
def h5(tmp_path_factory):
    """family -> (a model, directories with its safetensors, its tf_model.h5 and its shards)."""
    made = {}

    def make(family):
        if family not in made:
            at, model = tmp_path_factory.mktemp(family), model_of(family)
            model.save_pretrained(at / "safe")
            arrays = recorded(family, {name: x.numpy() for name, x in model.state_dict().items()})
            for name in ("whole", "shards"):
                (at / name).mkdir()
                shutil.copy(at / "safe" / "config.json", at / name)
            write_h5(at / "whole" / "tf_model.h5", arrays)
            write_shards(at / "shards", arrays)
            made[family] = model, at
        return made[family]

    return make


def write_shards(directory, arrays):
    """As transformers does: without the layer's group, and without the model's name where no module is `model.…`."""
    names = {place.split("/", 1)[1]: place for place in arrays}
    weight_map = {name: f"tf_model-0000{1 + i % 2}-of-00002.h5" for i, name in enumerate(names)}
    for shard in set(weight_map.values()):
        held = {name: arrays[names[name]] for name in names if weight_map[name] == shard}
        write_h5(directory / shard, {n if "model." in n or "/" not in n else n.split("/", 1)[1]: x
                                     for n, x in held.items()})  # fmt: skip
    (directory / "tf_model.h5.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.mark.parametrize("family", H5)
def test_h5_holds_what_safetensors_hold(h5, family, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # it is not needed
    _, at = h5(family)
    expected = loaded(at / "safe")
    assert_same(loaded(at / "whole"), expected)
    assert_same(loaded(at / "shards"), expected)


TASKS = {"encoder": zoo.MaskedLM, "decoder": zoo.CausalLM, "encoder_decoder": zoo.Seq2SeqLM}


def compare(theirs, directory, task=None):
    """Our logits from a directory, and those of a model of `transformers`."""
    rng = np.random.default_rng(0)
    ids = rng.integers(3, VOCABULARY, (2, 12)).astype("int32")
    ours, inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids)}, {"input_ids": ids}
    if theirs.config.is_encoder_decoder:
        ours["decoder_token_ids"] = inputs["decoder_input_ids"] = ids[:, :7]
    task = task or TASKS[pretrained.read(directory)[1].architecture]
    model = task.from_preset(directory)
    with torch.no_grad():
        found = theirs(**{name: torch.tensor(x).long() for name, x in inputs.items()})
    kind = "last_hidden_state" if isinstance(model, zoo.Backbone) else "logits"
    kind = kind if kind in found else {"MaskedLM": "prediction_logits", "NextSentence": "seq_relationship_logits"}[
        task.__name__]  # fmt: skip
    assert relative_error(run(model, ours), found[kind].numpy()) < TOLERANCE


@pytest.mark.backends
@pytest.mark.parametrize("family", ["gpt2", "t5_v1_1"])
def test_h5_logits(h5, family):
    model, at = h5(family)
    compare(model, at / "whole")


def test_h5_is_downloaded_where_there_is_nothing_else(h5, tmp_path):
    _, at = h5("bert")
    server = Hub({"owner/h5": {"main": at / "whole"}, "owner/shards": {"main": at / "shards"}})
    for name in ("h5", "shards"):
        assert_same(loaded(server.run(tmp_path, RESOLVE, f"hf://owner/{name}")), loaded(at / "safe"))
    server.close()


def test_a_damaged_h5_is_an_error(h5, tmp_path):
    shutil.copytree(h5("bert")[1] / "whole", tmp_path, dirs_exist_ok=True)
    file = tmp_path / "tf_model.h5"
    whole = file.read_bytes()
    for size in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"tf_model\.h5"):
            loaded(tmp_path)


def test_an_h5_that_does_not_fit_names_what_differs(h5, tmp_path):
    at = tmp_path / "other"
    shutil.copytree(h5("bert")[1] / "whole", at)
    hf = json.loads((at / "config.json").read_text())
    (at / "config.json").write_text(json.dumps({**hf, "intermediate_size": 40}))
    with pytest.raises(ValueError, match=r"shapes that differ.*bert\.encoder\.layer\.0\.intermediate\.dense\.weight"):
        loaded(at)
    (at / "config.json").write_text(json.dumps({**hf, "num_hidden_layers": 1}))
    with pytest.raises(ValueError, match=r"not ours.*bert\.encoder\.layer\.1\."):
        loaded(at)


def test_an_h5_that_points_elsewhere_is_refused(tmp_path):
    import h5py

    (tmp_path / "secret").write_bytes(b"x" * 64)
    with h5py.File(tmp_path / "tf_model.h5", "w") as file:
        file.create_dataset("a/m/b/bias:0", (16,), "float32", external=[(str(tmp_path / "secret"), 0, 64)])
    with pytest.raises(ValueError, match=r"a/m/b/bias:0 in another file"):
        TensorFlowFiles(tmp_path)
    with h5py.File(tmp_path / "tf_model.h5", "w") as file:
        file["a"] = h5py.ExternalLink(str(tmp_path / "secret"), "b")
    assert not list(TensorFlowFiles(tmp_path))


# Names in the checkpoints of google-research/bert, /albert and /electra, and of Mesh TensorFlow; {} is a layer.
ENCODER = {f"encoder/layer_{{}}/{place}/{last}": f"encoder.layer.{{}}.{place.replace('/', '.')}.{theirs}"
           for place in ("attention/self/query", "attention/self/key", "attention/self/value",
                         "attention/output/dense", "intermediate/dense", "output/dense", "attention/output/LayerNorm",
                         "output/LayerNorm")
           for last, theirs in ((("gamma", "weight"), ("beta", "bias")) if place.endswith("LayerNorm")
                                else (("kernel", "weight"), ("bias", "bias")))}  # fmt: skip
EMBEDDINGS = {
    "embeddings/word_embeddings": "embeddings.word_embeddings.weight",
    "embeddings/position_embeddings": "embeddings.position_embeddings.weight",
    "embeddings/token_type_embeddings": "embeddings.token_type_embeddings.weight",
    "embeddings/LayerNorm/gamma": "embeddings.LayerNorm.weight",
    "embeddings/LayerNorm/beta": "embeddings.LayerNorm.bias",
}
BERT = {
    **{f"bert/{tf}": f"bert.{pt}" for tf, pt in (EMBEDDINGS | ENCODER).items()},
    "bert/pooler/dense/kernel": "bert.pooler.dense.weight",
    "bert/pooler/dense/bias": "bert.pooler.dense.bias",
    "cls/predictions/transform/dense/kernel": "cls.predictions.transform.dense.weight",
    "cls/predictions/transform/dense/bias": "cls.predictions.transform.dense.bias",
    "cls/predictions/transform/LayerNorm/gamma": "cls.predictions.transform.LayerNorm.weight",
    "cls/predictions/transform/LayerNorm/beta": "cls.predictions.transform.LayerNorm.bias",
    "cls/predictions/output_bias": "cls.predictions.bias",
    "cls/seq_relationship/output_weights": "cls.seq_relationship.weight",
    "cls/seq_relationship/output_bias": "cls.seq_relationship.bias",
}
INNER, LAYER = "bert/encoder/transformer/group_0/inner_group_0", "albert.encoder.albert_layer_groups.0.albert_layers.0"
ALBERT = {
    **{f"bert/{tf}": f"albert.{pt}" for tf, pt in EMBEDDINGS.items()},
    "bert/encoder/embedding_hidden_mapping_in/kernel": "albert.encoder.embedding_hidden_mapping_in.weight",
    "bert/encoder/embedding_hidden_mapping_in/bias": "albert.encoder.embedding_hidden_mapping_in.bias",
    **{f"{INNER}/{tf}/{last}": f"{LAYER}.{pt}.{'weight' if last == 'kernel' else last}"
       for tf, pt in {"attention_1/self/query": "attention.query", "attention_1/self/key": "attention.key",
                      "attention_1/self/value": "attention.value", "attention_1/output/dense": "attention.dense",
                      "ffn_1/intermediate/dense": "ffn", "ffn_1/intermediate/output/dense": "ffn_output"}.items()
       for last in ("kernel", "bias")},
    f"{INNER}/LayerNorm/gamma": f"{LAYER}.attention.LayerNorm.weight",
    f"{INNER}/LayerNorm/beta": f"{LAYER}.attention.LayerNorm.bias",
    f"{INNER}/LayerNorm_1/gamma": f"{LAYER}.full_layer_layer_norm.weight",
    f"{INNER}/LayerNorm_1/beta": f"{LAYER}.full_layer_layer_norm.bias",
    "bert/pooler/dense/kernel": "albert.pooler.weight",
    "bert/pooler/dense/bias": "albert.pooler.bias",
    "cls/predictions/transform/dense/kernel": "predictions.dense.weight",
    "cls/predictions/transform/dense/bias": "predictions.dense.bias",
    "cls/predictions/transform/LayerNorm/gamma": "predictions.LayerNorm.weight",
    "cls/predictions/transform/LayerNorm/beta": "predictions.LayerNorm.bias",
    "cls/predictions/output_bias": "predictions.bias",
    "cls/seq_relationship/output_weights": "sop_classifier.classifier.weight",
    "cls/seq_relationship/output_bias": "sop_classifier.classifier.bias",
}  # fmt: skip
ELECTRA = {
    **{f"electra/{tf}": f"electra.{pt}" for tf, pt in (EMBEDDINGS | ENCODER).items()},
    "electra/embeddings_project/kernel": "electra.embeddings_project.weight",
    "electra/embeddings_project/bias": "electra.embeddings_project.bias",
    "discriminator_predictions/dense/kernel": "discriminator_predictions.dense.weight",
    "discriminator_predictions/dense/bias": "discriminator_predictions.dense.bias",
    "discriminator_predictions/dense_1/kernel": "discriminator_predictions.dense_prediction.weight",
    "discriminator_predictions/dense_1/bias": "discriminator_predictions.dense_prediction.bias",
}
PIECES = [("encoder", 0, "SelfAttention", "qkvo"), ("decoder", 0, "SelfAttention", "qkvo"),
          ("decoder", 1, "EncDecAttention", "qkvo")]  # fmt: skip
T5 = {
    "shared/embedding": "shared.weight", "decoder/logits/kernel": "lm_head.weight",
    **{f"{stack}/block_{{:03}}/layer_00{i}/{name}/{letter}": f"{stack}.block.{{}}.layer.{i}.{name}.{letter}.weight"
       for stack, i, name, letters in PIECES for letter in letters},
    **{f"{stack}/block_{{:03}}/layer_00{i}/DenseReluDense/{w}/kernel":
       f"{stack}.block.{{}}.layer.{i}.DenseReluDense.{w}.weight"
       for stack, i in (("encoder", 1), ("decoder", 2)) for w in ("wi", "wi_0", "wi_1", "wo")},
    **{f"{stack}/block_{{:03}}/layer_00{i}/layer_norm/scale": f"{stack}.block.{{}}.layer.{i}.layer_norm.weight"
       for stack, count in (("encoder", 2), ("decoder", 3)) for i in range(count)},
    **{f"{stack}/{norm}/scale": f"{stack}.final_layer_norm.weight"
       for stack, norm in (("encoder", "final_layer_norm"), ("decoder", "rms_norm"))},
    **{f"{stack}/block_000/layer_000/SelfAttention/relative_attention_bias":
       f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight" for stack in ("encoder", "decoder")},
}  # fmt: skip
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
         "intermediate_size": 48, "max_position_embeddings": 40}  # fmt: skip
T5_SIZES = {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 6, "d_ff": 48, "num_layers": 2, "num_decoder_layers": 3,
            "num_heads": 4, "decoder_start_token_id": 0}  # fmt: skip
GIN = """# Macros:
d_ff = 48
d_kv = 6
num_heads = 4
dropout_rate = 0.0
decoder/DenseReluDense.activation = ACTIVATION
encoder/DenseReluDense.activation = ACTIVATION
encoder/DenseReluDense.hidden_size = %d_ff
decoder/EncDecAttention.relative_attention_type = None
decoder/LayerStack.sublayers_final = \\
[@transformer.sublayer_rms_norm, @transformer.sublayer_dropout]
decoder/SelfAttention.key_value_size = %d_kv
decoder/SelfAttention.num_heads = %num_heads
encoder/SelfAttention.num_heads = %num_heads
encoder/SelfAttention.relative_attention_num_buckets = 32
encoder/SelfAttention.relative_attention_type = 'bias_shared'
"""


def random(kind, config):
    torch.manual_seed(0)
    model = kind(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape) * 0.1
    return model


def write_checkpoint(prefix, model, names):
    """What a Saver of TensorFlow 1 writes of a model, its optimizer's slots with it."""
    tf = pytest.importorskip("tensorflow")
    state, arrays = {name: x.numpy() for name, x in model.state_dict().items()}, {}
    for name, theirs in ((n.format(i), t.format(i)) for n, t in names.items() for i in range(3)):
        if theirs in state:
            turned = re.search(r"kernel$|block_.*/([qkvo]|relative_attention_bias)$", name)
            arrays[name] = state[theirs].T if turned else state[theirs]
    slots = ("_slot_vr", "_slot_vc") if "shared/embedding" in arrays else ("/adam_m", "/adam_v")
    arrays |= {f"{name}{slot}": np.zeros_like(x) for name, x in [*arrays.items()] for slot in slots}
    arrays["global_step"] = np.int64(1000)
    tf.raw_ops.SaveV2(prefix=str(prefix), tensor_names=[*arrays], shape_and_slices=[""] * len(arrays),
                      tensors=[tf.constant(x) for x in arrays.values()])  # fmt: skip
    return arrays


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A BERT of `transformers`, and a directory with what Google published: no config.json, TensorFlow 1's names."""
    at = tmp_path_factory.mktemp("bert")
    model = random(transformers.BertForPreTraining, transformers.BertConfig(**SIZES))
    write_checkpoint(at / "bert_model.ckpt", model, BERT)
    (at / "bert_config.json").write_text(json.dumps({
        "attention_probs_dropout_prob": 0.1, "directionality": "bidi", "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1, "initializer_range": 0.02, "pooler_fc_size": 768, "type_vocab_size": 2, **SIZES,
    }))  # fmt: skip
    (at / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "to", "be", "or", "##s"]))
    return model, at


@pytest.mark.backends
def test_google_s_bert(bert):
    compare(*bert, zoo.MaskedLM)


def test_google_s_bert_as_other_models(bert, tmp_path):
    model, at = bert
    compare(model.bert, at, zoo.BERTBackbone)
    compare(model, at, zoo.NextSentence)
    masked = zoo.MaskedLM.from_preset(at)
    assert masked.tokenizer.encode("to be", "or") == [2, 5, 6, 3, 7, 3]
    masked.save_to_preset(tmp_path)
    assert_same(loaded(tmp_path), loaded(at))


def test_the_checkpoint_is_found_under_any_name(bert, tmp_path):
    expected = loaded(bert[1])
    for file in bert[1].iterdir():
        shutil.copy(file, tmp_path / file.name.replace("bert_model.ckpt", "model.ckpt-1000000"))
    assert_same(loaded(tmp_path), expected)
    for end in ("index", "data-00000-of-00001"):
        shutil.copy(tmp_path / f"model.ckpt-1000000.{end}", tmp_path / f"model.ckpt-5.{end}")
    with pytest.raises(ValueError, match=r"model\.ckpt-1000000\.index.*model\.ckpt-5\.index.*`checkpoint`"):
        loaded(tmp_path)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/made/there/model.ckpt-1000000"\n'
                                         'all_model_checkpoint_paths: "model.ckpt-5"\n')  # fmt: skip
    (tmp_path / "model.ckpt-5.index").write_bytes(b"not this one")
    assert_same(loaded(tmp_path), expected)


def test_damaged_checkpoints_are_errors(bert, tmp_path, monkeypatch):
    def damaged(change):
        shutil.copytree(bert[1], tmp_path / "it")
        change(tmp_path / "it" / "bert_model.ckpt.index", tmp_path / "it" / "bert_model.ckpt.data-00000-of-00001")
        with pytest.raises(ValueError, match=r"it.bert_model\.ckpt"):
            loaded(tmp_path / "it")
        shutil.rmtree(tmp_path / "it")

    def cut(path, size):
        path.write_bytes(path.read_bytes()[:size])

    def flip(path):
        content = bytearray(path.read_bytes())
        content[content.index(bert[0].bert.embeddings.word_embeddings.weight.detach().numpy().tobytes()) + 100] ^= 1
        path.write_bytes(content)

    damaged(lambda index, data: data.unlink())
    damaged(lambda index, data: data.rename(str(data).replace("of-00001", "of-00002")))
    damaged(lambda index, data: cut(data, data.stat().st_size - 4))
    damaged(lambda index, data: flip(data))
    damaged(lambda index, data: index.write_bytes(b""))
    damaged(lambda index, data: cut(index, 200))
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ImportError, match=r"bert_model\.ckpt\.index.*keras-zoo\[tensorflow\]"):
        loaded(bert[1])


def test_a_checkpoint_that_does_not_fit_names_what_differs(bert, tmp_path):
    tf = pytest.importorskip("tensorflow")
    shutil.copytree(bert[1], tmp_path, dirs_exist_ok=True)
    hf = json.loads((tmp_path / "bert_config.json").read_text())
    (tmp_path / "bert_config.json").write_text(json.dumps({**hf, "vocab_size": 90}))
    with pytest.raises(ValueError, match=r"bert\.embeddings\.word_embeddings\.weight \(96, 32\)"):
        loaded(tmp_path)
    (tmp_path / "bert_config.json").write_text(json.dumps({**hf, "hidden_act": "sigmoid"}))
    with pytest.raises(ValueError, match=r"bert_config\.json: hidden_act='sigmoid'"):
        loaded(tmp_path)
    (tmp_path / "bert_config.json").write_text(json.dumps(hf))
    tf.raw_ops.SaveV2(prefix=str(tmp_path / "bert_model.ckpt"), tensor_names=["model/wte"], shape_and_slices=[""],
                      tensors=[tf.zeros(10_000)])  # fmt: skip
    with pytest.raises(ValueError, match=r"bert_model\.ckpt\.index holds neither BERT.*model/wte"):
        loaded(tmp_path)


def test_google_s_bert_is_downloaded(bert, tmp_path):
    server = Hub({"owner/bert": {"main": bert[1]}})
    directory = server.run(tmp_path, RESOLVE, "hf://owner/bert")
    server.close()
    assert_same(loaded(directory), loaded(bert[1]))


@pytest.mark.parametrize("kind", ["albert", "electra"])
def test_google_s_albert_and_electra(kind, tmp_path):
    base, names = {"albert": ("Albert", ALBERT), "electra": ("Electra", ELECTRA)}[kind]
    config = getattr(transformers, f"{base}Config")(**SIZES, embedding_size=16)
    model = random(getattr(transformers, f"{base}ForPreTraining"), config)
    write_checkpoint(tmp_path / "model.ckpt-best", model, names)
    config.architectures = [type(model).__name__]
    hf = config.to_dict()
    if kind == "albert":  # as ALBERT's own file, which says less
        hf = {key: value for key, value in hf.items() if key not in ("model_type", "architectures")}
    (tmp_path / ("albert_config.json" if kind == "albert" else "config.json")).write_text(json.dumps(hf))
    compare(model, tmp_path, zoo.MaskedLM if kind == "albert" else zoo.ReplacedTokenDetector)


T5_KINDS = {
    "t5": ("'relu'", {}),
    "v1_1": ("['gelu', 'linear']", {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
}


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    """kind -> (a T5, a directory with what Mesh TensorFlow wrote of it)."""
    made = {}
    for kind, (activation, fields) in T5_KINDS.items():
        at = tmp_path_factory.mktemp(kind)
        model = random(transformers.T5ForConditionalGeneration, transformers.T5Config(**T5_SIZES, **fields))
        if fields:
            model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
        names = {tf: pt for tf, pt in T5.items() if fields or pt != "lm_head.weight"}
        write_checkpoint(at / "model.ckpt-1000000", model, names)
        (at / "operative_config.gin").write_text(GIN.replace("ACTIVATION", activation))
        made[kind] = model, at
    return made


@pytest.mark.parametrize("kind", T5_KINDS)
def test_t5_from_mesh_tensorflow(t5, kind):
    model, at = t5[kind]
    file, hf = read_config(at)
    wanted = model.config.to_dict()
    assert file == at / "operative_config.gin" and hf["dropout_rate"] == 0.0
    unlike = ("architectures", "dropout_rate", "tie_word_embeddings")  # the last is what scale_decoder_outputs says
    assert all(hf[key] == wanted[key] for key in hf if key not in unlike)
    compare(model, at)


def test_t5_without_a_gin_file_is_read_where_that_is_certain(t5, tmp_path):
    for kind in T5_KINDS:
        shutil.copytree(t5[kind][1], tmp_path / kind)
        (tmp_path / kind / "operative_config.gin").unlink()
    assert_same(loaded(tmp_path / "t5"), loaded(t5["t5"][1]))
    assert pretrained.resolve(tmp_path / "t5") == tmp_path / "t5"
    with pytest.raises(ValueError, match=r"DenseReluDense\.activation=\[\] for \['wi_0', 'wi_1'\]"):
        loaded(tmp_path / "v1_1")


def test_the_tokenizer_beside_a_gin_file_is_t5_s(t5, tmp_path):
    """What T5's code does with `spiece.model`: an end after each text, and 100 sentinels after the pieces."""
    sentencepiece = pytest.importorskip("sentencepiece")
    text = "a cat sat on the mat and the dog ran after it to the end of the road in the rain".split()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(text[i:] + text[:i]) for i in range(len(text))]), vocab_size=40, pad_id=0,
        model_prefix=str(tmp_path / "spiece"), eos_id=1, unk_id=2, bos_id=-1, minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    theirs = sentencepiece.SentencePieceProcessor(str(tmp_path / "spiece.model"))
    shutil.copy(t5["t5"][1] / "operative_config.gin", tmp_path)
    ours = zoo.Tokenizer.from_preset(tmp_path)
    assert ours.encode("the cat ran") == [*theirs.encode("the cat ran"), 1]
    assert ours.vocabulary_size == theirs.vocab_size() + 100


@pytest.mark.parametrize(("old", "new", "message"), [
    ("num_heads = 4", "num_heads = 8", "num_heads=4.*is 8"),
    ("= 32", "= 16", "buckets=32.*is 16"),
    ("'relu'", "['swish', 'linear']", "activation=.*'swish', 'linear'.* for .*'wi'"),
    ("'relu'", "'gelu'", "activation=.*'gelu'"),
    ("decoder/DenseReluDense.activation = 'relu'", "decoder/DenseReluDense.activation = 'gelu'", "only equal values"),
    ("bias_shared", "contextual", "relative_attention_type"),
    ("# Macros:", "SelfAttention.fold_scaling_into_initializer = False", "fold_scaling_into_initializer"),
])  # fmt: skip
def test_a_t5_that_its_gin_file_contradicts_is_refused(t5, tmp_path, old, new, message):
    shutil.copytree(t5["t5"][1], tmp_path, dirs_exist_ok=True)
    said = GIN.replace("ACTIVATION", "'relu'")
    assert old in said
    (tmp_path / "operative_config.gin").write_text(said.replace(old, new))
    with pytest.raises(ValueError, match=message):
        pretrained.read(tmp_path)
