"""Text in, text out: what generation adds to a language model."""

import json
import warnings
from pathlib import Path

import numpy as np
from keras import ops

from zoo import sharding
from zoo.checkpoint import read_json
from zoo.generation import contrastive, settings, speculative
from zoo.generation.beam import search
from zoo.generation.loop import decode
from zoo.generation.pieces import Generated, Pieces, continuation, cut, stops
from zoo.generation.translation import written
from zoo.samplers import Beam, Contrastive, Greedy

FILE = "generation_config.json"
LENGTH = 64  # new tokens where neither the user nor the preset says


class Generation:
    """`generate` and `stream` for CausalLM and Seq2SeqLM, and the generation_config.json of their presets."""

    settings = ("generation_config",)

    def configure(self, generation_config=None):
        """Takes the dictionary of a generation_config.json, whose values are the defaults of `generate`."""
        super().configure()
        settings.read(generation_config or {}, self.config.architecture == "encoder_decoder")
        self._generation = json.dumps(generation_config)

    @property
    def generation_config(self):
        """The dictionary of generation_config.json, or None."""
        return json.loads(self._generation)

    @classmethod
    def read_settings(cls, path, hf, backbone, given):
        """The generation_config.json beside the weights, where there is one."""
        file = Path(path) / FILE
        return {"generation_config": read_json(file) if file.is_file() else None, **given}

    def write_files(self):
        """The same file again."""
        return {FILE: self.generation_config} if self.generation_config is not None else {}

    def get_config(self):
        return {**super().get_config(), "generation_config": self.generation_config}

    def generate(self, prompts, max_new_tokens=None, sampler=None, stop=(), seed=0, echo=True, batch_size=32,
                 details=False, add_special_tokens=True, draft=None, draft_tokens=4,
                 generation_config=None):  # fmt: skip
        """Continues prompts.

        Args:
            prompts: a text, a list of texts, or the batch dictionary.
            max_new_tokens: at most so many tokens are added; by default what the preset's generation_config.json says,
                or 64.
            sampler: of `zoo.samplers`; by default what generation_config.json says, or greedy.
            stop: a string, a token id, or a list of them; a text ends before the first of them.
            seed: integer; the same seed gives the same text on one backend, row i the same in any batch.
            echo: whether a CausalLM's result begins with its prompt.
            batch_size: so many prompts are decoded together, those of similar length.
            details: whether to return `Generated`, with token ids and log-probabilities, in place of texts.
            add_special_tokens: False for a CausalLM's prompts that hold the tokens of the template already.
            draft: a smaller model of the same kind and vocabulary that guesses tokens for this one to check, which
                takes less time if it often guesses right (`zoo.generation.speculative`). The likeliest tokens stay the
                same, and drawn ones keep their distribution.
            draft_tokens: how many it guesses at a time.
            generation_config: dictionary of keys of generation_config.json that replace the preset's.

        Returns:
            A text for a text, a list for a list; lists of texts in their place from a beam with several returns. For a
            dictionary token ids (b, length), padded on the right, num_returns rows a prompt.

        Raises:
            ValueError: a prompt that leaves no position free, an empty one in a dictionary, no tokenizer for text, a
                draft of another vocabulary, or arguments out of range.
        """
        strings, extra = stops(stop)
        plan = self._plan(max_new_tokens, sampler, extra, seed, batch_size, details, draft, draft_tokens,
                          generation_config)  # fmt: skip
        if isinstance(prompts, dict):
            if strings or details:
                raise ValueError("Stop strings and details need prompts as text; a dictionary gives token ids alone.")
            return self._generate_ids(prompts, plan, echo)
        single = isinstance(prompts, str)
        texts = [prompts] if single else list(prompts)
        if not texts:
            return []
        rows, memory = self._encode(texts, plan, add_special_tokens)
        done = (lambda row, ids: cut(self._text(row, ids), strings)[1]) if strings else None
        found = []
        for head, row, results in zip(texts, rows, self._run(rows, memory, plan, done)):
            results = [self._finished(head if echo and memory is None else "", row, result, plan, strings)
                       for result in results]  # fmt: skip
            results = results if details else [result.text for result in results]
            found.append(results if plan.num_returns > 1 else results[0])
        return found[0] if single else found

    def stream(self, prompt, max_new_tokens=None, sampler=None, stop=(), seed=0, echo=True, add_special_tokens=True,
               draft=None, draft_tokens=4, generation_config=None):  # fmt: skip
        """Yields one text's pieces as they are made, whole characters; together they are what `generate` returns.

        A beam's text is known at its end only, and comes in one piece.
        """
        strings, extra = stops(stop)
        plan = self._plan(max_new_tokens, sampler, extra, seed, 1, False, draft, draft_tokens, generation_config)
        if isinstance(plan.sampler, Beam):
            if plan.num_returns > 1:
                raise ValueError(f"A stream is one text: a beam with num_returns={plan.num_returns} needs generate.")
            yield self.generate(prompt, max_new_tokens, sampler, stop, seed, echo, generation_config=generation_config,
                                add_special_tokens=add_special_tokens)  # fmt: skip
            return
        rows, memory = self._encode([prompt], plan, add_special_tokens)
        if echo and memory is None:
            yield prompt
        pieces = Pieces(self.tokenizer, rows[0] if memory is None else [], strings)
        for tokens, *_ in self._steps(rows, memory, plan, [0], self._room(rows, plan), at_once=1):
            if int(tokens[0]) in plan.stop_ids:
                break
            if piece := pieces.add(int(tokens[0])):
                yield piece
            if pieces.stopped:
                return
        if piece := pieces.rest():
            yield piece

    def _plan(self, max_new_tokens, sampler, extra, seed, batch_size, scored, draft, draft_tokens, changes):
        """Everything that one call decides, checked."""
        said = {**(self.generation_config or {}), **(changes or {})}
        said = settings.read(said, self.config.architecture == "encoder_decoder")
        if sampler is None:
            said.warn()
        sampler = said.sampler if sampler is None else sampler
        if not callable(getattr(sampler, "constrained", None)):
            raise ValueError(f"sampler must be one of zoo.samplers, such as {Greedy.__name__}(), got {sampler!r}.")
        sampler.check(self.config.vocabulary_size)
        if draft is not None:
            speculative.check(self, draft, sampler, draft_tokens)
        count = (said.max_new_tokens or LENGTH) if max_new_tokens is None else max_new_tokens
        for name, value, least in (("max_new_tokens", count, 0), ("seed", seed, 0), ("batch_size", batch_size, 1)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}.")
        ends = said.stop_ids or self.config.eos_token_id
        ends = list(ends) if isinstance(ends, tuple) else [ends]
        if self.tokenizer is not None:
            ends.append(self.tokenizer.eos_id)
        ids = sorted({int(i) for i in [*ends, *extra] if i is not None and i >= 0})
        if bad := [i for i in extra if not 0 <= i < self.config.vocabulary_size]:
            raise ValueError(f"stop names the token id {bad[0]}, the vocabulary has {self.config.vocabulary_size}.")
        returns = getattr(sampler, "num_returns", 1)
        return settings.Plan(sampler, count, ids, int(seed), int(batch_size), returns, bool(scored), draft,
                             draft_tokens, said.start_id, said.source_id)  # fmt: skip

    def _encode(self, texts, plan, add_special_tokens):
        """Prompts to decoder rows, and encoder inputs for an encoder-decoder."""
        if self.config.architecture == "encoder_decoder":
            x = self.inputs_of(texts)
            if plan.source_id is not None:
                ids = x["token_ids"]
                x["token_ids"] = np.where(ids == written(self.tokenizer)[0], np.int32(plan.source_id), ids)
            return [[self.start_id if plan.start_id is None else plan.start_id]] * len(texts), x
        if self.tokenizer is None:
            self.tokenized(texts)  # says what is missing
        rows = self.tokenizer.encode(texts, add_special_tokens=add_special_tokens)
        start = [i for i in (self.tokenizer.bos_id, self.tokenizer.eos_id) if i is not None][:1]
        return [row or start or [0] for row in rows], None

    def _text(self, row, ids):
        return continuation(self.tokenizer, row if self.config.architecture == "decoder" else [], ids)

    def _finished(self, head, row, result, plan, strings):
        """A `Generated` from a row's ids, up to where a stop string ends it."""
        ids, logs, score, guessed = result
        if ids and ids[-1] in plan.stop_ids:
            ids, logs = ids[:-1], logs[:-1]
        text, stopped = cut(self._text(row, ids), strings)
        if stopped:  # the tokens of the text, and no more than it took to end it
            keep = next(n for n in range(1, len(ids) + 1) if cut(self._text(row, ids[:n]), strings)[1])
            ids, logs = ids[:keep], logs[:keep]
        score = float(np.sum(logs)) if score is None else score
        return Generated(head + text, ids, np.asarray(logs, "float32"), score, sum(guessed[: len(ids)]))

    def _generate_ids(self, x, plan, echo):
        if self.config.architecture == "encoder_decoder":
            start = self.start_id if plan.start_id is None else plan.start_id
            starts = np.full((len(x["token_ids"]), 1), start, "int32")
            x = self.inputs_of({"decoder_token_ids": starts, **x})
            rows = [list(map(int, row)) for row in x["decoder_token_ids"]]
            memory = {k: v for k, v in x.items() if not k.startswith("decoder_")}
        else:
            x = self.inputs_of(x)
            seen = x.get("padding_mask", x.get("segment_ids", np.ones_like(x["token_ids"])))
            rows = [[int(i) for i in ids[np.asarray(on) > 0]] for ids, on in zip(x["token_ids"], seen)]
            memory = None
        if empty := [i for i, row in enumerate(rows) if not row]:
            raise ValueError(f"Row {empty[0]} of the prompts holds no token: begin it with one, such as bos.")
        results = self._run(rows, memory, plan) if rows else []
        whole = [row * echo + ids for row, found in zip(rows, results) for ids, *_ in found]
        out = np.full((len(whole), max(map(len, whole), default=0)), self.config.pad_token_id or 0, "int32")
        for i, ids in enumerate(whole):
            out[i, : len(ids)] = ids
        return out

    def _room(self, rows, plan):
        """How many tokens can follow the longest of the prompts."""
        limits = [model.backbone.position_limit for model in (self, plan.draft) if model is not None]
        longest, limit = max(map(len, rows)), min((n for n in limits if n is not None), default=None)
        if limit is None or longest + plan.max_new_tokens <= limit + 1:
            return plan.max_new_tokens
        if longest > limit:
            raise ValueError(f"The prompt has {longest} tokens, the model {limit} positions: shorten it.")
        room = limit + 1 - longest
        warnings.warn(f"Only {room} tokens can follow: the model has {limit} positions.", stacklevel=4)
        return room

    def _run(self, rows, memory, plan, done=None):
        """Per row a list of (new ids with the stop token, log-probabilities, score or None, which of them a draft
        guessed), a batch at a time.

        Rows of similar length go together; the last batch is filled up, so that all share their programs.
        """
        room = self._room(rows, plan)
        if not room:
            return [[([], [], None, [])] * plan.num_returns for _ in rows]
        order, found, size = np.argsort([len(row) for row in rows], kind="stable"), [None] * len(rows), plan.batch_size
        for start in range(0, len(rows), size):
            part = order[start : start + size]
            filled = np.resize(part, size) if len(rows) > size else part
            batch = [rows[i] for i in filled]
            inputs = None if memory is None else {k: v[filled] for k, v in memory.items()}
            if isinstance(plan.sampler, Beam):
                with sharding.whole(self):
                    texts = search(self, self._prompted(batch), room, plan.sampler, plan.stop_ids, inputs)
                results = [[(text.ids, text.logs, text.score, []) for text in best] for best in texts]
            else:
                results = [[row] for row in self._sampled(batch, inputs, plan, filled, room, done)]
            for i, result in zip(part, results):
                found[i] = result
        return found

    def _steps(self, rows, memory, plan, numbers, room, **kwargs):
        """What the sampler's way of decoding yields, each row with uniform numbers of its own."""
        if not room:
            return
        with sharding.whole(self), sharding.whole(plan.draft):
            yield from self._decoded(rows, memory, plan, numbers, room, **kwargs)

    def _prompted(self, rows):
        """Rows behind the virtual tokens of a decoder's prompt (`zoo.adapters.prompt`), if one is in use."""
        prompt = self.backbone.token.adapter if self.config.architecture == "decoder" else None
        return rows if prompt is None else [[*prompt.ids, *row] for row in rows]

    def _decoded(self, rows, memory, plan, numbers, room, **kwargs):
        rows = self._prompted(rows)
        if isinstance(plan.sampler, Contrastive):
            yield from contrastive.decode(self, rows, room, plan.sampler, plan.stop_ids, memory, plan.scored)
            return
        shape = (room,) if plan.draft is None else (room, speculative.NUMBERS)
        uniform = [np.random.default_rng([plan.seed, int(i)]).random(shape, dtype="float32") for i in numbers]
        given = rows, room, plan.sampler, np.stack(uniform, axis=1), plan.stop_ids, memory, plan.scored
        if plan.draft is None:
            yield from decode(self, *given, **kwargs)
        else:
            yield from speculative.decode(self, plan.draft, plan.draft_tokens, *given)

    def _sampled(self, rows, memory, plan, numbers, room, done):
        """Those of `_run` for one batch; `done(row, ids)` may end a row."""
        ids, guessed, logs, ended = [[] for _ in rows], [[] for _ in rows], [], np.zeros(len(rows), bool)
        for tokens, log, *guesses in self._steps(rows, memory, plan, numbers, room):
            logs += [log] if plan.scored else []
            for i in np.flatnonzero(~ended):
                ids[i].append(int(tokens[i]))
                guessed[i] += [bool(good[i]) for good in guesses]
                ended[i] = tokens[i] in plan.stop_ids or (done is not None and done(rows[i], ids[i]))
            if ended.all():
                break
        logs = ops.convert_to_numpy(ops.stack(logs)) if logs else np.zeros((0, len(rows)))
        return [(row, list(logs[: len(row), i]), None, guessed[i]) for i, row in enumerate(ids)]
