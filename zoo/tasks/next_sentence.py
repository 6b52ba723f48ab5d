"""NextSentence: whether one text follows another."""

import keras

from zoo.tasks.downstream import Downstream, is_pair


@keras.saving.register_keras_serializable("zoo")
class NextSentence(Downstream):
    """An encoder with BERT's head for pairs of sentences (Devlin et al. 2019, section 3.1).

    Called on the batch dictionary; returns logits (b, 2), float32: of 0, the second text continues the first, and of 1,
    it is any other. `fit`, `evaluate` and `predict` take (firsts, seconds), two lists of texts; labels are (b,).

    Args:
        backbone: an encoder `Backbone`.
        tokenizer: a `Tokenizer`, for raw text.
        head: dictionary of what differs from the family's head.

    Example:

    ```python
    import numpy as np
    from zoo import BERTBackbone, NextSentence

    model = NextSentence(BERTBackbone(vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=16,
                                      intermediate_dim=32))
    model({"token_ids": np.array([[2, 7, 3, 9, 3]]), "token_type_ids": np.array([[0, 0, 0, 1, 1]])}).shape  # (1, 2)
    ```
    """

    architectures = ("encoder",)
    default_name = "next_sentence"
    outputs = 2

    def is_raw(self, x):
        return is_pair(x)
