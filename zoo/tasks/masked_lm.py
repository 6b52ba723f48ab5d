"""MaskedLM: the tokens behind the masks."""

import keras
import numpy as np
from keras import ops

from zoo import sharding
from zoo.tasks.language_model import LanguageModel


@keras.saving.register_keras_serializable("zoo")
class MaskedLM(LanguageModel):
    """An encoder with a masked-LM head (Devlin et al. 2019).

    Called on the batch dictionary; returns logits, float32: (b, m, vocabulary_size) at `mask_positions` (b, m) where
    they are given, else (b, t, vocabulary_size).

    Args:
        backbone: an encoder `Backbone`.
        tokenizer: a `Tokenizer` with a mask token, for raw text.

    Example:

    ```python
    import numpy as np
    from zoo import BERTBackbone, MaskedLM

    mlm = MaskedLM(BERTBackbone(vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=16, intermediate_dim=32))
    mlm({"token_ids": np.array([[2, 7, 4, 9]]), "mask_positions": np.array([[2]])}).shape  # (1, 1, 100)
    ```
    """

    architectures = ("encoder",)
    default_name = "masked_lm"

    def call(self, inputs, training=False):
        inputs = dict(inputs)
        places = inputs.pop("mask_positions", None)
        x = self.backbone(inputs, training=training)
        if places is not None:
            x = ops.take_along_axis(x, places[..., None], axis=1)
        return self.decoded(x)

    def prepare(self, x, y=None):
        """Texts to (x, labels, weights): 15 % of the tokens masked as BERT does, the same ones at each epoch."""
        from zoo.data import MaskedLM as Objective

        if isinstance(x, dict) or y is not None:
            raise ValueError("MaskedLM takes texts alone, or a dictionary together with labels y.")
        x = self.inputs_of(x)
        objective = Objective().bind(self.tokenizer, x["token_ids"].shape[1])
        masked, labels, weights = objective(x, np.random.default_rng(0))
        return {**x, **masked}, labels, weights

    def fill_mask(self, text, top_k=5):
        """The likeliest tokens for each mask token in a text.

        Returns:
            A list with a list a mask: (token string, probability) pairs, likeliest first.

        Raises:
            ValueError: no mask in the text, or none in the tokenizer.
        """
        sharding.only_alone("fill_mask")
        x = self.inputs_of(text)
        mask_id = self.tokenizer.mask_id
        places = np.flatnonzero(x["token_ids"][0] == mask_id) if mask_id is not None else []
        if not len(places):
            token = None if mask_id is None else self.tokenizer.id_to_token(mask_id)
            raise ValueError(f"The text holds no mask token ({token!r}): {text!r}.")
        logits = self({**x, "mask_positions": places[None].astype("int32")})
        values, ids = ops.top_k(ops.softmax(logits[0], axis=-1), min(top_k, self.config.vocabulary_size))
        values, ids = ops.convert_to_numpy(ops.stop_gradient(values)), ops.convert_to_numpy(ids)
        return [[(self.tokenizer.decode([int(i)]).strip(), float(p)) for i, p in zip(row, ps)]
                for row, ps in zip(ids, values)]  # fmt: skip
