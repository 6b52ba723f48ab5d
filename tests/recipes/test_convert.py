"""Conversion, checked by the recipe itself against `transformers`, and by opening what it writes."""

import functools

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.recipes.conftest import ROOT

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

SHAPE = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
T5 = {"vocab_size": 96, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
      "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}  # fmt: skip
MODELS = {
    "CausalLM": ("LlamaForCausalLM", "LlamaConfig", SHAPE), "MaskedLM": ("BertForMaskedLM", "BertConfig", SHAPE),
    "Seq2SeqLM": ("T5ForConditionalGeneration", "T5Config", T5), "Backbone": ("BertModel", "BertConfig", SHAPE),
    "TextClassifier": ("BertForSequenceClassification", "BertConfig", {**SHAPE, "num_labels": 3}),
    "TokenClassifier": ("BertForTokenClassification", "BertConfig", {**SHAPE, "num_labels": 3}),
    "QuestionAnswerer": ("BertForQuestionAnswering", "BertConfig", SHAPE),
    "ReplacedTokenDetector": ("ElectraForPreTraining", "ElectraConfig", SHAPE),
}  # fmt: skip


@pytest.fixture
def convert(recipe):
    """Runs the recipe on PyTorch, which compiles nothing."""
    return functools.partial(recipe, "convert", "--backend=torch")


def saved(path, task, dtype=torch.float32):
    name, config, fields = MODELS[task]
    torch.manual_seed(0)
    model = getattr(transformers, name)(getattr(transformers, config)(**fields))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape) * 0.1
    model.to(dtype).save_pretrained(path)


@pytest.mark.parametrize("task", MODELS)
def test_every_task_is_found_and_verified(convert, tmp_path, task):
    saved(tmp_path / "in", task)
    said = convert(f"--preset={tmp_path / 'in'}", f"--output={tmp_path / 'out'}", "--verify").stdout
    assert f": {task}, float32" in said and f"largest difference from {MODELS[task][0]}" in said
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "in"))
    left = {name for name in theirs.keys() - ours.keys() if "pooler" not in name and "position_ids" not in name}
    assert not left and ours.keys() <= theirs.keys()
    for name, x in ours.items():
        np.testing.assert_array_equal(x, theirs[name], err_msg=name)


def test_dtypes_and_shards(convert, tmp_path):
    saved(tmp_path / "in", "CausalLM", torch.bfloat16)
    said = convert(f"--preset={tmp_path / 'in'}", f"--output={tmp_path / 'same'}", "--verify").stdout
    assert ": CausalLM, bfloat16" in said
    convert(f"--preset={tmp_path / 'in'}", f"--output={tmp_path / 'out'}", "--dtype=float16",
           "--max_shard_size=20KB")  # fmt: skip
    shards = list((tmp_path / "out").glob("model-*.safetensors"))
    assert len(shards) > 1 and {x.dtype.name for path in shards for x in load_file(path).values()} == {"float16"}
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "in", dtype=torch.float32)
    for (name, a), b in zip(model.state_dict().items(), again.state_dict().values()):
        assert torch.equal(a, b.half().float()), name


SWAPPED = """
import runpy, sys
from zoo import families
llama = families.by_name("llama")
right = llama.table
def wrong(config):
    names = {"mlp/gate": "mlp/up", "mlp/up": "mlp/gate"}
    kernel = "decoder/block_{}/%s/kernel"
    rows = right(config)
    return rows | {kernel % name: rows[kernel % other] for name, other in names.items()}
object.__setattr__(llama, "table", wrong)
sys.path[0] = sys.argv.pop()
runpy.run_path(sys.path[0] + "/convert.py", run_name="__main__")
"""


def test_a_mistake_in_the_table_of_names_is_seen(recipe, tmp_path):
    """Two kernels of one shape swapped, when read and when written: only what is computed shows it."""
    saved(tmp_path / "in", "CausalLM")
    (tmp_path / "swapped.py").write_text(SWAPPED)
    flags = f"--preset={tmp_path / 'in'}", f"--output={tmp_path / 'out'}", "--verify"
    done = recipe(tmp_path / "swapped", "--backend=torch", *flags, str(ROOT / "recipes"), check=False)
    assert done.returncode and "zoo and transformers differ" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(("flags", "message"), [
    (["--output=out"], "--preset is missing"), (["--preset=nowhere", "--output=out"], "No preset 'nowhere'"),
    (["--preset=gpt2", "--output=out", "--max_shard_size=big"], "is no size"),
])  # fmt: skip
def test_mistakes_are_told_in_one_sentence(convert, flags, message):
    done = convert(*flags, check=False)
    assert done.returncode and message in done.stderr and "Traceback" not in done.stderr
