"""recipes/evaluate.py from the command line: its numbers are those of the models' own predictions."""

import json

import numpy as np
import pytest

import zoo

TEXTS = ["Return the value of a name.", "A list of names and values.", "The name of a list, and the value of the name."]
LABELS = ["value", "list", "value"]


@pytest.fixture(scope="module")
def presets(tmp_path_factory):
    """Presets of small random models, by task."""
    from tests.models import randomise

    tokenizer = zoo.Tokenizer.train(TEXTS, kind="wordpiece", vocabulary_size=120)
    size = {"vocabulary_size": tokenizer.vocabulary_size, "num_layers": 1, "num_heads": 2, "hidden_dim": 16,
            "intermediate_dim": 32, "max_sequence_length": 24, "pad_token_id": tokenizer.pad_id}  # fmt: skip
    made = {
        "CausalLM": zoo.CausalLM(zoo.GPTBackbone(**size), tokenizer),
        "MaskedLM": zoo.MaskedLM(zoo.BERTBackbone(**size), tokenizer),
        "TextClassifier": zoo.TextClassifier(zoo.BERTBackbone(**size), tokenizer, labels=["list", "value"]),
    }
    paths = {name: tmp_path_factory.mktemp("presets") / name for name in made}
    for name, model in made.items():
        randomise(model, scale=0.3).save_to_preset(paths[name])
    return paths


@pytest.mark.uncompiled
def test_the_perplexity_of_a_causal_model(presets, recipe, tmp_path):
    """In rows that overlap by one token every token but the first has been predicted, from what is in its row."""
    lm, text = zoo.CausalLM.from_preset(presets["CausalLM"]), " ".join(TEXTS)
    (tmp_path / "text.txt").write_text("\n".join([*TEXTS, text]) + "\n")
    flags = [f"--preset={presets['CausalLM']}", f"--data={tmp_path / 'text.txt'}", "--split=line",
             f"--output={tmp_path / 'out'}", "--sequence_length=16", "--samples=50"]  # fmt: skip
    shown = recipe("evaluate", "--task=perplexity", *flags).stdout
    ids = [lm.tokenizer.encode(one) for one in (*TEXTS, text)]
    rows = [row[start : start + 16] for row in ids for start in range(0, len(row) - 1, 15)]
    scores = np.concatenate([lm.log_likelihoods(*lm.prepare({"token_ids": np.array([row])}))[0] for row in rows])
    assert len(scores) == sum(map(len, ids)) - len(ids) and max(map(len, ids)) > 16
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["perplexity"]["value"] == pytest.approx(np.exp(-scores.mean()), rel=1e-4)
    size = sum(len(one.encode()) for one in (*TEXTS, text))
    assert found["bits_per_byte"]["value"] == pytest.approx(-scores.sum() / np.log(2) / size, rel=1e-4)
    assert found["examples"] == 4 and "perplexity" in shown
    records = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert [one["tokens"] for one in records] == [len(row) - 1 for row in ids]
    assert (tmp_path / "out" / "scores.png").read_bytes()[:4] == b"\x89PNG"
    again = recipe("evaluate", "--task=perplexity", *flags, check=False)
    assert again.returncode and "holds measures already" in again.stderr


def test_a_classifier_with_an_adapter(presets, recipe, tmp_path):
    model = zoo.TextClassifier.from_preset(presets["TextClassifier"])
    zoo.adapters.lora(model, rank=2)
    for v in model.trainable_variables:
        if v.path.endswith("/b"):
            v.assign(np.random.default_rng(0).normal(size=v.shape).astype("float32"))
    zoo.adapters.save(model, tmp_path / "adapter")
    rows = [f"{label}\t{text}" for label, text in zip(LABELS, TEXTS)]
    (tmp_path / "test.tsv").write_text("\n".join(["gold\treview", *rows]) + "\n")
    flags = [f"--preset={presets['TextClassifier']}", f"--data={tmp_path / 'test.tsv'}", f"--output={tmp_path / 'out'}",
             f"--adapter={tmp_path / 'adapter'}", "--columns=text=review,label=gold"]  # fmt: skip
    recipe("evaluate", *flags)
    found = model.classify(TEXTS)
    said = [max(row, key=row.get) for row in found]
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert lines == [{"input": x, "prediction": a, "reference": b} for x, a, b in zip(TEXTS, said, LABELS)]
    measured = json.loads((tmp_path / "out" / "metrics.json").read_text())
    wanted = zoo.metrics.classification(said, LABELS)
    assert {name: measured[name]["value"] for name in wanted} == wanted
    error = zoo.metrics.calibration_error(found, LABELS)
    assert measured["calibration_error"]["value"] == pytest.approx(error, abs=1e-5)
    assert (tmp_path / "out" / "confusion.png").exists()
    wrong = recipe("evaluate", *flags[:2], "--columns=text=review,label=stars", check=False)
    assert wrong.returncode and "no column 'stars', only 'gold', 'review'" in wrong.stderr


def test_what_is_refused(presets, recipe, tmp_path):
    (tmp_path / "text.txt").write_text("")
    for flags, message in (
        ([], "--preset is missing"),
        ([f"--preset={presets['MaskedLM']}", "--task=perplexity", f"--data={tmp_path / 'text.txt'}"], "holds no text"),
        (["--preset=a", "--data=b", "--measure=rouge"], "no --measure=rouge of classify"),
    ):
        done = recipe("evaluate", *flags, check=False)
        assert done.returncode and message in done.stderr and "Traceback" not in done.stderr
