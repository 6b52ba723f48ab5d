"""The published checkpoints that have a short name, and the page of the documentation that lists them.

`python -m zoo.registry > docs/presets.md` writes that page. The entries stand in the files of their families.
"""

import dataclasses

from zoo import families, hub

_PAGE = """# Presets

The {count} names that `from_preset` knows; `python -m zoo.registry > docs/presets.md` writes this page. Any other
repository is `hf://owner/repo[@revision]`. Tied weights are counted once. The licence is the one that the repository
states; some must be accepted there before the first download.

| name | class | repository | parameters | licence |
|---|---|---|---|---|
{rows}
"""


@dataclasses.dataclass(frozen=True)
class Preset:
    """A checkpoint that has a short name."""

    name: str
    family: str
    source: str
    parameters: str
    license: str


def presets():
    """What `from_preset` knows by name: name -> `Preset`, with family, source, number of parameters and licence.

    >>> from zoo.registry import presets
    >>> presets()["gpt2"]
    Preset(name='gpt2', family='gpt2', source='hf://openai-community/gpt2', parameters='124M', license='mit')
    """
    return {
        name: Preset(name, family.name, hub.PREFIX + repository, size, license)
        for family in families.families().values()
        for name, (repository, size, license) in family.presets.items()
    }


def page():
    """The contents of docs/presets.md."""
    rows = []
    for name, preset in presets().items():
        repository, backbone = preset.source.removeprefix(hub.PREFIX), families.by_name(preset.family).backbone
        link = f"[{repository}](https://huggingface.co/{repository})"
        rows.append(f"| `{name}` | `{backbone}` | {link} | {preset.parameters} | {preset.license} |")
    return _PAGE.format(count=len(rows), rows="\n".join(rows))


if __name__ == "__main__":
    print(page(), end="")
