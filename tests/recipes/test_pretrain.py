"""recipes/pretrain.py from the command line: what it leaves behind, what it resumes, what it refuses."""

import math
import os
import re
import shutil
import signal
import time

import numpy as np
import pytest

from tests.models import parameters
from tests.recipes.conftest import TINY
from zoo.checkpoint import Checkpoint
from zoo.training.reports import read_rows

FAMILIES = {  # family: the task it is trained for, its class in transformers
    "gpt2": ("CausalLM", "GPT2LMHeadModel"),
    "llama": ("CausalLM", "LlamaForCausalLM"),
    "bert": ("MaskedLM", "BertForMaskedLM"),
    "roberta": ("MaskedLM", "RobertaForMaskedLM"),
    "t5": ("Seq2SeqLM", "T5ForConditionalGeneration"),
    "bart": ("Seq2SeqLM", "BartForConditionalGeneration"),
}
OF_EACH = parameters(FAMILIES, ["gpt2"] if os.environ["KERAS_BACKEND"] == "tensorflow" else ["gpt2", "bert"])


def perplexities(text):
    found = re.search(r"^held-out perplexity (\S+), of a unigram model (\S+)$", text, re.MULTILINE)
    return float(found[1]), float(found[2])


def state(output, step):
    stored = Checkpoint(output / "checkpoints" / f"{step:09d}")
    return {name: stored.read(name) for name in stored}


def assert_same_state(ours, theirs, exact):
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], rtol=0, atol=0 if exact else 1e-6, err_msg=name)


