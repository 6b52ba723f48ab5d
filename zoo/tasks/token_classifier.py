"""TokenClassifier: a label for each token, or for each word through its first sub-word."""

import re

import keras
import numpy as np

from zoo.metrics import entities
from zoo.tasks.downstream import Classifier, whole_numbers
from zoo.tasks.task import is_text


def is_words(x):
    """Whether x is a list of texts that are lists of words."""
    return isinstance(x, (list, tuple)) and len(x) > 0 and all(isinstance(t, (list, tuple)) and is_text(t) for t in x)


@keras.saving.register_keras_serializable("zoo")
class TokenClassifier(Classifier):
    """A backbone with a classifier on every token (Devlin et al. 2019, section 5.3).

    Called on the batch dictionary; returns logits (b, t, num_classes), float32. `fit` takes texts as lists of words,
    with as many labels each; a word's label stands at its first sub-word, the other sub-words have none. With the
    dictionary, labels are (b, t), and padding has none.

    Args:
        backbone: an encoder or decoder `Backbone`; of an encoder-decoder, its encoder alone.
        tokenizer: a `Tokenizer`, for words.
        num_classes, labels: number of labels, or their names in order, such as `["O", "B-PER", "I-PER"]`.
        head: dictionary of what differs from the family's head.

    Example:

    ```python
    from zoo import BERTBackbone, TokenClassifier, Tokenizer

    words, tags = [["Ada", "met", "Alan"]] * 8, [["NAME", "O", "NAME"]] * 8
    tokenizer = Tokenizer.train([" ".join(text) for text in words], kind="wordpiece", vocabulary_size=100)
    backbone = BERTBackbone(vocabulary_size=tokenizer.vocabulary_size, num_layers=1, num_heads=2, hidden_dim=16,
                            intermediate_dim=32, max_sequence_length=16)
    tagger = TokenClassifier(backbone, tokenizer, labels=["O", "NAME"])
    tagger.fit(words, tags, verbose=0)
    tagger.tag(words[:1])  # [["NAME", "O", "NAME"]], once it has learnt
    ```
    """

    architectures = ("encoder", "decoder")
    default_name = "token_classifier"
    labels_are_by_token = True

    def is_raw(self, x):
        return is_words(x) or super().is_raw(x)

    def inputs_of(self, x):
        return super().inputs_of([" ".join(words) for words in x] if is_words(x) else x)

    def prepare(self, x, y=None):
        """Lists of words and of labels to (x, labels, weights): the first sub-word of a word has its label."""
        if isinstance(x, dict) or not is_words(x) or y is None:
            raise ValueError("TokenClassifier takes lists of words with lists of labels, or a dictionary with labels.")
        if len(x) != len(y):
            raise ValueError(f"{len(y)} lists of labels do not go with {len(x)} texts.")
        for i, (words, tags) in enumerate(zip(x, y)):
            if len(words) != len(tags):
                raise ValueError(f"Text {i} has {len(words)} words, but {len(tags)} labels.")
        inputs, first = self.inputs_of(x), self._first_tokens(x)
        flat = whole_numbers(self.numbered([tag for tags in y for tag in tags]), (sum(map(len, y)),), len(self.labels))
        labels, weights, start = np.zeros(inputs["token_ids"].shape, "int32"), None, 0
        weights = np.zeros(labels.shape, "float32")
        for i, tokens in enumerate(first):
            held = tokens >= 0
            labels[i, tokens[held]] = flat[start : start + len(tokens)][held]
            weights[i, tokens[held]] = 1
            start += len(tokens)
        return inputs, labels, weights

    def _first_tokens(self, texts):
        """For each text, an array: the position of each word's first token, -1 for a word that was cut off."""
        limit, found = self.length_limit, []
        for words, encoding in zip(texts, self.tokenizer.encode_with_offsets([" ".join(w) for w in texts],
                                                                           max_length=limit)):  # fmt: skip
            starts = np.cumsum([0] + [len(word) + 1 for word in words[:-1]])
            first = np.full(len(words), -1)
            for position in reversed(range(len(encoding.ids))):
                begin, end = encoding.offsets[position]
                if encoding.sequence_ids[position] is not None and end > begin:
                    first[np.searchsorted(starts, begin, side="right") - 1] = position
            found.append(first)
        return found

    def labels_of(self, x, y):
        return whole_numbers(y, x["token_ids"].shape, len(self.labels))

    def tag(self, texts, **kwargs):
        """The likeliest label of each word.

        Args:
            texts: a list of texts, each a list of words.
            kwargs: for `predict`.

        Returns:
            A list a text with a label a word; None for a word beyond the model's length.
        """
        if not is_words(texts):
            raise ValueError("tag takes a list of texts that are lists of words.")
        best = self.predict(texts, **{"verbose": 0, **kwargs}).argmax(axis=-1)
        return [[self.labels[best[i, t]] if t >= 0 else None for t in tokens]
                for i, tokens in enumerate(self._first_tokens(texts))]  # fmt: skip

    def entities(self, texts, **kwargs):
        """What the tags of BIO mark, or of IOBES or BILOU; an I- that no B- precedes begins an entity.

        Args:
            texts: a text or a list of texts, split into words and marks of punctuation; or lists of words.
            kwargs: for `predict`.

        Returns:
            A list (for a list, one a text) of dictionaries: `type`; `start` and `end`, end excluded, in characters of
            a text, or in words; `text`, the words in it.

        Raises:
            ValueError: labels that are no tags of entities.
        """
        if isinstance(texts, str):
            return self.entities([texts], **kwargs)[0]
        places = [list(re.finditer(r"\w+|[^\w\s]", text)) if isinstance(text, str) else None for text in texts]
        words = [text if at is None else [m[0] for m in at] for text, at in zip(texts, places)]
        held = [i for i, text in enumerate(words) if text]
        tags = dict(zip(held, self.tag([words[i] for i in held], **kwargs))) if held else {}
        found = []
        for i, at in enumerate(places):
            spans = entities([tag or "O" for tag in tags.get(i, [])])
            found.append([self._entity(kind, start, end, texts[i], at) for kind, start, end in spans])
        return found

    @staticmethod
    def _entity(kind, start, end, text, places):
        if places is None:
            return {"type": kind, "start": start, "end": end, "text": " ".join(text[start:end])}
        start, end = places[start].start(), places[end - 1].end()
        return {"type": kind, "start": start, "end": end, "text": text[start:end]}
