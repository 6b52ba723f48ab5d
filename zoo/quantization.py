"""Weights of 8 or 4 bits: Keras's quantisation over a whole model, and what the model must remember to be reloaded.

Weights alone become integers, since decoding waits for them to be read; activations stay as they are. It knows Keras's
layers and none of ours.
"""

import contextlib
import gc
import re

import keras
from keras import ops

MODES = {
    "int8": lambda: keras.quantizers.Int8QuantizationConfig(activation_quantizer=None),  # a scale for each output
    "int4": lambda: keras.quantizers.Int4QuantizationConfig(),  # a scale and a zero for 128 inputs of an output
}


class Quantizable:
    """`quantize` for models whose `from_config` calls `requantize` with what `quantization` says."""

    quantization = ()  # mode and patterns of each call of `quantize`

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if (policy := self.dtype_policy).quantization_mode is not None:
            raise ValueError(
                f"dtype={policy.name!r} would make integers of weights that are not there yet: use "
                f"dtype={policy.name.split('_from_')[-1]!r}, then model.quantize('int8')."
            )

    def quantize(self, mode, config=None, filters=None):
        """Turns the matrices of dense layers and the embeddings into integers with scales, in place.

        They take a quarter (int8) or about an eighth (int4) of the memory of float32; an untied head, norms, biases and
        relative positions stay as they are. The model then generates, scores and predicts, but does not train;
        `model.save("m.keras")` keeps it and `save_to_preset` does not.

        Args:
            mode: "int8", or "int4", which loses much more.
            config: leave it out: Keras passes its default, and weights alone are quantised all the same.
            filters: a regular expression or a list of them, looked for in the paths of layers such as
                "decoder/block_0/mlp/up"; by default all are quantised.

        Raises:
            ValueError: another mode, a `config`, or filters that find no layer that is not quantised yet.

        Example:

        ```python
        import numpy as np
        from zoo import CausalLM, LlamaBackbone

        lm = CausalLM(LlamaBackbone(vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=16,
                                    intermediate_dim=32))
        lm.quantize("int8")
        lm.generate({"token_ids": np.array([[3, 14]])}, max_new_tokens=4)
        ```
        """
        if mode not in MODES:
            raise ValueError(f"quantize takes mode='int8' or 'int4', got {mode!r}.")
        if config is not None and config.get_config() != type(config)().get_config():
            raise ValueError("quantize takes no config: weights alone are quantised, each output by its largest value.")
        patterns, found = [filters] if isinstance(filters, str) else list(filters or [""]), []

        def wanted(layer):
            fits = isinstance(layer, (keras.layers.Dense, keras.layers.Embedding)) and layer.quantization_mode is None
            if fits and any(re.search(pattern, layer.path) for pattern in patterns):
                found.append(layer)
            return layer in found

        with _collecting_once():
            super().quantize(mode, config=MODES[mode](), filters=wanted, type_check=False)  # subclasses are meant too
        if not found:
            raise ValueError(f"No layer to quantise: {patterns} find none, or all of them are quantised already.")
        self.quantization = (*self.quantization, (mode, *patterns))
        self.__dict__.pop("_decode_programs", None)  # they hold the weights that were
        if getattr(self, "optimizer", None) is not None and self.optimizer.built:
            self.compile()  # its slots belong to weights that are gone

    def requantize(self, quantization):
        """Repeats the calls that `quantization` held when a model was saved; its weights are loaded afterwards."""
        for mode, *patterns in quantization:
            self.quantize(mode, filters=patterns)
        return self


@contextlib.contextmanager
def _collecting_once():
    """Keras looks through all objects of the program after each layer, most of a second; here once, at the end."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.collect()


def table(embedding):
    """The rows (vocabulary, width) of an embedding as numbers; a lookup knows how to read integers."""
    if embedding.quantization_mode is None:
        return embedding.embeddings
    return embedding(ops.arange(embedding.input_dim))
