"""Parameter-efficient tuning: small trainable parts on a model whose weights stay as they are.

`lora`, `ia3`, `bottleneck` and `prompt` put them on, `bitfit` trains biases; `save` and `load` exchange them with the
package `peft`, `use` switches, `merge` works them in.
"""

from zoo.adapters.attach import merge, names, remove, trained, use
from zoo.adapters.files import load, save
from zoo.adapters.methods import bitfit, bottleneck, ia3, lora, prompt

__all__ = ["bitfit", "bottleneck", "ia3", "load", "lora", "merge", "names", "prompt", "remove", "save", "trained",
           "use"]  # fmt: skip
