"""Seq2SeqLM: one text from another."""

import dataclasses
import json

import keras
import numpy as np

from zoo.generation import translation
from zoo.generation.text import Generation
from zoo.tasks.language_model import LanguageModel


@keras.saving.register_keras_serializable("zoo")
class Seq2SeqLM(Generation, LanguageModel):
    """An encoder-decoder with a vocabulary head (Raffel et al. 2020; Lewis et al. 2020).

    Called on the batch dictionary with `token_ids` (b, t) and `decoder_token_ids` (b, u); returns logits
    (b, u, vocabulary_size), float32. `fit(sources, targets)` takes texts.

    Args:
        backbone: an encoder-decoder `Backbone`.
        tokenizer: a `Tokenizer`, for raw text.

    Example:

    ```python
    import numpy as np
    from zoo import Seq2SeqLM, T5Backbone

    lm = Seq2SeqLM(T5Backbone(vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=16, intermediate_dim=32,
                              decoder_start_token_id=0))
    lm({"token_ids": np.array([[5, 6, 1]]), "decoder_token_ids": np.array([[0, 8]])}).shape  # (1, 2, 100)
    ```
    """

    architectures = ("encoder_decoder",)
    default_name = "seq2seq_lm"
    settings = (*Generation.settings, "task_specific_params")

    def configure(self, generation_config=None, task_specific_params=None):
        """Takes the dictionary `task_specific_params` of a config.json, beside what `Generation` takes."""
        super().configure(generation_config)
        self._task_parameters = json.dumps(task_specific_params)

    @property
    def task_specific_params(self):
        """What config.json says about `summarize` and `translate`, or None."""
        return json.loads(self._task_parameters)

    @classmethod
    def read_settings(cls, path, hf, backbone, given):
        given = {"task_specific_params": hf.get("task_specific_params"), **given}
        return super().read_settings(path, hf, backbone, given)

    def write_settings(self):
        return {} if self.task_specific_params is None else {"task_specific_params": self.task_specific_params}

    def get_config(self):
        return {**super().get_config(), "task_specific_params": self.task_specific_params}

    def call(self, inputs, training=False):
        return self.decoded(self.backbone(inputs, training=training))

    @property
    def start_id(self):
        """The token that begins every target."""
        for value in (self.config.decoder_start_token_id, self.config.bos_token_id):
            if value is not None:
                return value
        raise ValueError("The config has no decoder_start_token_id: build the backbone with one.")

    def summarize(self, texts, **arguments):
        """Summaries of texts, asked for in the words and with the numbers that config.json has for them, if any.

        Args:
            texts: a text, or a list of texts.
            arguments: those of `generate`.

        Returns:
            What `generate` returns.
        """
        return self._ask(texts, translation.summarization(self.task_specific_params), arguments)

    def translate(self, texts, source=None, target=None, **arguments):
        """Translations of texts.

        Args:
            texts: a text, or a list of texts.
            source, target: the languages, as the model's files write them: "en" and "de" for T5, "en_XX" and "de_DE"
                for mBART; neither for a model of one pair, such as Marian.
            arguments: those of `generate`.

        Returns:
            What `generate` returns.

        Raises:
            ValueError: languages that the model does not have, or what `generate` refuses.

        Example:

        ```python
        lm = zoo.Seq2SeqLM.from_preset("t5_small")
        lm.translate("That is good.", source="en", target="de", max_new_tokens=20)
        ```
        """
        parts = translation.translation(self.tokenizer, self.task_specific_params, source, target)
        return self._ask(texts, parts, arguments)

    def _ask(self, texts, parts, arguments):
        prefix, changes = parts
        sampler, first = arguments.get("sampler"), changes.get("forced_bos_token_id")
        if sampler is not None and first is not None:
            arguments["sampler"] = dataclasses.replace(sampler, first_token=first)
        changes |= arguments.pop("generation_config", None) or {}
        texts = prefix + texts if isinstance(texts, str) else [prefix + text for text in texts]
        return self.generate(texts, **arguments, generation_config=changes)

    def prepare(self, x, y=None):
        """Source and target texts to (x, labels, weights): the decoder reads the labels moved right by one."""
        if isinstance(x, dict) or y is None:
            raise ValueError("Seq2SeqLM needs targets: fit(sources, targets) with two lists of texts, or labels y.")
        sources, targets = ([v] if isinstance(v, str) else list(v) for v in (x, y))
        if len(sources) != len(targets):
            raise ValueError(f"{len(sources)} sources do not go with {len(targets)} targets.")
        x, y = self.inputs_of(sources), self.tokenized(targets)
        labels, mask = y["token_ids"], y["padding_mask"]
        start = np.full_like(labels[:, :1], self.start_id)
        x["decoder_token_ids"] = np.concatenate([start, labels[:, :-1]], axis=1)
        return x, labels, mask.astype("float32")

    def score(self, sources, targets, batch_size=16):
        """Log-likelihoods of each target's tokens given its source, a float32 array a pair, in nats.

        Args:
            sources, targets: texts, or lists of as many texts; cut at the positions.
            batch_size: so many are computed together.

        Raises:
            ValueError: lists of different length, or no tokenizer.
        """
        sources, targets = ([v] if isinstance(v, str) else list(v) for v in (sources, targets))
        if len(sources) != len(targets):
            raise ValueError(f"{len(sources)} sources do not go with {len(targets)} targets.")
        found = []
        for start in range(0, len(sources), batch_size):
            part = slice(start, start + batch_size)
            found += self.log_likelihoods(*self.prepare(sources[part], targets[part]))
        return found

    def inputs_of(self, x):
        """Source texts to encoder inputs; a whole dictionary is checked."""
        if isinstance(x, dict):
            return super().inputs_of(x)
        return self.tokenized([x] if isinstance(x, str) else list(x))