@pytest.mark.backends
@pytest.mark.parametrize("family", OF_EACH)
def test_a_run_of_each_family(family, pretrained, backend):
    output, text = pretrained(family)
    rows = read_rows(output / "metrics.csv")
    steps = rows[-1]["step"]
    assert [row["step"] for row in rows] == [1, *range(10, steps + 1, 10)]
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.15
    validated = {row["step"]: row["val_loss"] for row in rows if row["val_loss"] is not None}
    assert [*validated] == [steps // 2, steps] and all(row["tokens_per_second"] > 0 for row in rows[1:])
    assert math.exp(validated[steps]) == pytest.approx(perplexities(text)[0], abs=0.01)
    assert rows[-1]["learning_rate"] == 0 and max(row["learning_rate"] for row in rows) <= 1e-2
    assert (output / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(os.listdir(output / "checkpoints")) == [f"{n:09d}" for n in (steps // 2, steps)]
    assert f"--backend={backend}" in (output / "run.cfg").read_text()
    assert f"zoo.{FAMILIES[family][0]}.from_preset({str(output / 'preset')!r})" in text


@pytest.mark.backends
def test_gpt_beats_the_unigram_model(pretrained):
    perplexity, unigram = perplexities(pretrained("gpt2")[1])
    assert perplexity < 0.8 * unigram


@pytest.mark.parametrize("family", OF_EACH)
def test_the_preset_opens_in_transformers(family, pretrained):
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    task, architecture = FAMILIES[family]
    preset = pretrained(family)[0] / "preset"
    theirs = getattr(transformers, architecture).from_pretrained(preset).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(preset)
    x = dict(tokenizer("The value of a name", return_tensors="pt"))
    x = {name: x[name] for name in ("input_ids", "attention_mask")}
    inputs = {"token_ids": x["input_ids"].numpy().astype("int32")}
    if family in ("t5", "bart"):
        inputs["decoder_token_ids"], x["decoder_input_ids"] = inputs["token_ids"], x["input_ids"]
    import keras

    import zoo

    ours = keras.ops.convert_to_numpy(getattr(zoo, task).from_preset(preset)(inputs))
    with torch.no_grad():
        np.testing.assert_allclose(ours, theirs(**x).logits.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.backends
def test_a_resumed_run_ends_in_the_same_state(pretrained, recipe, tmp_path, backend):
    output, text = pretrained("gpt2")
    again, steps = tmp_path / "again", read_rows(output / "metrics.csv")[-1]["step"]
    shutil.copytree(output, again)
    shutil.rmtree(again / "preset")
    weights = again / "checkpoints" / f"{steps:09d}" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])  # so the run goes on from the one before
    resumed = recipe("pretrain", f"--output={again}", "--resume", KERAS_BACKEND=backend)
    assert f"{steps:09d} is damaged" in resumed.stderr and f"{steps // 2} steps are done" in resumed.stdout
    assert_same_state(state(again, steps), state(output, steps), exact=backend == "jax")
    assert perplexities(resumed.stdout) == pytest.approx(perplexities(text), abs=0.01)
    rows, whole = read_rows(again / "metrics.csv"), read_rows(output / "metrics.csv")
    assert [row["step"] for row in rows] == sorted([steps // 2 + 1, *(row["step"] for row in whole)])
    assert [row for row in rows if row["step"] <= steps // 2] == [row for row in whole if row["step"] <= steps // 2]
    assert (again / "preset" / "model.safetensors").is_file()


def test_run_cfg_makes_the_same_run(pretrained, recipe, tmp_path):
    output, _ = pretrained("bert")
    recipe("pretrain", f"--flagfile={output / 'run.cfg'}", f"--output={tmp_path / 'run'}")
    assert_same_state(state(tmp_path / "run", 20), state(output, 20), exact=True)
    ours, theirs = ((path / "run.cfg").read_text().splitlines()[1:] for path in (tmp_path / "run", output))
    assert [a for a, b in zip(ours, theirs, strict=True) if a != b] == [f"--output={tmp_path / 'run'}"]


@pytest.mark.uncompiled
def test_a_mixture_says_how_many_rows_each_source_gave(recipe, corpus, tmp_path):
    """By weight, exactly; and a run that is resumed goes on with the same mixture."""
    paragraphs = corpus.read_text(encoding="utf-8").split("\n\n")
    for name, part in (("a", paragraphs[::2]), ("b", paragraphs[1::2])):
        (tmp_path / f"{name}.txt").write_text("\n\n".join(part), encoding="utf-8")
    flags = [f"--mixture=a={tmp_path}/a.txt=3", f"--mixture=b={tmp_path}/b.txt=1", "--split=blank", *TINY]
    done = recipe("pretrain", *flags, f"--output={tmp_path}/run")
    rows = re.search(r"^rows of each source: a (\d+), b (\d+)$", done.stdout, re.MULTILINE)
    assert int(rows[1]) + int(rows[2]) == 80 and 45 <= int(rows[1]) <= 74  # 60 expected, within 4 standard deviations
    unigram = perplexities(done.stdout)[1]
    again = recipe("pretrain", f"--output={tmp_path}/run", "--resume", "--steps=24")
    assert "rows of each source" in again.stdout and perplexities(again.stdout)[1] == unigram


REFUSED = {
    "unknown flag": (["--leraning_rate=1"], "leraning_rate"),
    "stray word": (["gpt2"], "'gpt2' is no flag"),
    "unknown family": (["--family=gpt3"], "Unknown family 'gpt3': did you mean gptj or gpt2"),
    "unknown objective": (["--objective=nsp"], "Unknown --objective=nsp; known are causal_lm"),
    "objective of another shape": (["--family=bert", "--objective=causal_lm"], "does not fit bert"),
    "missing file": (["--data=no/such/file.txt"], "'no/such/file.txt'"),
    "heads": (["--hidden_dim=100", "--num_heads=3"], "hidden_dim=100 is not divisible by num_heads=3"),
    "no number": (["--steps=many"], "--steps=many"),
    "no steps": (["--steps=0"], "--steps=0"),
    "warmup": (["--steps=10", "--warmup_steps=10"], "warmup_steps=10"),
    "learning rate": (["--learning_rate=-1"], "-1"),
    "dropout": (["--dropout=1"], "dropout"),
    "pure bfloat16": (["--dtype=bfloat16"], "mixed_bfloat16"),
    "nothing held out": (["--validation_share=0"], "--validation_share=0.0"),
    "mixture": (["--mixture=books"], "must be name=path or name=path=weight"),
    "some weights": (["--mixture=a=pydocs=1", "--mixture=b=pydocs"], "give every source a weight, or none"),
    "weights without sum": (["--mixture=a=pydocs=0", "--mixture=b=pydocs=0"], "sum to zero"),
    "mesh": (["--mesh=data:2"], "mesh 'data:2' needs"),
    "shard without mesh": (["--shard=fsdp"], "--shard=fsdp needs --mesh"),
    "resume without output": (["--resume"], "--resume needs --output"),
    "unknown preset": (["--preset=gpt9"], "No preset 'gpt9'"),
    "shape of a preset": (["--preset=gpt2", "--num_layers=3"], "leave --num_layers out"),
}


@pytest.mark.parametrize(("flags", "message"), REFUSED.values(), ids=REFUSED)
def test_refuses_in_one_sentence(flags, message, recipe, tmp_path):
    if not any(flag.startswith("--resume") for flag in flags):
        flags = [*flags, f"--output={tmp_path / 'run'}"]
    assert_refused(recipe("pretrain", *flags, check=False), message)
    assert not (tmp_path / "run").exists()


def assert_refused(done, message):
    assert done.returncode in (1, 2) and message in done.stderr, done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_refuses_text_that_is_not_there(recipe, tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text(" \n\n")
    done = recipe("pretrain", f"--data={empty}", f"--output={tmp_path / 'run'}", check=False)
    assert_refused(done, "The corpus is empty")
    assert not (tmp_path / "run" / "run.cfg").exists()


def test_refuses_rows_longer_than_the_positions(pretrained, recipe, tmp_path):
    preset = pretrained("gpt2")[0] / "preset"
    done = recipe("pretrain", f"--preset={preset}", f"--output={tmp_path / 'run'}", check=False)
    assert_refused(done, "--sequence_length=128 is more than the 64 positions")


def test_refuses_to_overwrite_a_run(pretrained, recipe):
    output, _ = pretrained("gpt2")
    assert_refused(recipe("pretrain", f"--output={output}", check=False), "already holds a run")
    done = recipe("pretrain", f"--output={output}", "--resume", "--batch_size=4", check=False)
    assert_refused(done, "has --batch_size=8, not 4")


def test_refuses_a_backend_that_is_not_there(recipe, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, package=None: None if name == 'torch' else find(name, package)\n"
    )
    done = recipe("pretrain", "--backend=torch", check=False, PYTHONPATH=str(tmp_path))
    assert_refused(done, "pip install keras-zoo[torch]")
    assert_refused(recipe("pretrain", check=False, KERAS_BACKEND="numpy"), "KERAS_BACKEND='numpy'")


@pytest.mark.uncompiled
def test_a_preset_is_trained_on_and_its_weights_by_pattern(pretrained, recipe, corpus, tmp_path):
    """It is as good as it was; frozen weights stay, also in a run resumed with the patterns it was begun with."""
    output, _ = pretrained("gpt2")
    flags = (f"--preset={output / 'preset'}", f"--data={corpus}", "--split=blank", "--sequence_length=64", "--steps=2",
             "--batch_size=8", "--learning_rate=1e-6", "--freeze=attn/", "--freeze=token", "--layer_decay=0.5",
             "--checkpoint_every=1", f"--output={tmp_path}")  # fmt: skip
    done = recipe("pretrain", *flags)
    assert "--family=gpt2" in (tmp_path / "run.cfg").read_text()
    assert perplexities(done.stdout)[0] == pytest.approx(perplexities(pretrained("gpt2")[1])[0], rel=0.01)
    recipe("pretrain", f"--output={tmp_path}", "--resume", "--steps=3")
    before, after = Checkpoint(output / "preset"), Checkpoint(tmp_path / "preset")
    moved = {name for name in before if not np.array_equal(before.read(name), after.read(name))}
    assert "transformer.h.0.mlp.c_fc.weight" in moved and "transformer.ln_f.weight" in moved
    assert not [name for name in moved if ".attn." in name or "wte" in name]
    assert_refused(recipe("pretrain", *flags[:-1], f"--output={tmp_path / 'b'}", "--freeze=h.0", check=False), "'h.0'")


@pytest.mark.uncompiled
def test_the_large_batch_in_slices_recomputed_and_watched(pretrained, recipe, tmp_path):
    """The same run with less memory has the same losses; its columns are filled, its files there."""
    output, _ = pretrained("bert")
    flags = (f"--flagfile={output / 'run.cfg'}", f"--output={tmp_path}", "--accumulate=2", "--remat", "--tensorboard")
    recipe("pretrain", *flags)
    ours, theirs = (read_rows(path / "metrics.csv") for path in (tmp_path, output))
    assert [row["loss"] for row in ours] == pytest.approx([row["loss"] for row in theirs], rel=1e-4)
    row = ours[-1]
    assert row["gradient_norm"] > 0 and 0 < row["mfu"] < 1 and row["bits_per_byte"] is None
    assert row["perplexity"] == pytest.approx(math.exp(row["val_loss"]), rel=1e-4)
    assert os.listdir(tmp_path / "tensorboard")


def test_bits_per_byte_are_those_of_the_text(pretrained):
    """Against the loss and the bytes of a tokenizer that is a little more than one byte a token."""
    output, _ = pretrained("gpt2")
    rows = [row for row in read_rows(output / "metrics.csv") if row["val_loss"] is not None]
    found = {round(row["val_loss"] / math.log(2) / row["bits_per_byte"], 3) for row in rows}
    assert len(found) == 1 and 1.0 < found.pop() < 4.0


@pytest.mark.uncompiled
def test_a_run_that_no_longer_improves_ends_with_its_best(recipe, corpus, tmp_path):
    flags = ["--vocabulary_size=300", "--num_layers=1", "--num_heads=2", "--hidden_dim=8", "--sequence_length=16",
             "--batch_size=2", "--steps=60", "--learning_rate=3", "--schedule=constant", "--validate_every=2",
             "--validation_batches=1", "--patience=2", "--keep=1", "--warmup_steps=0", "--clip_norm=1"]  # fmt: skip
    done = recipe("pretrain", *flags, f"--data={corpus}", "--split=blank", f"--output={tmp_path}")
    rows = [row for row in read_rows(tmp_path / "metrics.csv") if row["val_loss"] is not None]
    best = min(rows, key=lambda row: row["val_loss"])["step"]
    assert rows[-1]["step"] < 60 and f"the model is that of step {best}, the best" in done.stdout
    assert f"{best:09d}" in os.listdir(tmp_path / "checkpoints")


@pytest.mark.uncompiled
def test_a_signal_saves_and_says_how_to_go_on(recipe, corpus, tmp_path):
    process = recipe("pretrain", *TINY, "--steps=100000", f"--data={corpus}", "--split=blank", f"--output={tmp_path}",
                     wait=False)  # fmt: skip
    while process.poll() is None and len((tmp_path / "metrics.csv").read_text().splitlines()
                                         if (tmp_path / "metrics.csv").exists() else []) < 3:  # fmt: skip
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM and f"go on with --output={tmp_path} --resume" in error, error
    last = max(int(name) for name in os.listdir(tmp_path / "checkpoints"))
    assert read_rows(tmp_path / "metrics.csv")[-1]["step"] == last < 100000
