"""Measures of texts against texts: answers as SQuAD's script, ROUGE, BLEU and chrF. It knows no task.

A reference is a text, or a list of texts of which any will do. Scales are those of the scripts that the literature
uses: 0 to 1 for ROUGE, 0 to 100 for the others.
"""

import collections
import importlib
import re
import string

import numpy as np

from zoo.metrics.base import means, metric

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _several(references):
    return [[texts] if isinstance(texts, str) else list(texts) for texts in references]


def _words(text):
    """Lower case, without ASCII punctuation, articles and superfluous white space."""
    return re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_PUNCTUATION)).split()


def _overlap(said, true):
    """F1 of two bags of words; where one is empty, whether both are."""
    common = (collections.Counter(said) & collections.Counter(true)).total()
    return 2 * common / (len(said) + len(true)) if said and true else float(said == true)


@metric
def squad(predictions, references):
    """`exact_match` and `f1` of answers, in percent, as the script of SQuAD 2.0 (Rajpurkar et al. 2018).

    Answers are compared in lower case, without punctuation, articles and white space at the ends; f1 is of the bags of
    words. Of several references the best one counts.

    Args:
        predictions: a text each, "" for no answer.
        references: a text or a list of texts each; "" or an empty list where the question has no answer.

    >>> from zoo import metrics
    >>> metrics.squad(["The Eiffel Tower!", "Paris"], ["eiffel tower", ["Paris, France", "Lyon"]])["exact_match"]
    50.0
    """
    rows = []
    for said, texts in zip(predictions, _several(references)):
        said, true = _words(said), [words for text in texts if (words := _words(text))] or [[]]
        rows.append([100.0 * (said in true), 100 * max(_overlap(said, words) for words in true)])
    return np.array(rows), means("exact_match", "f1")


def _library(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0].replace("_", "-")
        raise ImportError(f"This metric needs {package}: pip install keras-zoo[eval].") from None


class _Words:
    """Words between spaces, as the tokenizer that rouge-score expects."""

    def tokenize(self, text):
        return text.lower().split()


@metric
def rouge(predictions, references, stem=False, words="latin"):
    """ROUGE-1, -2, -L and -Lsum F-measures (Lin 2004), 0 to 1, by the package rouge-score.

    Args:
        predictions: a text each. ROUGE-Lsum takes lines for sentences.
        references: a text or a list of texts each; of several the best one counts.
        stem: whether English suffixes are cut.
        words: "latin" for runs of a-z and 0-9, as all published figures; "space" for whatever stands between spaces.

    Raises: ValueError where the references hold no such word, as those in other scripts.
    """
    if words not in ("latin", "space"):
        raise ValueError(f"words must be 'latin' or 'space', got {words!r}.")
    tokenizer = _library("rouge_score.tokenizers").DefaultTokenizer(stem) if words == "latin" else _Words()
    references = _several(references)
    if not any(tokenizer.tokenize(text) for texts in references for text in texts):
        raise ValueError("No reference holds a word of a-z or 0-9: give words='space', and texts with spaces.")
    kinds = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    scorer = _library("rouge_score.rouge_scorer").RougeScorer(kinds, tokenizer=tokenizer)
    scores = [scorer.score_multi(texts, said) for said, texts in zip(predictions, references)]
    return np.array([[score[kind].fmeasure for kind in kinds] for score in scores]), means(*kinds)


def _sacrebleu(measure, predictions, references):
    """Counts a text by sacrebleu, and its score of their sums."""
    references = _several(references)
    most = max(map(len, references))
    streams = [[texts[i] if i < len(texts) else None for texts in references] for i in range(most)]
    counts = np.array(measure._extract_corpus_statistics(list(predictions), streams))
    return counts, lambda counts: float(measure._compute_score_from_stats(counts.sum(axis=0).tolist()).score)


@metric
def bleu(predictions, references, tokenize="13a", lowercase=False):
    """BLEU of the whole corpus (Papineni et al. 2002; Post 2018), 0 to 100, by the package sacrebleu.

    Args:
        predictions: a text each, not tokenized.
        references: a text or a list of texts each.
        tokenize: sacrebleu's tokenizer: "13a", "intl", "zh", "char", "none", ….
        lowercase: whether case is ignored.
    """
    measure = _library("sacrebleu.metrics").BLEU(tokenize=tokenize, lowercase=lowercase, force=True)
    return _sacrebleu(measure, predictions, references)


@metric
def chrf(predictions, references, word_order=0):
    """chrF of the whole corpus (Popović 2015), 0 to 100, by the package sacrebleu; chrF++ with `word_order=2`."""
    return _sacrebleu(_library("sacrebleu.metrics").CHRF(word_order=word_order), predictions, references)


@metric
def translation(predictions, references, tokenize="13a"):
    """`bleu` and `chrf` as a dictionary."""
    words, bleu_of = bleu.parts(predictions, references, tokenize=tokenize)
    characters, chrf_of = chrf.parts(predictions, references)
    width = words.shape[1]

    def value(rows):
        return {"bleu": bleu_of(rows[:, :width]), "chrf": chrf_of(rows[:, width:])}

    return np.concatenate([words, characters], axis=1), value
