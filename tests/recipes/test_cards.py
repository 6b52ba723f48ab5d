"""The run cards: each is accepted, and the papers' cards describe models of the published size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CARDS = sorted(path.stem for path in (ROOT / "recipes" / "cards").glob("*.cfg"))
READ = """
import json, os, sys
sys.path.insert(0, "recipes")
import pretrain, zoo
for name in sys.argv[1:]:
    if os.fork():
        assert os.wait()[1] == 0, name
        continue
    pretrain.FLAGS(["pretrain", f"--flagfile=recipes/cards/{name}.cfg"])
    pretrain.common.check_training_flags()
    config = pretrain.new_config()
    pretrain.make_objective(config)
    task = pretrain.OBJECTIVES[pretrain.FLAGS.objective][1][config.architecture]
    print(json.dumps(zoo.families.by_name(pretrain.FLAGS.family).write(config, task)))
    break
"""
# Parameters of the published checkpoints, as the classes that we write count them.
PUBLISHED = {
    "gpt2_124m": 124_439_808,
    "bert_base": 109_514_298,
    "roberta_base": 124_697_433,
    "bart_base": 139_420_416,
    "llama_1b": 1_100_048_384,
    "llama_7b": 6_738_415_616,
    "t5_base_v1_1": 247_577_856 - 2 * (32_128 - 32_100) * 768 - 32_100 * 768,  # theirs is built without its own head
    "t5_11b": 11_307_321_344 - (32_128 - 32_100) * 1024,
    "t5_small": 60_506_624 - (32_128 - 32_100) * 512,  # theirs pads the vocabulary
}


@pytest.fixture(scope="module")
def described():
    """The config.json that each card describes, by the card's name."""
    done = subprocess.run([sys.executable, "-c", READ, *CARDS], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(zip(CARDS, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.fixture(scope="module", params=CARDS)
def card(request, described):
    """Name of a card, and the config.json that it describes."""
    return request.param, described[request.param]


def test_is_accepted_and_says_how_it_is_run(card):
    name, _ = card
    text = (ROOT / "recipes" / "cards" / f"{name}.cfg").read_text()
    assert f"python recipes/pretrain.py --flagfile=recipes/cards/{name}.cfg" in text


def test_has_the_published_size(card):
    name, config = card
    if name not in PUBLISHED:
        pytest.skip("no published model")
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    settings = transformers.AutoConfig.for_model(**config)
    if name in ("roberta_base", "bart_base"):  # the published position tables have rows for 512 and 1024 tokens
        settings.max_position_embeddings = {"roberta_base": 514, "bart_base": 1024}[name]
    with torch.device("meta"):
        model = getattr(transformers, config["architectures"][0])(settings)
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED[name]
