"""What Keras's `fit` lacks for pretraining: schedules, checkpoints of the whole state, and a record of the run."""

from zoo.training.callbacks import Monitor, validation_loss
from zoo.training.checkpoint import Saver, best, checkpoints, restore, save
from zoo.training.flops import device_peak, step_flops
from zoo.training.interruption import Interrupted, Interruption
from zoo.training.optimizers import Grouped, by_pattern
from zoo.training.reports import CSVLog, LossPlot, ProgressBar, TensorBoard
from zoo.training.schedules import WarmupSchedule

__all__ = [
    "CSVLog",
    "Grouped",
    "Interrupted",
    "Interruption",
    "LossPlot",
    "Monitor",
    "ProgressBar",
    "Saver",
    "TensorBoard",
    "WarmupSchedule",
    "best",
    "by_pattern",
    "checkpoints",
    "device_peak",
    "restore",
    "save",
    "step_flops",
    "validation_loss",
]
