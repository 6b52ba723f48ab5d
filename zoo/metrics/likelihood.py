"""Measures of a language model on texts: perplexity and bits per byte, from the log-likelihoods of tokens."""

import numpy as np

from zoo.metrics.base import metric


@metric
def perplexity(scores, references=None):
    """The exponential of the mean negative log-likelihood of a token, over all texts.

    Args:
        scores: an array of log-likelihoods of tokens a text, in nats, such as from `CausalLM.score`.
        references: not used.

    >>> from zoo import metrics
    >>> metrics.perplexity([[-0.5, -1.5], [-1.0]]).__round__(3)
    2.718
    """
    return _sums(scores), lambda rows: float(np.exp(_nats(rows)))


@metric
def bits_per_byte(scores, references):
    """Bits a byte of UTF-8, which models with different tokenizers can be compared by.

    Args:
        scores: an array of log-likelihoods of tokens a text, in nats.
        references: the texts.

    >>> import math
    >>> from zoo import metrics
    >>> metrics.bits_per_byte([[-8 * math.log(2)]], ["ab"])
    4.0
    """
    return _sums(scores, references), lambda rows: float(_bits(rows))


@metric
def language_modelling(scores, references):
    """`loss` in nats a token, `perplexity` and `bits_per_byte` as a dictionary."""

    def value(rows):
        loss = _nats(rows)
        return {"loss": float(loss), "perplexity": float(np.exp(loss)), "bits_per_byte": float(_bits(rows))}

    return _sums(scores, references), value


def _sums(scores, texts=None):
    """Array (n, 3): negative log-likelihood, tokens, bytes."""
    sizes = [len(text.encode()) for text in texts] if texts is not None else np.zeros(len(scores))
    rows = np.stack([[-float(np.sum(row)) for row in scores], [len(row) for row in scores], sizes], axis=1)
    if not rows[:, 1].any():
        raise ValueError("There is nothing to measure: the texts hold no token that is predicted.")
    return rows


def _nats(rows):
    return rows[:, 0].sum() / rows[:, 1].sum()


def _bits(rows):
    return rows[:, 0].sum() / np.log(2) / rows[:, 2].sum()
