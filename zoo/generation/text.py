"""Text in, text out: what generation adds to a language model."""

import warnings

import numpy as np

from zoo import samplers
from zoo.generation.loop import decode


class Generation:
    """`generate` and `stream` for CausalLM and Seq2SeqLM."""

    def generate(self, prompts, max_new_tokens=64, sampler=None, stop=(), seed=0, echo=True):
        """Continues prompts.

        Args:
            prompts: a text, a list of texts, or the batch dictionary.
            max_new_tokens: at most so many tokens are added.
            sampler: of `zoo.samplers`; greedy by default.
            stop: strings; a text ends before the first of them.
            seed: integer; the same seed gives the same text on one backend.
            echo: whether a CausalLM's result begins with its prompt.

        Returns:
            A text for a text, a list for a list; for a dictionary token ids (b, length), padded on the right.

        Raises:
            ValueError: a prompt that leaves no position free, or no tokenizer for text.
        """
        if isinstance(prompts, dict):
            return self._generate_ids(prompts, max_new_tokens, sampler, seed, echo)
        single = isinstance(prompts, str)
        texts = [prompts] if single else list(prompts)
        if not texts:
            return []
        rows, memory = self._encode(texts)
        new = self._decode(rows, memory, max_new_tokens, sampler, seed)
        heads = texts if echo and memory is None else [""] * len(texts)
        found = [head + self._cut(self.tokenizer.decode(ids), stop)[0] for head, ids in zip(heads, new)]
        return found[0] if single else found

    def stream(self, prompt, max_new_tokens=64, sampler=None, stop=(), seed=0, echo=True):
        """Yields one text's pieces as they are made; together they are what `generate` returns."""
        rows, memory = self._encode([prompt])
        if echo and memory is None:
            yield prompt
        ids, shown = [], ""
        hold = max(map(len, stop), default=0)  # a stop string may be on its way
        for tokens in self._steps(rows, memory, max_new_tokens, sampler, seed):
            if int(tokens[0]) in self._stop_ids:
                break
            ids.append(int(tokens[0]))
            text, stopped = self._cut(self.tokenizer.decode(ids), stop)
            if stopped:
                yield text[len(shown) :]
                return
            whole = len(text) - hold
            if not text.endswith("\ufffd") and whole > len(shown):  # never half a character
                yield text[len(shown) : whole]
                shown = text[:whole]
        yield self.tokenizer.decode(ids)[len(shown) :]

    @staticmethod
    def _cut(text, stop):
        ends = [at for s in stop if (at := text.find(s)) >= 0]
        return (text[: min(ends)], True) if ends else (text, False)

    @property
    def _stop_ids(self):
        ends = self.config.eos_token_id
        ends = list(ends) if isinstance(ends, tuple) else [ends]
        if self.tokenizer is not None:
            ends.append(self.tokenizer.eos_id)
        return [i for i in ends if i is not None]

    def _encode(self, texts):
        """Prompts to decoder rows, and encoder inputs for an encoder-decoder."""
        if self.config.architecture == "encoder_decoder":
            x = self.inputs_of(texts)
            return [[self.start_id]] * len(texts), x
        if self.tokenizer is None:
            self.tokenized(texts)  # says what is missing
        rows = self.tokenizer.encode(texts)
        start = [i for i in (self.tokenizer.bos_id, self.tokenizer.eos_id) if i is not None][:1]
        return [row or start or [0] for row in rows], None

    def _generate_ids(self, x, max_new_tokens, sampler, seed, echo):
        if self.config.architecture == "encoder_decoder":
            starts = np.full((len(x["token_ids"]), 1), self.start_id, "int32")
            x = self.inputs_of({"decoder_token_ids": starts, **x})
            rows = [list(map(int, row)) for row in x["decoder_token_ids"]]
            memory = {k: v for k, v in x.items() if not k.startswith("decoder_")}
        else:
            x = self.inputs_of(x)
            seen = x.get("padding_mask", x.get("segment_ids", np.ones_like(x["token_ids"])))
            rows = [[int(i) for i in ids[np.asarray(on) > 0]] for ids, on in zip(x["token_ids"], seen)]
            memory = None
        new = self._decode(rows, memory, max_new_tokens, sampler, seed, keep_stop=True)
        whole = [row + ids for row, ids in zip(rows, new)] if echo else new
        pad = self.config.pad_token_id or 0
        out = np.full((len(whole), max(map(len, whole), default=0)), pad, "int32")
        for i, ids in enumerate(whole):
            out[i, : len(ids)] = ids
        return out

    def _steps(self, rows, memory, max_new_tokens, sampler, seed):
        if max_new_tokens < 0:
            raise ValueError(f"max_new_tokens must not be negative, got {max_new_tokens}.")
        longest, limit = max(map(len, rows)), self.config.position_limit
        if limit is not None and longest + max_new_tokens > limit + 1:
            if longest > limit:
                raise ValueError(f"The prompt has {longest} tokens, the model {limit} positions: shorten it.")
            room = limit + 1 - longest
            warnings.warn(f"Only {room} tokens can follow: the model has {limit} positions.", stacklevel=3)
            max_new_tokens = room
        if max_new_tokens == 0:
            return
        yield from decode(self, rows, max_new_tokens, sampler or samplers.Greedy(), seed, self._stop_ids, memory)

    def _decode(self, rows, memory, max_new_tokens, sampler, seed, keep_stop=False):
        """New token ids per row, up to a stop token."""
        steps = [s for s in self._steps(rows, memory, max_new_tokens, sampler, seed)]
        columns = np.stack(steps, axis=1) if steps else np.zeros((len(rows), 0), "int32")
        found = []
        for row in columns:
            ends = np.flatnonzero(np.isin(row, self._stop_ids))
            found.append([int(i) for i in (row[: ends[0] + keep_stop] if len(ends) else row)])
        return found
