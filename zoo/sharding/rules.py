"""Which axis of a mesh splits what: one rule for every weight of every family, by what its path ends with.

No family, head or optimizer needs a rule of its own; the slots of an optimizer lie as their weights do. It knows names
and sizes, and neither layers nor devices.
"""

import contextlib
import math
import re
import sys

from zoo import processes
from zoo.sharding.words import DATA_AXES

# What a path ends with: the axis that is split over model, and the fields of `Config` that must divide with it.
_RULES = (
    (r"query/(kernel|lora_kernel_b)", 1, "num_heads"),
    (r"query/bias", 0, "num_heads"),
    (r"(key|value)/(kernel|lora_kernel_b)", 1, "num_key_value_heads"),
    (r"(key|value)/bias", 0, "num_key_value_heads"),
    (r"(attn|cross)/out/(kernel|lora_kernel_a)", 0, "num_heads"),
    (r"(gate|up)/(kernel|lora_kernel_b)", 1, None),
    (r"(gate|up)/bias", 0, None),
    (r"(out|down)/(kernel|lora_kernel_a)", 0, None),
    (r"token/(embeddings|lora_embeddings_a)", 0, None),
    (r"head/kernel", 1, None),
    (r"head/bias", 0, None),
)
_PATTERNS = tuple((re.compile(rf"(.*/)?{pattern}"), axis, heads) for pattern, axis, heads in _RULES)


class Rules:
    """The rules for a mesh of these sizes; base of every backend's `Mesh`.

    Attributes:
        sizes: of the axes `replica`, `data` and `model`.
        shard: "none" or "fsdp".
        notes: sentences, one for each kind of weight or batch that is whole on every device although an axis should
            split it; each has been printed.
        whole: whether batches are whole on every device, whatever their size.
        data_slice: (index, count), which of how many equal slices of each batch this process feeds.
        pieces: number of pieces of a batch that programs see apart, 1 where one program sees it whole, as on JAX.
    """

    data_slice = (0, 1)
    pieces = 1

    def __init__(self, sizes, shard):
        self.sizes, self.shard, self.notes, self.whole, self._config = dict(sizes), shard, [], False, None

    @property
    def num_model_replicas(self):
        """Parts that a batch is split into."""
        return math.prod(self.sizes[name] for name in DATA_AXES)

    @property
    def num_devices(self):
        """Devices of the mesh."""
        return math.prod(self.sizes.values())

    def split(self, path, shape):
        """The mesh axes over which each dimension of a variable is split.

        Args:
            path: of the variable, such as "gpt_backbone/decoder/block_0/attn/query/kernel".
            shape: of the variable.

        Returns:
            A list of tuples of axis names, one a dimension.
        """
        split = self.ruled(path, shape)
        if self.shard == "fsdp":
            for name in ("data", "model"):
                if self.sizes[name] > 1 and not any(name in names for names in split):
                    self._split_further(path, shape, split, name)
        return split

    def ruled(self, path, shape):
        """The same for shard="none": one dimension over model, if whole heads or units come to each device."""
        split, size = [()] * len(shape), self.sizes["model"]
        found = [(axis, field) for pattern, axis, field in _PATTERNS if pattern.fullmatch(path)]
        for axis, field in found[:1] if size > 1 else []:
            units = shape[axis] if field is None or self._config is None else _heads(self._config, field)
            if units % size or shape[axis] % size:
                what = f"size {units}" if field is None else f"{field}={units}"
                self.note(f"{_kind(path)} is not split over model:{size}, which does not divide {what}")
            else:
                split[axis] = ("model",)
        return split

    @property
    def scans(self):
        """Whether the blocks of the model run as one loop."""
        return bool(self._config and self._config.scan_layers)

    def in_loop(self, path):
        """Whether a variable belongs to the blocks that run as one loop."""
        return self.scans and "/block_" in path

    def _split_further(self, path, shape, split, name):
        """Splits over an axis what it has not split yet: a whole dimension, from the last, else one that is split."""
        size = self.sizes[name]
        for i in sorted(range(len(shape)), key=lambda i: (bool(split[i]), -i)):
            if shape[i] % (size * math.prod(self.sizes[other] for other in split[i])) == 0:
                split[i] += (name,)
                return
        self.note(f"{_kind(path)} of shape {tuple(shape)} is not split over {name}:{size}, which divides none of it")

    def plan(self, config):
        """Takes the number of heads from a `Config`, and checks that each axis divides something of it."""
        self._config, model, data = config, self.sizes["model"], self.sizes["data"]
        sizes = {name: _heads(config, name) for name in ("num_heads", "num_key_value_heads")}
        sizes |= {name: getattr(config, name) for name in ("intermediate_dim", "vocabulary_size")}
        _check_divides("model", model, sizes)
        if self.shard == "fsdp":
            _check_divides("data", data, {"hidden_dim": config.hidden_dim, **sizes})

    def begin(self):
        """The mesh is in force from here on."""

    def end(self):
        """It is not any longer."""

    def spread(self, task):
        """Lays out a task that was just built; on JAX each variable was when it was made."""

    def prepared(self, optimizer):
        """Makes an optimizer that is not built yet fit for the mesh."""

    def end_step(self, task):
        """A step of a task is over."""

    def on_each(self, fn):
        """Calls a function of its number for each program that sees a piece; here, for this process."""
        fn(processes.index())

    def share(self, loss):
        """The loss of a piece over an average piece's labels, as Keras's loop takes it."""
        return loss

    def settle(self, task, loss):
        """A loss was computed; what Keras takes for it."""
        return loss

    def complete(self, task):
        """A context in which every device holds what it needs to run layers of a task alone."""
        return contextlib.nullcontext()

    def parts(self, rows):
        """See `zoo.sharding.parts`: 1 where each process computes on rows of its own."""
        return 1

    def note(self, text):
        """Keeps a sentence, and prints it unless it has been."""
        if text not in self.notes:
            self.notes.append(text)
            if processes.is_first():
                print(f"note: {text}", file=sys.stderr)


def _heads(config, field):
    return config.resolved_key_value_heads if field == "num_key_value_heads" else config.num_heads


def _check_divides(axis, size, sizes):
    if all(units % size for units in sizes.values()):
        best = max(n for n in range(1, size) if not any(units % n for units in sizes.values()))
        listed = ", ".join(f"{name}={units}" for name, units in sizes.items())
        raise ValueError(f"{axis}:{size} divides nothing of this model ({listed}): use {axis}:{best}.")


def _kind(path):
    """A path for all blocks at once."""
    return re.sub(r"block_\d+", "block_*", path.split("/", 1)[-1])
