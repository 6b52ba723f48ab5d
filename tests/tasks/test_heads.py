"""Every head of every family against `transformers`: outputs, weights both ways, labels, what is left at random."""

import json
import warnings

import keras
import numpy as np
import pytest

import zoo
from tests.models import relative_error, run
from tests.parity_cases import CASES, VOCABULARY
from zoo import families
from zoo.checkpoint import Checkpoint
from zoo.config import Config
from zoo.loading import weights

pytestmark = pytest.mark.backends
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TIME, TOLERANCE, NAMES = 10, 1e-5, ["low", "middle", "high"]
AUTO = {
    "TextClassifier": "AutoModelForSequenceClassification", "TokenClassifier": "AutoModelForTokenClassification",
    "QuestionAnswerer": "AutoModelForQuestionAnswering", "MultipleChoice": "AutoModelForMultipleChoice",
    "NextSentence": "AutoModelForNextSentencePrediction", "ReplacedTokenDetector": "AutoModelForPreTraining",
    "TextEmbedder": "AutoModel",
}  # fmt: skip


def first_cases():
    """One case of `CASES` for each family."""
    found = {}
    for name, build in CASES.items():
        found.setdefault(families.by_model_type(build()[1].model_type).name, name)
    return found


def kind_of_head(family, task):
    """What a head computes, whatever its weights are called."""
    config = families.by_name(family).read(CASES[CASE_OF[family]]()[1].to_dict())
    spec = families.by_name(family).heads(Config.from_dict(config)).get(task)
    return spec and (config["architecture"], spec.pool, bool(spec.dense), spec.activation, bool(spec.norm), spec.start)


CASE_OF = first_cases()
HEADS = [(family, task) for family in CASE_OF for task in families.by_name(family).architectures if task in AUTO]
if keras.backend.backend() != "torch":  # which compiles nothing, and takes all; the others one of a kind, and of a task
    KINDS, TASKS = ({key(*head): head for head in HEADS} for key in (kind_of_head, lambda family, task: task))
    HEADS = sorted({*KINDS.values(), *TASKS.values()})


def their_model(case, task, **changes):
    """A random model of `transformers` with the head of a task, in evaluation mode."""
    config = CASES[case]()[1]
    if config.pad_token_id is None:
        config.pad_token_id = 0
    if task in ("TextClassifier", "TokenClassifier"):
        config.id2label = dict(enumerate(NAMES))
        config.label2id = {name: i for i, name in enumerate(NAMES)}
    config.update(changes)
    torch.manual_seed(0)
    model = getattr(transformers, families.by_model_type(config.model_type).architectures[task])(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape) * 0.1
    return model


def batch(config, task):
    """Random inputs with padding, and ends of text where the head looks for them."""
    rng, shape = np.random.default_rng(0), (2, 3, TIME) if task == "MultipleChoice" else (2, TIME)
    ids, seen = rng.integers(3, VOCABULARY, shape).astype("int32"), np.ones(shape, "int32")
    seen[1, ..., 7:] = 0
    if config.is_encoder_decoder:
        ids[0, -1] = ids[1, 6] = config.eos_token_id
    ids[seen == 0] = config.pad_token_id
    return ids, seen


def outputs(model, task, ids, seen):
    """What `transformers` gives, in our shape."""
    with torch.no_grad():
        found = model(input_ids=torch.tensor(ids).long(), attention_mask=torch.tensor(seen).long())
    if task == "QuestionAnswerer":
        return torch.stack([found.start_logits, found.end_logits], dim=1).numpy()
    if task == "TextEmbedder":
        return found.last_hidden_state.numpy()
    return found.logits.numpy()


def visible(values, task, seen):
    """Outputs of padding are no matter."""
    if task == "TextEmbedder":
        return values if values.ndim == 2 else (values * seen[..., None]).sum(1) / seen.sum(1, keepdims=True)
    by_token = {"QuestionAnswerer": (0, 2, 1), "TokenClassifier": (0, 1, 2), "ReplacedTokenDetector": (0, 1)}
    return values.transpose(by_token[task])[seen > 0] if task in by_token else values


