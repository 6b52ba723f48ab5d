"""MultipleChoice: which of several continuations goes with a text."""

import keras
import numpy as np
from keras import ops

from zoo.tasks.downstream import Downstream, is_pair, whole_numbers
from zoo.tasks.task import is_text

_BY_TOKEN = ("token_ids", "padding_mask", "segment_ids", "positions", "token_type_ids")


def rows_of(inputs):
    """A dictionary of (b, n, t) as one of (b · n, t); one of (b, t) as it is."""
    return {key: value.reshape(-1, value.shape[-1]) if isinstance(value, np.ndarray) else
            ops.reshape(value, (-1, value.shape[-1])) for key, value in inputs.items()}  # fmt: skip


def tokenized_groups(task, groups, pairs=None):
    """Groups of n texts, each perhaps with a second one, as a dictionary of (b, n, t)."""
    flat = [text for group in groups for text in group]
    batch = task.tokenized(flat, **({"pairs": pairs} if pairs else {}))
    return {key: value.reshape(len(groups), -1, value.shape[-1]) for key, value in batch.items()}


@keras.saving.register_keras_serializable("zoo")
class MultipleChoice(Downstream):
    """A backbone with one score for each choice (Radford et al. 2018, section 3.3; Zellers et al. 2018).

    Called on the batch dictionary with arrays (b, n, t), a row for each of n choices; returns logits (b, n), float32.
    `fit`, `evaluate` and `predict` take (contexts, choices), where choices holds a list of n texts for each context,
    and labels (b,): the number of the right one.

    Args:
        backbone: an encoder or decoder `Backbone`.
        tokenizer: a `Tokenizer`, for raw text.
        head: dictionary of what differs from the family's head.

    Example:

    ```python
    from zoo import BERTBackbone, MultipleChoice, Tokenizer

    contexts, choices = ["the cat sat"] * 4, [["on the mat", "in two"]] * 4
    tokenizer = Tokenizer.train(contexts + choices[0], kind="wordpiece", vocabulary_size=100)
    backbone = BERTBackbone(vocabulary_size=tokenizer.vocabulary_size, num_layers=1, num_heads=2, hidden_dim=16,
                            intermediate_dim=32, max_sequence_length=32)
    model = MultipleChoice(backbone, tokenizer)
    model.fit((contexts, choices), [0] * 4, verbose=0)
    ```
    """

    architectures = ("encoder", "decoder")
    default_name = "multiple_choice"

    def call(self, inputs, training=False):
        shape = inputs["token_ids"].shape
        return ops.reshape(super().call(rows_of(inputs), training=training), (-1, shape[1]))

    def check(self, inputs):
        if isinstance(inputs, dict) and "token_ids" in inputs and len(inputs["token_ids"].shape) != 3:
            shape = tuple(inputs["token_ids"].shape)
            raise ValueError(f"token_ids of a MultipleChoice must have shape (batch, choices, time), got {shape}.")
        super().check(rows_of(inputs) if isinstance(inputs, dict) else inputs)

    def is_raw(self, x):
        if not isinstance(x, tuple) or len(x) != 2 or not is_text(x[0]) or isinstance(x[1], str):
            return False
        return not is_pair(x) and all(is_text(texts) and not isinstance(texts, str) for texts in x[1])

    def inputs_of(self, x):
        if self.is_raw(x):
            contexts, choices = x
            counts = {len(texts) for texts in choices}
            if len(contexts) != len(choices) or len(counts) != 1:
                raise ValueError(
                    f"{len(contexts)} contexts need as many lists of choices, all of one length; got {len(choices)} "
                    f"lists with {', '.join(map(str, sorted(counts)))} choices."
                )
            firsts = [[context] * len(texts) for context, texts in zip(contexts, choices)]
            x = tokenized_groups(self, firsts, [text for texts in choices for text in texts])
        return super().inputs_of(x)

    def labels_of(self, x, y):
        return whole_numbers(y, (len(x["token_ids"]),), x["token_ids"].shape[1])

    def choose(self, contexts, choices, **kwargs):
        """The number of the likeliest choice, or for lists of contexts and of choices a list of them.

        Args:
            contexts: a text, or a list of texts.
            choices: a list of texts, or for several contexts a list of such lists.
            kwargs: for `predict`.
        """
        if isinstance(contexts, str):
            return self.choose([contexts], [choices], **kwargs)[0]
        logits = self.predict((list(contexts), list(choices)), **{"verbose": 0, **kwargs})
        return logits.argmax(axis=-1).tolist()
