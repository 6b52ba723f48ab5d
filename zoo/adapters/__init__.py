"""Parameter-efficient tuning: small trainable parts on a model whose weights stay as they are.

`lora` puts them on, `save` and `load` exchange them with the package `peft`, `use` switches, `merge` works them in.
"""

from zoo.adapters.attach import bitfit, lora, merge, names, remove, trained, use
from zoo.adapters.files import load, save

__all__ = ["bitfit", "load", "lora", "merge", "names", "remove", "save", "trained", "use"]
