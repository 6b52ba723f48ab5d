"""Checkpoints of the time when language models were published in TensorFlow, read as if `transformers` had saved them.

`files` gives their tensors PyTorch's names and layouts, `configs` reads what stands in for a config.json. Both know
neither families nor models; TensorFlow is imported only where a checkpoint of its own is opened.
"""

from zoo.tensorflow_files.configs import model_type, read_config
from zoo.tensorflow_files.files import TensorFlowFiles

__all__ = ["TensorFlowFiles", "model_type", "read_config"]
