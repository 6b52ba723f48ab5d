"""What Keras's `fit` lacks for pretraining: schedules, checkpoints of the whole state, and a record of the run."""

from zoo.training.callbacks import Monitor, validation_loss
from zoo.training.checkpoint import checkpoints, restore, save
from zoo.training.optimizers import Grouped, by_pattern
from zoo.training.reports import CSVLog, LossPlot, ProgressBar
from zoo.training.schedules import WarmupSchedule

__all__ = [
    "CSVLog",
    "Grouped",
    "LossPlot",
    "Monitor",
    "ProgressBar",
    "WarmupSchedule",
    "by_pattern",
    "checkpoints",
    "restore",
    "save",
    "validation_loss",
]
