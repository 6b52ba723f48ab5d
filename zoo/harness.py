"""EleutherAI's language model evaluation harness (Gao et al. 2021) on our language models.

`HarnessLM` answers the three requests of the harness: log-likelihoods of continuations, of whole texts, and generated
text. The tasks, their prompts and metrics are the harness's. It knows no family and no backend.
"""

import warnings

import numpy as np
from keras import ops
from tqdm import tqdm

from zoo import backend, pretrained, samplers
from zoo.generation.loop import bucketed, kept
from zoo.tasks import CausalLM, Seq2SeqLM

try:
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ImportError:
    raise ImportError("The evaluation harness needs lm-eval: pip install keras-zoo[lm-eval].") from None

LENGTH, NEW_TOKENS = 2048, 256  # where neither the model nor the task says
_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_SAMPLING = ("do_sample", "temperature", "top_k", "top_p", "min_p")


@register_model("zoo")
class HarnessLM(TemplateLM):
    """A `CausalLM` or `Seq2SeqLM` as a model of `lm_eval`.

    Args:
        model: the task, with a tokenizer; or a preset, of which the task that generates text is loaded.
        batch_size: rows computed together.
        max_length: tokens of a row; by default the model's positions.
        dtype: dtype policy of a preset that is loaded.
        seed: of what is sampled.

    Example:

    ```python
    import lm_eval
    from zoo.harness import HarnessLM

    lm_eval.simple_evaluate(HarnessLM("gpt2"), tasks=["lambada_openai"])
    ```
    """

    def __init__(self, model, batch_size=16, max_length=None, dtype=None, seed=0, **kwargs):
        super().__init__()
        if unknown := sorted(kwargs.keys() - {"device", "max_batch_size"}):  # which the command of lm-eval adds
            raise ValueError(f"HarnessLM takes no {unknown[0]!r}.")
        self.model = _loaded(model, dtype) if isinstance(model, str) else model
        if not isinstance(self.model, (CausalLM, Seq2SeqLM)) or self.model.tokenizer is None:
            raise ValueError("HarnessLM needs a CausalLM or a Seq2SeqLM with a tokenizer.")
        self.backend = "causal" if isinstance(self.model, CausalLM) else "seq2seq"
        self.batch_size, self.seed = int(batch_size), seed
        limit = self.model.backbone.position_limit or self.model.config.max_sequence_length
        self.max_length = int(max_length or limit or LENGTH)

    @property
    def eot_token_id(self):
        return self.model.tokenizer.eos_id

    @property
    def prefix_token_id(self):
        """What a text without a context begins with."""
        tokenizer = self.model.tokenizer
        return tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id

    @property
    def tokenizer_name(self):
        return self.model.name

    def apply_chat_template(self, chat_history, add_generation_prompt=True):
        return self.model.tokenizer.apply_chat_template(chat_history, add_generation_prompt)

    def tok_encode(self, string, add_special_tokens=None, **kwargs):
        special = not self._begins(string) if add_special_tokens is None else add_special_tokens
        return self.model.tokenizer.encode(string, add_special_tokens=special)

    def _begins(self, text):
        """Whether a text holds its first token already, as that of a chat template does."""
        bos = self.model.tokenizer.bos_id
        return bos is not None and text.startswith(self.model.tokenizer.id_to_token(bos))

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        """Log-likelihoods of whole texts, in windows of `max_length` where they are longer."""
        texts = [request.args[0] for request in requests]
        windows = [(None, *make_disjoint_window(window), i) for i, text in enumerate(texts)
                   for window in get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id,
                                                           self.max_length, context_len=1)]  # fmt: skip
        found = self._loglikelihood_tokens([window[:3] for window in windows], disable_tqdm)
        sums = np.zeros(len(texts))
        np.add.at(sums, [window[3] for window in windows], [score for score, _ in found])
        for text, score in zip(texts, sums):
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), float(score))
        return list(map(float, sums))

    def _loglikelihood_tokens(self, requests, disable_tqdm=False):
        """(log-likelihood, whether greedy decoding gives it) of each continuation's tokens.

        Continuations that differ in their last token alone, as the letters of a multiple choice do, share a row.
        """
        groups = {}
        for number, (_, context, continuation) in enumerate(requests):
            if len(continuation) > self.max_length:
                raise ValueError(f"A continuation has {len(continuation)} tokens, a row {self.max_length}.")
            if self.backend == "causal":
                context = (context + continuation)[-self.max_length - 1 : -1]
                key = tuple(context)
            else:
                context = context[-self.max_length :]
                key = (tuple(context), tuple(continuation[:-1]))
            groups.setdefault(key, (context, []))[1].append((number, continuation))
        rows = sorted(groups.values(), key=lambda row: -len(row[0]))
        found = [None] * len(requests)
        with tqdm(total=len(requests), disable=disable_tqdm, desc="log-likelihoods") as bar:
            for start in range(0, len(rows), self.batch_size):
                part = rows[start : start + self.batch_size]
                for number, result in self._batch(part):
                    found[number] = result
                    bar.update()
                    if requests[number][0] is not None:
                        self.cache_hook.add_partial("loglikelihood", requests[number][0], result)
        return found

    def _batch(self, rows):
        """Yields (number, (log-likelihood, greedy)) of rows (tokens, [(number, continuation)])."""
        width = self._width(max(len(ids) for ids, _ in rows))
        count, most = max(self.batch_size, len(rows)), max(len(asked) for _, asked in rows)
        x = {name: np.zeros((count, width), "int32") for name in ("token_ids", "padding_mask")}
        x["padding_mask"][:, 0] = 1  # rows that fill the batch are one token
        for i, (ids, _) in enumerate(rows):
            x["token_ids"][i, : len(ids)], x["padding_mask"][i, : len(ids)] = ids, 1
        if self.backend == "seq2seq":
            width = self._width(max(len(labels) for _, asked in rows for _, labels in asked))
        labels = np.zeros((count, width, most), "int32")
        ends = np.zeros((count,), int)
        for i, (ids, asked) in enumerate(rows):
            ends[i] = len(ids) if self.backend == "causal" else len(asked[0][1])
            for j, (_, continuation) in enumerate(asked):
                labels[i, ends[i] - len(continuation) : ends[i], j] = continuation
        if self.backend == "seq2seq":
            start = np.full((count, 1), self.model.start_id, "int32")
            x["decoder_token_ids"] = np.concatenate([start, labels[:, :-1, 0]], axis=1)
        tensors = {key: ops.convert_to_tensor(value) for key, value in x.items()}
        program = kept(self.model, "harness", lambda: backend.compiled(self._scored, self.model.variables))
        scores, greedy = map(ops.convert_to_numpy, program(tensors, ops.convert_to_tensor(labels)))
        for i, (_, asked) in enumerate(rows):
            for j, (number, continuation) in enumerate(asked):
                place = i, slice(ends[i] - len(continuation), ends[i]), j
                yield number, (float(scores[place].sum()), bool(greedy[place].all()))

    def _width(self, length):
        return max(length, min(bucketed(length), self.max_length))

    def _scored(self, x, labels):
        """Log-probabilities of labels (b, t, k), and whether they are the likeliest tokens."""
        logits = ops.cast(self.model(x), "float32")
        scores = ops.take_along_axis(ops.log_softmax(logits, axis=-1), labels, axis=-1)
        return scores, ops.equal(ops.cast(ops.argmax(logits, axis=-1), "int32")[..., None], labels)

    def generate_until(self, requests, disable_tqdm=False):
        """Continuations of prompts, each up to its stop strings; prompts are cut on the left to leave them room."""
        groups, found = {}, [None] * len(requests)
        for number, request in enumerate(requests):
            text, settings = request.args
            stop, count, sampler = _settings(settings)
            room = self.max_length - count if self.backend == "causal" else self.max_length
            if room < 1:
                raise ValueError(f"{count} new tokens leave no room for a prompt in {self.max_length}.")
            prompt, special = self._cut(text, room)
            groups.setdefault((repr(settings), special), (stop, count, sampler, []))[3].append((number, prompt))
        with tqdm(total=len(requests), disable=disable_tqdm, desc="generation") as bar:
            for (_, special), (stop, count, sampler, prompts) in groups.items():
                for start in range(0, len(prompts), self.batch_size):
                    part = prompts[start : start + self.batch_size]
                    texts = self.model.generate(
                        [prompt for _, prompt in part], count, sampler, stop, self.seed + start, echo=False,
                        batch_size=self.batch_size, add_special_tokens=special,
                    )  # fmt: skip
                    for (number, _), text in zip(part, texts):
                        found[number] = text
                        self.cache_hook.add_partial("generate_until", requests[number].args, text)
                    bar.update(len(texts))
        return found

    def _cut(self, text, room):
        """A text without what its last `room` tokens leave out, and whether tokens of the template are among these."""
        special = not (self.backend == "causal" and self._begins(text))
        encoding = self.model.tokenizer.encode_with_offsets(text, add_special_tokens=special)
        if len(encoding.ids) <= room:
            return text, special
        warnings.warn(f"A prompt of {len(encoding.ids)} tokens is cut to its last {room}.", stacklevel=2)
        kept = [*zip(encoding.offsets, encoding.sequence_ids)][-room:]
        start = next(start for (start, _), owner in kept if owner is not None)
        return text[start:], any(owner is None for _, owner in kept)


def _loaded(preset, dtype):
    architecture = pretrained.read(pretrained.resolve(preset))[1].architecture
    return (Seq2SeqLM if architecture == "encoder_decoder" else CausalLM).from_preset(preset, dtype=dtype)


def _settings(given):
    """(stop strings, number of new tokens, sampler) of what the harness says about generation."""
    given = dict(given)
    stop = given.pop("until", None) or []
    counts = [count for name in _LIMITS if (count := given.pop(name, None)) is not None]
    options = {name: given.pop(name) for name in _SAMPLING if name in given}
    if given:
        raise ValueError(
            f"Generation takes no {next(iter(given))!r}; it takes until, {', '.join(_LIMITS + _SAMPLING)}."
        )
    draws, temperature = options.pop("do_sample", None), options.pop("temperature", None)
    if draws is None:
        draws = bool(temperature)
    sampler = samplers.Sampler(0.0 if not draws else 1.0 if temperature is None else temperature, **options)
    stop = [text for text in ([stop] if isinstance(stop, str) else stop) if text]
    return stop, int(counts[0]) if counts else NEW_TOKENS, sampler
