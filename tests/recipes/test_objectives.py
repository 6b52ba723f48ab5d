"""Ten steps of recipes/pretrain.py with each objective that is no family's default, all in this process."""

import importlib
import math
import sys

import pytest

from tests.recipes.conftest import ROOT, TINY
from zoo.training.reports import read_rows

RUNS = {  # objective and family: the task whose preset it leaves
    ("prefix_lm", "gpt2"): "CausalLM",
    ("prefix_lm", "t5"): "Seq2SeqLM",
    ("fill_in_the_middle", "llama"): "CausalLM",
    ("ul2", "t5"): "Seq2SeqLM",
    ("replaced_tokens", "electra"): "ReplacedTokenDetector",
    ("next_sentence", "bert"): "NextSentence",
    ("sentence_order", "roberta"): "TextClassifier",
    ("contrastive", "bert"): "TextEmbedder",
}


@pytest.fixture
def pretrain(monkeypatch, tmp_path, backend):
    """Runs the recipe's main with flags, in this process; all other flags have their defaults."""
    monkeypatch.syspath_prepend(ROOT / "recipes")
    recipe, common = (importlib.import_module(name) for name in ("pretrain", "common"))
    monkeypatch.setattr(common, "choose_backend", lambda: None)  # keras is there already
    monkeypatch.setattr(sys, "argv", ["pretrain"])
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    flags = [flag for name in ("pretrain", "common") for flag in recipe.FLAGS.flags_by_module_dict()[name]]

    def run(*arguments):
        for flag in flags:
            flag.unparse()
        recipe.FLAGS(["pretrain", f"--backend={backend}", *arguments])
        recipe.main()

    yield run
    for flag in flags:
        flag.unparse()


@pytest.mark.uncompiled
@pytest.mark.parametrize(("objective", "family"), RUNS)
def test_ten_steps(objective, family, pretrain, corpus, tmp_path, capsys):
    output = tmp_path / "run"
    size = [flag for flag in TINY if not flag.startswith(("--steps", "--learning_rate"))]
    pretrain(*size, f"--objective={objective}", f"--family={family}", f"--data={corpus}", "--split=blank",
             f"--output={output}", "--steps=10", "--learning_rate=1e-3")  # fmt: skip
    text, last = capsys.readouterr().out, read_rows(output / "metrics.csv")[-1]
    assert last["step"] == 10 and math.isfinite(last["loss"]) and 0 < last["val_loss"] < 7
    task = RUNS[objective, family]
    assert f"zoo.{task}.from_preset" in text
    assert ("held-out perplexity" in text) == (task in ("CausalLM", "Seq2SeqLM"))
    assert f"--objective={objective}" in (output / "run.cfg").read_text()
    import zoo

    model = getattr(zoo, task).from_preset(output / "preset")
    assert model.tokenizer.vocabulary_size <= model.config.vocabulary_size


def test_objectives_are_refused_where_no_task_learns_them(pretrain, tmp_path):
    refused = (("ul2", "gpt2", "causal_lm or prefix_lm"), ("next_sentence", "t5", "span_corruption or denoising"))
    for objective, family, usual in refused:
        with pytest.raises(ValueError, match=f"--objective={objective} does not fit {family}: use {usual}"):
            pretrain(f"--objective={objective}", f"--family={family}", f"--output={tmp_path / 'run'}")
    with pytest.raises(ValueError, match="Unknown --objective=permutation_lm"):
        pretrain("--objective=permutation_lm", f"--output={tmp_path / 'run'}")
