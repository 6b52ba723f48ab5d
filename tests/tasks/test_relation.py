"""Relations: where the marks stand, that training tells them apart, and that presets come back."""

import keras
import numpy as np
import pytest

import zoo
from tests.models import run
from zoo.loading import weights

pytestmark = [
    pytest.mark.backends,
    pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="not tried on TensorFlow yet"),
]
TEXTS = ["Ada wrote the notes", "the notes were read by Alan"] * 4
HEADS, TAILS, LABELS = [(0, 3), (23, 27)] * 4, [(14, 19), (4, 9)] * 4, ["author", "reader"] * 4


@pytest.fixture(scope="module")
def model():
    tokenizer = zoo.Tokenizer.train([*TEXTS, "@ # @ #"], kind="wordpiece", vocabulary_size=120)
    keras.utils.set_random_seed(0)
    backbone = zoo.BERTBackbone(vocabulary_size=tokenizer.vocabulary_size, num_layers=1, num_heads=2, hidden_dim=16,
                                intermediate_dim=32, max_sequence_length=32, dropout=0.0)  # fmt: skip
    return zoo.RelationClassifier(backbone, tokenizer, labels=["author", "reader"])


def test_marks_stand_before_the_entities(model):
    x = model.inputs_of((TEXTS, HEADS, TAILS))
    said = [[model.tokenizer.id_to_token(i) for i in row] for row in x["token_ids"][:2]]
    assert [[row[i] for i in places] for row, places in zip(said, x["mask_positions"])] == [["@", "#"]] * 2
    assert model.tokenizer.decode(x["token_ids"][0]) == "@ Ada @ wrote the # notes #"
    assert model.tokenizer.decode(x["token_ids"][1]) == "the # notes # were read by @ Alan @"
    nested = model.inputs_of((["the notes by Ada"], [(0, 16)], [(13, 16)]))
    assert model.tokenizer.decode(nested["token_ids"][0]).startswith("@ the notes by # Ada ")


def test_logits_are_a_layer_on_both_states(model):
    x = model.inputs_of((TEXTS[:2], HEADS[:2], TAILS[:2]))
    states = run(model.backbone, {key: value for key, value in x.items() if key != "mask_positions"})
    pairs = np.concatenate([states[np.arange(2), x["mask_positions"][:, i]] for i in (0, 1)], axis=1)
    kernel, bias = (keras.ops.convert_to_numpy(weights(model)[f"head/out/{name}"]) for name in ("kernel", "bias"))
    np.testing.assert_allclose(run(model, x), pairs @ kernel + bias, atol=1e-5)


def test_fit_and_reload(model, tmp_path):
    model.compile(keras.optimizers.Adam(0.01))
    losses = model.fit((TEXTS, HEADS, TAILS), LABELS, batch_size=8, epochs=15, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    found = model.relate(TEXTS[0], HEADS[0], TAILS[0])
    assert max(found, key=found.get) == "author" and sum(found.values()) == pytest.approx(1, abs=1e-6)
    model.save_to_preset(tmp_path / "preset")
    assert zoo.RelationClassifier.from_preset(tmp_path / "preset").relate(TEXTS[0], HEADS[0], TAILS[0]) == found
    model.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").relate(TEXTS[0], HEADS[0], TAILS[0]) == found
    with pytest.warns(UserWarning, match="no weights for head/out/kernel"):
        zoo.RelationClassifier.from_preset(tmp_path / "preset", labels=["a", "b", "c"])


def test_refuses(model):
    with pytest.raises(ValueError, match=r"Text 0 has 19 characters, and an entity at \(14, 20\)"):
        model.fit((TEXTS[:1], HEADS[:1], [(14, 20)]), ["author"], verbose=0)
    with pytest.raises(ValueError, match="An entity of text 0 is beyond the 32 tokens"):
        model.predict((["a " * 40 + "b"], [(0, 1)], [(80, 81)]))
    with pytest.raises(ValueError, match="markers must be four texts"):
        zoo.RelationClassifier(model.backbone, model.tokenizer, num_classes=2, markers=("@", "#"))
