"""The tokenizer of every model: text to token ids and back, in Rust, many texts at once.

It holds a tokenizer of the `tokenizers` package and the roles of its special tokens. It knows no model and no family,
and leaves files to `files.py` and training to `training.py`.
"""

import hashlib
import re
from functools import cached_property
from pathlib import Path

import numpy as np
from tokenizers import processors

from zoo.tokenizers import chat, files, training
from zoo.tokenizers.encoding import inputs, kept, locate, pick, stack, windows
from zoo.tokenizers.templates import ROLES, special_token
from zoo.tokenizers.words import word_tables


class Tokenizer:
    """Text to token ids and back.

    Made by `Tokenizer.train` or `Tokenizer.from_preset`. `pad_id`, `bos_id`, `eos_id`, `unk_id`, `mask_id`, `cls_id`,
    `sep_id` are the ids of special tokens, None where there is none. It can be pickled and used by several threads.

    Args:
        backend: a `tokenizers.Tokenizer`; truncation and padding set in it are switched off.
        roles: dictionary, role (`pad`, `bos`, `eos`, `unk`, `mask`, `cls`, `sep`) -> token.
        settings: dictionary of entries for `tokenizer_config.json`, such as `model_max_length`.

    Raises:
        ValueError: an unknown role, or one whose token is not in the vocabulary.

    Example:

    >>> from zoo.tokenizers import Tokenizer
    >>> tokenizer = Tokenizer.train(["to be or not to be"], kind="char")
    >>> ids = tokenizer.encode("not to be")
    >>> len(ids), tokenizer.decode(ids)
    (9, 'not to be')
    """

    def __init__(self, backend, roles=None, settings=None):
        backend.no_truncation()
        backend.no_padding()
        if backend.post_processor is None:  # else the second text of a pair would have type 0 too
            backend.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
        self._backend, self._roles, self._settings = backend, dict(roles or {}), dict(settings or {})
        for role, token in self._roles.items():
            if role not in ROLES:
                raise ValueError(f"Unknown role {role!r} of a special token; known are {', '.join(ROLES)}.")
            if backend.token_to_id(token) is None:
                raise ValueError(f"The {role} token {token!r} is not in the vocabulary.")

    @classmethod
    def train(cls, files_or_iterable, kind="bpe", vocabulary_size=8192, special_tokens=None, lowercase=False, *,
              num_sentinels=None, template=None, progress=False):  # fmt: skip
        """Trains a tokenizer; the same text gives the same tokenizer.

        Args:
            files_or_iterable: path of a UTF-8 file, list of paths, or any iterable of strings (a list whose strings
                name files is read as files).
            kind: `bpe` (bytes as in GPT-2, Radford et al., 2019: any text comes back as it was), `wordpiece` (BERT,
                Devlin et al., 2018), `unigram` (T5; Kudo, 2018; ends texts with `</s>`), `char` (one a character) or
                `byte` (one a byte; ByT5, Xue et al., 2022; the text is not read).
            vocabulary_size: number of tokens at most, special ones and sentinels included.
            special_tokens: dictionary, role -> token, that overrides the kind's own (None removes a role), or a list of
                tokens without a role beside the kind's own. They get the first ids. The kinds' own are `<|endoftext|>`
                for bos, eos and pad (bpe; char, which adds U+FFFD as unk), `[PAD] [UNK] [CLS] [SEP] [MASK]`
                (wordpiece) and `<pad> </s> <unk>` (unigram, byte).
            lowercase: whether to lower-case text.
            num_sentinels: number of T5's `<extra_id_i>`, on the last ids, descending; 100 for unigram, 125 for byte,
                else 0.
            template: tokens around a text: `bert` `[CLS] A [SEP] B [SEP]`, `roberta` `<s> A </s></s> B </s>`, `t5`
                `A </s> B </s>`, `bos`, `bos_eos`; None for the kind's own (`bert`, `t5`, none).
            progress: whether to show a progress bar.

        Raises:
            ValueError: unknown kind, role or template; no text; a `vocabulary_size` too small for what it must hold.
        """
        arguments = kind, vocabulary_size, special_tokens, lowercase, num_sentinels, template, progress
        backend, roles, num_sentinels = training.train(files_or_iterable, *arguments)
        tokenizer = cls(backend, roles)
        tokenizer.add_sentinels(num_sentinels)
        return tokenizer

    @classmethod
    def from_preset(cls, preset):
        """Reads `tokenizer.json`, a SentencePiece model, BERT's `vocab.txt`, or GPT-2's `vocab.json` with `merges.txt`.

        ByT5 needs no file but the one that says it is ByT5.

        `vocab.txt` lower-cases text as `do_lower_case` in tokenizer_config.json says, and if nothing says so, when the
        vocabulary holds no capital.

        Args:
            preset: a local directory, or `hf://owner/repo`, or a name of `zoo.presets()`.

        Raises:
            ValueError: no whole tokenizer there, a damaged file, or files that contradict each other.
        """
        directory = Path(preset)
        if not directory.is_dir():
            from zoo.pretrained import resolve  # here, because local files need no Hub

            directory = resolve(preset, weights=False)
        try:
            return cls(*files.read(directory))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            place = "" if str(directory) in str(error) else f"{directory} holds a damaged tokenizer: "
            raise ValueError(f"{place}{error}") from None

    def save(self, directory):
        """Writes files that `from_preset` and `transformers.AutoTokenizer` read to the same ids."""
        files.write(directory, self._backend, self._roles, self._settings)

    def encode(self, text, pair=None, add_special_tokens=True, max_length=None):
        """Token ids of a text, or of each text of a list (in parallel).

        Args:
            text: string or list of strings.
            pair: the second text of a pair, or a list as long as `text`.
            add_special_tokens: whether to write the tokens of the template, such as `[CLS]` and `[SEP]`.
            max_length: tokens to cut to, the longer text of a pair first; the template's tokens stay.

        Returns:
            A list of ids, or a list of lists.

        Raises:
            ValueError: something else than strings, or a `max_length` that leaves no room for text.
        """
        encodings = self._encode(text, pair, add_special_tokens, self._backend.encode_batch_fast)
        rows = [pick(encoding.ids, kept(encoding, max_length)) for encoding in encodings]
        return rows[0] if isinstance(text, str) else rows

    def encode_with_offsets(self, text, pair=None, add_special_tokens=True, max_length=None):
        """An `Encoding`, or a list of them for a list: ids, and where in the text each token comes from.

        Arguments and errors are those of `encode`.
        """
        encodings = self._encode(text, pair, add_special_tokens, self._backend.encode_batch)
        one = isinstance(text, str)
        sources = zip([text] if one else text, [pair] if one else pair or [None] * len(text))
        found = [locate(e, texts, kept(e, max_length)) for e, texts in zip(encodings, sources)]
        return found[0] if one else found

    def encode_windows(self, texts, pairs, max_length, overlap):
        """Pairs whose second text is cut into windows that overlap, so that nothing of it is lost.

        Args:
            texts, pairs: lists of as many first and second texts.
            max_length: tokens of a window, the first text and special tokens included; None: windows are whole pairs.
            overlap: tokens of the second text that a window shares with the next.

        Returns:
            A list of `Encoding`, whose offsets are those in the whole texts, and a list of as many numbers of pairs.

        Raises:
            ValueError: as `encode`; a first text that leaves no room.
        """
        whole = self.encode_with_offsets(texts, pairs)
        found = [windows(encoding, max_length, overlap) for encoding in whole]
        cut = [type(e)(*(pick(field, at) for field in e)) for e, places in zip(whole, found) for at in places]
        return cut, [i for i, places in enumerate(found) for _ in places]

    def batch(self, texts, pairs=None, max_length=None, pad_to=None, padding_side="right", add_special_tokens=True):
        """Texts as the arrays a model takes.

        Args:
            texts, pairs, max_length, add_special_tokens: as in `encode`, lists of b strings.
            pad_to: number of tokens t of every row; None for that of the longest.
            padding_side: `right` or `left`.

        Returns:
            Dictionary of int32 arrays (b, t): `token_ids`, `padding_mask` (1 text, 0 padding), and `token_type_ids`
            with `pairs`. Without a pad token padding holds eos, or id 0.

        Raises:
            ValueError: as `encode`; a row longer than `pad_to`; no list.
        """
        if isinstance(texts, str):
            raise ValueError("batch takes a list of texts, got one string: put it in a list.")
        if padding_side not in ("right", "left"):
            raise ValueError(f"padding_side must be 'right' or 'left', got {padding_side!r}.")
        encodings = self._encode(texts, pairs, add_special_tokens, self._backend.encode_batch_fast)
        positions = [kept(encoding, max_length) for encoding in encodings]
        longest = max(map(len, positions), default=0)
        width = longest if pad_to is None else pad_to
        if longest > width:
            raise ValueError(f"A text has {longest} tokens, more than pad_to={pad_to}: give max_length={pad_to} too.")
        ids, types = ([pick(getattr(e, name), p) for e, p in zip(encodings, positions)] for name in ("ids", "type_ids"))
        return self.stacked(ids, None if pairs is None else types, width, padding_side)

    def stacked(self, ids, type_ids=None, width=None, padding_side="right"):
        """Rows of token ids, and of sentence types if there are any, as `batch` gives them; see there."""
        width = max(map(len, ids), default=0) if width is None else width
        padding = next((i for i in (self.pad_id, self.eos_id) if i is not None), 0)
        token_ids, mask = stack(ids, width, padding, padding_side)
        batch = {"token_ids": token_ids, "padding_mask": mask.astype("int32")}
        return batch if type_ids is None else batch | {"token_type_ids": stack(type_ids, width, 0, padding_side)[0]}

    def apply_chat_template(self, messages, add_generation_prompt=True, **variables):
        """A conversation's text, to be encoded with `add_special_tokens=False`; see `zoo.tokenizers.chat.render`."""
        tokens = {f"{role}_token": token for role, token in self._roles.items()}
        template = self._settings.get("chat_template")
        return chat.render(template, messages, tokens, add_generation_prompt, **variables)

    @property
    def has_chat_template(self):
        """Whether it can make the text of a conversation."""
        return bool(self._settings.get("chat_template"))

    def set_chat_template(self, template):
        """Gives it a Jinja template, saved with it; see `zoo.tokenizers.chat`."""
        self._settings["chat_template"] = template

    def decode(self, ids, skip_special_tokens=True):
        """The text of token ids, or a list of texts for a list of lists or an array (b, t).

        Args:
            ids: integers, in a list, a list of lists, or an array of one or two dimensions.
            skip_special_tokens: whether to leave out special tokens.

        Raises:
            ValueError: an id outside the vocabulary, or something else than integers.
        """
        if ids.ndim > 1 if hasattr(ids, "ndim") else len(ids) and np.ndim(ids[0]):
            rows = [self._checked(row).tolist() for row in ids]
            return self._backend.decode_batch(rows, skip_special_tokens=skip_special_tokens)
        return self._backend.decode(self._checked(ids).tolist(), skip_special_tokens=skip_special_tokens)

    def tokenize(self, text):
        """The tokens of a text as strings, without those of the template."""
        return [self._backend.id_to_token(i) for i in self.encode(text, add_special_tokens=False)]

    def id_to_token(self, id):
        """The token of an id, None if it has none."""
        return self._backend.id_to_token(int(id)) if 0 <= id < self.vocabulary_size else None

    def token_to_id(self, token):
        """The id of a token, None if there is no such token."""
        return self._backend.token_to_id(token)

    def add_tokens(self, tokens, special=True):
        """Adds tokens on new ids at the end, found in text as they are written; returns how many were new."""
        if special:
            added = self._backend.add_special_tokens([special_token(token) for token in tokens])
        else:
            added = self._backend.add_tokens(list(tokens))
        for name in ("vocabulary_size", "special_ids", "sentinel_ids", "_word_tables", "fingerprint"):
            self.__dict__.pop(name, None)
        return added

    def add_roles(self, roles):
        """Gives special tokens to roles that have none, `{"mask": "<mask>"}`; returns how many tokens were new.

        Tokens that are not in the vocabulary get new ids at the end.

        Raises:
            ValueError: an unknown role, or one that has a token.
        """
        for role in roles:
            if role not in ROLES:
                raise ValueError(f"Unknown role {role!r} of a special token; known are {', '.join(ROLES)}.")
            if role in self._roles:
                raise ValueError(f"The tokenizer has a {role} token already, {self._roles[role]!r}.")
        added = self.add_tokens(roles.values())
        self._roles |= roles
        self.__dict__.pop("special_ids", None)
        return added

    def add_sentinels(self, count):
        """Adds T5's `<extra_id_0>`, ... on new ids at the end, the first of them on the highest id."""
        if count and self.sentinel_ids:
            raise ValueError(f"The tokenizer has {len(self.sentinel_ids)} sentinels already.")
        return self.add_tokens([f"<extra_id_{i}>" for i in reversed(range(count))])

    @cached_property
    def vocabulary_size(self):
        """Number of ids, added tokens included: the highest id + 1."""
        return max(self._backend.get_vocab().values(), default=-1) + 1

    @cached_property
    def special_ids(self):
        """Set of the ids of all special tokens."""
        added = self._backend.get_added_tokens_decoder()
        return {i for i, token in added.items() if token.special} | {self.token_to_id(t) for t in self._roles.values()}

    @cached_property
    def sentinel_ids(self):
        """Ids of T5's sentinels `<extra_id_0>`, `<extra_id_1>`, ... in this order; empty without."""
        matches = ((re.fullmatch(r"▁?<extra_id_(\d+)>", token), i) for token, i in self._backend.get_vocab().items())
        return [i for _, i in sorted((int(match[1]), i) for match, i in matches if match)]

    @cached_property
    def fingerprint(self):
        """SHA-256 of the serialised tokenizer: the same for the same vocabulary and rules."""
        return hashlib.sha256(self._backend.to_str().encode()).hexdigest()

    @property
    def word_start_table(self):
        """Boolean array (vocabulary_size,): whether a token begins a word; None if the tokens do not tell.

        Told by `##` (WordPiece), `Ġ` (byte-level) or `▁` (SentencePiece); of single characters white space begins a
        word. Special tokens count as words.
        """
        return self._word_tables[0]

    @cached_property
    def _word_tables(self):
        return word_tables(self._backend, self.vocabulary_size, self.special_ids)

    def whole_word_starts(self, ids):
        """Whether each of `ids`, an integer array (..., t), begins a word: a boolean array of the same shape.

        The first token of a row, and one after a special token or a line break, begin a word whatever they are.

        Raises:
            ValueError: tokens do not tell where words begin, or an id outside the vocabulary.
        """
        begins, ends = self._word_tables
        if begins is None:
            raise ValueError("This tokenizer marks where words end, so its tokens do not tell where one begins.")
        ids = self._checked(ids)
        starts = begins[ids]
        starts[..., :1] = True
        starts[..., 1:] |= ends[ids[..., :-1]]
        return starts

    def _checked(self, ids):
        """Ids as an integer array, all of them in the vocabulary."""
        ids = np.asarray(ids)
        if ids.size and not np.issubdtype(ids.dtype, np.integer):
            raise ValueError(f"Token ids must be integers, got {ids.dtype}.")
        outside = ids[(ids < 0) | (ids >= self.vocabulary_size)]
        if outside.size:
            raise ValueError(f"The id {outside[0]} is outside the vocabulary of {self.vocabulary_size} tokens.")
        return ids.astype(int)

    def _encode(self, text, pair, add_special_tokens, encode):
        """Rust encodings of a text or texts, made by `encode`."""
        rows = inputs(text, pair)
        try:
            return encode(rows, add_special_tokens=add_special_tokens)
        except TypeError:  # the types are right, so it is a string that is no Unicode text
            raise ValueError("A text holds half of a surrogate pair: it was decoded wrongly from its bytes.") from None

    def __repr__(self):
        roles = "".join(f", {role}={token!r}" for role, token in self._roles.items())
        return f"Tokenizer({type(self._backend.model).__name__}, vocabulary_size={self.vocabulary_size}{roles})"


def _role_id(role):
    return property(lambda self: self.token_to_id(self._roles[role]) if role in self._roles else None)


for _role in ROLES:
    setattr(Tokenizer, f"{_role}_id", _role_id(_role))