@pytest.fixture(scope="module", params=HEADS, ids=lambda p: f"{p[0]}-{p[1]}")
def pair(request, tmp_path_factory):
    """(their model, our task, its name)."""
    torch.set_num_threads(1)
    family, task = request.param
    theirs = their_model(CASE_OF[family], task)
    path = tmp_path_factory.mktemp("theirs") / family
    theirs.save_pretrained(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return theirs, getattr(zoo, task).from_preset(path), task


def test_outputs_equal(pair):
    theirs, ours, task = pair
    ids, seen = batch(theirs.config, task)
    expected = visible(outputs(theirs, task, ids, seen), task, seen)
    found = visible(run(ours, {"token_ids": ids, "padding_mask": seen}), task, seen)
    assert relative_error(found, expected) < TOLERANCE


def test_saved_model_opens_in_transformers(pair, tmp_path):
    theirs, ours, task = pair
    ours.save_to_preset(tmp_path)
    kind = type(theirs) if task == "TextEmbedder" else getattr(transformers, AUTO[task])  # AutoModel adds a decoder
    back = kind.from_pretrained(tmp_path).eval()
    assert type(back) is type(theirs)
    expected, found = theirs.state_dict(), back.state_dict()
    assert expected.keys() == found.keys()
    assert not [name for name in expected if not torch.equal(found[name], expected[name])]
    assert task not in ("TextClassifier", "TokenClassifier") or back.config.id2label == dict(enumerate(NAMES))
    ids, seen = batch(theirs.config, task)
    np.testing.assert_array_equal(outputs(back, task, ids, seen), outputs(theirs, task, ids, seen))


@pytest.mark.parametrize(("case", "task", "changes"), [
    ("modernbert", "TextClassifier", {"classifier_pooling": "mean"}),
    ("modernbert", "MultipleChoice", {"classifier_pooling": "mean"}),
    ("modernbert_biased", "TokenClassifier", {}),
    ("bert", "TextClassifier", {"classifier_dropout": 0.3}),
])  # fmt: skip
def test_keys_of_a_head(case, task, changes, tmp_path):
    """What config.json says of a head is computed, and said again."""
    theirs = their_model(case, task, **changes)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = getattr(zoo, task).from_preset(tmp_path / "theirs")
    ids, seen = batch(theirs.config, task)
    expected = visible(outputs(theirs, task, ids, seen), task, seen)
    found = visible(run(ours, {"token_ids": ids, "padding_mask": seen}), task, seen)
    assert relative_error(found, expected) < TOLERANCE
    ours.save_to_preset(tmp_path / "ours")
    said = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert {key: said[key] for key in changes} == changes


def test_labels_come_back(tmp_path):
    theirs = their_model("bert", "TextClassifier", problem_type="multi_label_classification")
    theirs.save_pretrained(tmp_path / "theirs")
    ours = zoo.TextClassifier.from_preset(tmp_path / "theirs")
    assert ours.id2label == dict(enumerate(NAMES)) and ours.problem_type == "multi_label_classification"
    ids, seen = batch(theirs.config, "TextClassifier")
    found = ours.classify({"token_ids": ids, "padding_mask": seen})
    expected = 1 / (1 + np.exp(-outputs(theirs, "TextClassifier", ids, seen)))
    np.testing.assert_allclose([[row[name] for name in NAMES] for row in found], expected, rtol=1e-4)
    with pytest.raises(ValueError, match=r"a head for 3 labels \(low, middle, high\), not for 2"):
        zoo.TextClassifier.from_preset(tmp_path / "theirs", num_classes=2)
    with pytest.raises(ValueError, match="another order: give low, middle, high, or none"):
        zoo.TextClassifier.from_preset(tmp_path / "theirs", labels=["high", "middle", "low"])
    with pytest.warns(UserWarning, match="labels low, middle, high, which are now called a, b, c"):
        zoo.TextClassifier.from_preset(tmp_path / "theirs", labels=["a", "b", "c"])


def test_new_heads_are_named(tmp_path):
    """What a checkpoint does not hold is warned of by name; a pooler that it holds is loaded."""
    config = CASES["bert"]()[1]
    torch.manual_seed(0)
    theirs = transformers.BertForPreTraining(config)
    theirs.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="no weights for head/out/kernel, head/out/bias: left at random"):
        ours = zoo.TextClassifier.from_preset(tmp_path, num_classes=4)
    pooler = theirs.bert.pooler.dense.weight.detach().numpy().T
    np.testing.assert_array_equal(weights(ours)["head/dense/kernel"].numpy(), pooler)
    assert 0.005 < np.std(weights(ours)["head/out/kernel"].numpy()) < 0.05
    zoo.NextSentence.from_preset(tmp_path)  # this head is there
    with pytest.raises(ValueError, match="made for another task, so TextClassifier needs num_classes"):
        zoo.TextClassifier.from_preset(tmp_path)
    zoo.MaskedLM.from_preset(tmp_path).save_to_preset(tmp_path / "mlm")
    assert not [name for name in Checkpoint(tmp_path / "mlm") if "pooler" in name or "seq_relationship" in name]
    transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "mlm")


def test_the_last_layer_of_another_task_is_not_taken(tmp_path):
    """Names and shapes of BERT's classifiers of texts and of tokens are the same, what they mean is not."""
    their_model("bert", "TextClassifier").save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="no weights for head/out/kernel"):
        zoo.TokenClassifier.from_preset(tmp_path, num_classes=3)


def test_a_vocabulary_head_gives_modernbert_its_dense_layer(tmp_path):
    kind, config = CASES["modernbert"]()
    theirs = kind(config)
    theirs.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="no weights for head/out/kernel, head/out/bias:"):
        ours = zoo.TextClassifier.from_preset(tmp_path, num_classes=2)
    dense = theirs.head.dense.weight.detach().numpy().T
    np.testing.assert_array_equal(weights(ours)["head/dense/kernel"].numpy(), dense)


@pytest.mark.parametrize(("key", "value", "message"), [
    ("id2label", {"0": "a", "2": "b"}, "does not number labels from 0 on"), ("id2label", [1], "id2label"),
    ("classifier_dropout", "high", "dropout of 'high'"),
])  # fmt: skip
def test_a_config_json_that_cannot_be_used(tmp_path, key, value, message):
    their_model("bert", "TextClassifier").save_pretrained(tmp_path)
    said = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**said, key: value}))
    with pytest.raises(ValueError, match=message) as error:
        zoo.TextClassifier.from_preset(tmp_path)
    assert "config.json" in str(error.value)


def test_a_summary_that_we_do_not_compute_is_refused(tmp_path):
    their_model("electra", "MultipleChoice", summary_activation="tanh").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="summary_activation='tanh' is not supported"):
        zoo.MultipleChoice.from_preset(tmp_path)
