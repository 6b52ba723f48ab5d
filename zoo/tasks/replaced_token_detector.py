"""ReplacedTokenDetector: which tokens of a text are not the original ones."""

import keras
import numpy as np
from keras import ops

from zoo.tasks.downstream import Downstream, whole_numbers


@keras.saving.register_keras_serializable("zoo")
class TokenBinaryCrossentropy(keras.losses.Loss):
    """Cross-entropy of one logit a token (b, t) with 0 or 1; Keras's own would average over t, padding included."""

    def __init__(self, name="loss", reduction="mean_with_sample_weight", **kwargs):
        super().__init__(name=name, reduction=reduction, **kwargs)

    def call(self, y_true, y_pred):
        return ops.binary_crossentropy(ops.cast(y_true, y_pred.dtype), y_pred, from_logits=True)


@keras.saving.register_keras_serializable("zoo")
class ReplacedTokenDetector(Downstream):
    """An encoder with ELECTRA's discriminator head (Clark et al. 2020).

    Called on the batch dictionary; returns logits (b, t), float32, positive where a token was replaced. `fit` and
    `evaluate` take the dictionary with labels (b, t), 1 where a token was replaced, or texts alone: then 15 % of the
    tokens are replaced by any others, the same ones at each epoch. A generator's replacements are harder and come from
    `zoo.data`.

    Args:
        backbone: an encoder `Backbone`.
        tokenizer: a `Tokenizer`, for raw text.
        head: dictionary of what differs from the family's head.

    Example:

    ```python
    import numpy as np
    from zoo import ELECTRABackbone, ReplacedTokenDetector

    model = ReplacedTokenDetector(ELECTRABackbone(vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=16,
                                                  intermediate_dim=32))
    model({"token_ids": np.array([[2, 7, 4, 9]])}).shape  # (1, 4)
    ```
    """

    architectures = ("encoder",)
    default_name = "replaced_token_detector"
    labels_are_by_token = True
    rate = 0.15

    def call(self, inputs, training=False):
        return super().call(inputs, training=training)[..., 0]

    def make_loss(self):
        return TokenBinaryCrossentropy()

    def make_metrics(self):
        return [keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0)]

    def labels_of(self, x, y):
        return whole_numbers(y, x["token_ids"].shape, 2)

    def prepare(self, x, y=None):
        """Texts to (x, labels, weights), with random tokens in the place of some."""
        if isinstance(x, dict) or y is not None:
            raise ValueError("ReplacedTokenDetector takes texts alone, or a dictionary together with labels y.")
        x = self.inputs_of(x)
        ids, rng = x["token_ids"], np.random.default_rng(0)
        real = (x["padding_mask"] > 0) & ~np.isin(ids, list(self.tokenizer.special_ids))
        others = rng.integers(0, self.tokenizer.vocabulary_size, ids.shape, dtype=ids.dtype)
        replaced = np.where(real & (rng.random(ids.shape) < self.rate), others, ids)
        # A token that happens to be replaced by itself is an original one (section 2 of the paper).
        return {**x, "token_ids": replaced}, (replaced != ids).astype("int32"), real.astype("float32")
