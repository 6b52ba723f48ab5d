"""Plans: the real program of a model compiled for devices that need not be there, and what it costs there.

Weights are never made: shapes go through the code that a run goes through. It needs JAX; for TPUs the extra `plan`.
"""

from zoo.planning.chips import CHIPS, Chip, Roofline, roofline
from zoo.planning.models import abstract, decode_program, train_program
from zoo.planning.programs import Collective, Program, collectives, compiled, flops
from zoo.planning.slices import Slice, open_slice

__all__ = ["CHIPS", "Chip", "Collective", "Program", "Roofline", "Slice", "abstract", "collectives", "compiled",
           "decode_program", "flops", "open_slice", "roofline", "train_program"]  # fmt: skip
