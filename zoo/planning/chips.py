"""What chips can do, from their vendor's pages, and the least time that a program takes on one: a roofline.

It knows numbers alone, and neither models nor backends.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published figures of one chip.

    Attributes:
        flops: matrix products in bfloat16, FLOP/s.
        memory: bytes of high-bandwidth memory.
        bandwidth: of that memory, bytes/s.
        links: what all its links to other chips send together, bytes/s in one direction.
        source: where that is published.
    """

    flops: float
    memory: int
    bandwidth: float
    links: float
    source: str


# As the pages had it in November 2026. They tell the links of both directions together, and v4's not at all: those are
# six of 50 GB/s after Jouppi et al. 2023 (arXiv 2304.01433), from memory.
_PAGE = "https://docs.cloud.google.com/tpu/docs/"
CHIPS = {
    "v4": Chip(275e12, 32 << 30, 1200e9, 6 * 50e9, f"{_PAGE}v4"),
    "v5e": Chip(197e12, 16 << 30, 819e9, 400e9 / 2, f"{_PAGE}v5e"),
    "v5p": Chip(459e12, 95 << 30, 2765e9, 1200e9 / 2, f"{_PAGE}v5p"),
    "v6e": Chip(918e12, 32 << 30, 1638e9, 800e9 / 2, f"{_PAGE}v6e"),
}


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds that each resource of a chip is busy at its published rate; the step takes at least the longest."""

    compute: float
    memory: float
    links: float

    @property
    def seconds(self):
        """Of a step in which nothing waits: an estimate that no real step goes below."""
        return max(self.compute, self.memory, self.links)

    @property
    def bound(self):
        """The resource that takes longest: "compute", "memory" or "links"."""
        return max(("compute", "memory", "links"), key=lambda name: getattr(self, name))


def roofline(chip, flops, accessed, sent):
    """The `Roofline` of a program on a chip (Williams et al. 2009), with a roof for the links.

    Args:
        chip: a `Chip`.
        flops: floating-point operations on a chip.
        accessed: bytes that it reads and writes.
        sent: bytes that it sends to other chips.

    >>> roofline(CHIPS["v5e"], 197e12, 819e9 / 2, 0.0)
    Roofline(compute=1.0, memory=0.5, links=0.0)
    """
    return Roofline(flops / chip.flops, accessed / chip.bandwidth, sent / chip.links)
