"""The registry of published checkpoints."""

import re
from pathlib import Path

import pytest

from zoo import families, registry
from zoo.registry import presets

LICENSES = {"apache-2.0", "mit", "bigscience-bloom-rail-1.0", "cc-by-4.0", "cc-by-sa-4.0", "gemma", "llama2",
            "llama3.1", "llama3.2", "other", "not stated"}  # fmt: skip


def test_presets_name_real_families():
    known = presets()
    assert len(known) >= 60 and {preset.family for preset in known.values()} == set(families.families())
    assert known["gpt2"].source == "hf://openai-community/gpt2" and known["gpt2"].license == "mit"
    for name, preset in known.items():
        assert preset.name == name and re.fullmatch(r"[a-z0-9_]+", name)
        assert re.fullmatch(r"hf://[\w.-]+/[\w.-]+", preset.source) and re.fullmatch(r"[\d.]+[MB]", preset.parameters)
        assert preset.license in LICENSES
    assert len({preset.source for preset in known.values()}) == len(known)


@pytest.mark.parametrize(("name", "kind", "fields"), [
    ("gpt2_xl", "GPT2", {"n_embd": 1600, "n_layer": 48, "n_head": 25}), ("bert_base_uncased", "Bert", {}),
    ("opt_125m", "OPT", {}), ("t5_small", "T5", {}), ("roberta_base", "Roberta", {}),
])  # fmt: skip
def test_sizes_are_those_of_their_models(name, kind, fields):
    """Where `transformers`'s defaults, or the papers, give the shape."""
    import torch
    import transformers

    with torch.device("meta"):
        model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**fields))
    size = sum(parameter.numel() for parameter in model.parameters())
    said = presets()[name].parameters
    assert abs(float(said[:-1]) * {"M": 1e6, "B": 1e9}[said[-1]] / size - 1) < 0.05


def test_the_page_of_presets_is_up_to_date():
    page = Path(__file__).parents[1] / "docs" / "presets.md"
    assert page.read_text(encoding="utf-8") == registry.page(), "python -m zoo.registry > docs/presets.md"
