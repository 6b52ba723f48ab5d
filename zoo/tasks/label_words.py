"""LabelWords: classification by a language model as it is, from a template and a word for each label.

It knows templates and scores of words; the models are those of CausalLM and MaskedLM.
"""

import numpy as np

from zoo.tasks.causal_lm import CausalLM
from zoo.tasks.masked_lm import MaskedLM

FREE = ("N/A", "", "…")  # texts without content, by which scores are calibrated


class LabelWords:
    """A classifier without training, or with a few examples in its prompt (Brown et al. 2020; Schick & Schütze 2021).

    Args:
        model: a `CausalLM`, whose score of a label is the log-likelihood of its word after the prompt; or a `MaskedLM`,
            whose score is the logit of its word at a mask.
        template: a text with `{text}` and `{label}`; for a causal model `{label}` is at its end.
        words: dictionary, label -> the word, or words, that stand for it; one token each for a masked model.
        examples: list of (text, label) that come before each text, in the same template.
        separator: between examples.
        calibrate: whether probabilities are divided by those of texts without content (Zhao et al. 2021), which takes
            away what a model says whatever the text is.

    Raises:
        ValueError: another model, a template without its places, an unknown label, or a word of several tokens.

    Example:

    ```python
    from zoo import LabelWords, MaskedLM

    mlm = MaskedLM.from_preset("hf://google-bert/bert-base-uncased")
    tone = LabelWords(mlm, "{text} It was {label}.", {"good": "great", "bad": "terrible"})
    tone.classify("A film to remember.")  # [{"good": 0.9…, "bad": 0.0…}]
    ```
    """

    def __init__(self, model, template, words, examples=(), separator="\n\n", calibrate=False):
        if not isinstance(model, (CausalLM, MaskedLM)) or model.tokenizer is None:
            raise ValueError("LabelWords needs a CausalLM or a MaskedLM with a tokenizer.")
        if template.count("{label}") != 1 or template.count("{text}") != 1:
            raise ValueError(f"A template holds {{text}} and {{label}} once each, got {template!r}.")
        if isinstance(model, CausalLM) and not template.endswith("{label}"):
            raise ValueError(f"A causal model's template must end with {{label}}, got {template!r}.")
        if len(words) < 2 or (unknown := [label for _, label in examples if label not in words]):
            given = f"for {unknown[0]!r}" if len(words) > 1 else "one"
            raise ValueError(f"words must hold a word for each of several labels, not {given}: {list(words)}.")
        self.model, self.template, self.words, self.separator = model, template, dict(words), separator
        self.shots = [self._filled(text, words[label]) for text, label in examples]
        if isinstance(model, MaskedLM):
            self._ids = self._word_ids()
        self._bias = 0.0
        if calibrate:
            free = _softmax(self.scores(list(FREE))).mean(axis=0)
            self._bias = -np.log(free)

    def _filled(self, text, word):
        return self.template.replace("{label}", word).replace("{text}", text)

    def _prompt(self, text, word):
        return self.separator.join([*self.shots, self._filled(text, word)])

    def _word_ids(self):
        """The token of each word inside a text, after a space where the template has one."""
        tokenizer, found = self.model.tokenizer, []
        if tokenizer.mask_id is None:
            raise ValueError("The tokenizer has no mask token.")
        before = " " if self.template.partition("{label}")[0].endswith(" ") else ""
        for label, word in self.words.items():
            ids = tokenizer.encode(before + word, add_special_tokens=False)
            if len(ids) != 1 or ids[0] == tokenizer.unk_id:
                tokens = [tokenizer.id_to_token(i) for i in ids]
                raise ValueError(f"The word {word!r} of {label!r} is {tokens}, not one token: choose another.")
            found.append(ids[0])
        return found

    def classify(self, texts, batch_size=16):
        """A dictionary a text: label -> probability among the labels.

        Args:
            texts: a text, or a list of texts.
            batch_size: rows computed together.

        Raises:
            ValueError: a prompt that is longer than the model's positions.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        shares = _softmax(self.scores(texts, batch_size) + self._bias)
        return [dict(zip(self.words, map(float, row))) for row in shares]

    def scores(self, texts, batch_size=16):
        """Array (texts, labels): what is compared, before calibration."""
        score = self._masked if isinstance(self.model, MaskedLM) else self._causal
        parts = [score(texts[i : i + batch_size]) for i in range(0, len(texts), batch_size)]
        return np.concatenate(parts)

    def _checked(self, rows):
        limit = self.model.backbone.position_limit
        if limit and (longest := max(map(len, rows))) > limit:
            raise ValueError(f"A prompt has {longest} tokens, the model {limit} positions: shorten it.")
        return rows

    def _masked(self, texts):
        tokenizer = self.model.tokenizer
        rows = [self._prompt(text, tokenizer.id_to_token(tokenizer.mask_id)) for text in texts]
        self._checked(tokenizer.encode(rows))
        x = self.model.inputs_of(rows)
        places = [np.flatnonzero(ids == tokenizer.mask_id)[-1:] for ids in x["token_ids"]]
        logits = self.model.predict({**x, "mask_positions": np.array(places, "int32")}, verbose=0)
        return logits[:, 0, self._ids]

    def _causal(self, texts):
        """Sums over a word's tokens: those that the prompt without the word does not have."""
        encode, count = self.model.tokenizer.encode, len(self.words)
        bare = [len(encode(self._prompt(text, "").rstrip())) for text in texts]
        rows = self._checked([encode(self._prompt(text, word)) for text in texts for word in self.words.values()])
        x = {name: np.zeros((len(rows), max(map(len, rows))), "int32") for name in ("token_ids", "padding_mask")}
        for i, row in enumerate(rows):
            x["token_ids"][i, : len(row)], x["padding_mask"][i, : len(row)] = row, 1
        found = self.model.log_likelihoods(*self.model.prepare(x))
        sums = [found[i][max(bare[i // count] - 1, 0) :].sum() for i in range(len(rows))]
        return np.reshape(sums, (len(texts), count))


def _softmax(x):
    x = np.exp(x - x.max(axis=1, keepdims=True))
    return x / x.sum(axis=1, keepdims=True)
