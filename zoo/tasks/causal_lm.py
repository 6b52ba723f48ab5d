"""CausalLM: the next token from those before it."""

import keras
import numpy as np

from zoo.generation.text import Generation
from zoo.tasks.language_model import LanguageModel


@keras.saving.register_keras_serializable("zoo")
class CausalLM(Generation, LanguageModel):
    """A decoder with a vocabulary head (Radford et al. 2018).

    Called on the batch dictionary; returns logits (b, t, vocabulary_size), float32. `fit`, `evaluate` and `predict`
    take texts, or the dictionary; without labels these are the tokens moved by one, within each document.

    Args:
        backbone: a decoder `Backbone`.
        tokenizer: a `Tokenizer`, for raw text.

    Example:

    ```python
    from zoo import CausalLM, LlamaBackbone, Tokenizer

    text = ["the cat sat on the mat", "the dog sat on the cat"]
    tokenizer = Tokenizer.train(text, kind="bpe", vocabulary_size=280)
    lm = CausalLM(LlamaBackbone(vocabulary_size=tokenizer.vocabulary_size, num_layers=1, num_heads=2, hidden_dim=16,
                                intermediate_dim=32), tokenizer)
    lm.fit(text, epochs=1, verbose=0)
    lm.generate("the cat", max_new_tokens=5)
    ```
    """

    architectures = ("decoder",)
    default_name = "causal_lm"

    def call(self, inputs, training=False):
        return self.decoded(self.backbone(inputs, training=training))

    def prepare(self, x, y=None):
        """Texts or a dictionary to (x, labels, weights): labels are the next tokens of the same document."""
        if y is not None:
            raise ValueError("CausalLM makes its own labels from text: leave y out, or give token_ids with labels.")
        x = self.inputs_of(x)
        ids, segments = np.asarray(x["token_ids"]), x.get("segment_ids", x.get("padding_mask"))
        segments = np.ones_like(ids) if segments is None else np.asarray(segments)
        labels = np.concatenate([ids[:, 1:], ids[:, :1]], axis=1)
        weights = np.zeros(ids.shape, "float32")
        weights[:, :-1] = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] != 0)
        return x, labels, weights

    def score(self, texts, batch_size=16):
        """Log-likelihoods of each text's tokens after the first, a float32 array a text, in nats.

        Texts are cut at the model's positions.

        >>> import numpy as np
        >>> scores = [np.array([-1.0, -2.0])]
        >>> float(np.exp(-np.mean(scores[0])).round(2))  # a perplexity
        4.48
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        found = []
        for start in range(0, len(texts), batch_size):
            found += self.log_likelihoods(*self.prepare(texts[start : start + batch_size]))
        return found
