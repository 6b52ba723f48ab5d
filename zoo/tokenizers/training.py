"""Trains a tokenizer: byte-level BPE, WordPiece, Unigram, characters or bytes. The same text gives the same file.

It knows texts and kinds of tokenizers; it knows nothing of models and writes nothing.
"""

import os
from collections import Counter
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from zoo.tokenizers import byte
from zoo.tokenizers.templates import ROLES, complete, post_processor, special_token
from zoo.tokenizers.unigram import repeated, train_pieces

_END = "<|endoftext|>"
_ROLES = {
    "bpe": {"bos": _END, "eos": _END, "pad": _END},
    "wordpiece": {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
    "unigram": {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"},
    "char": {"bos": _END, "eos": _END, "pad": _END, "unk": "\ufffd"},
    "byte": {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"},
}
_TEMPLATE = {"wordpiece": "bert", "unigram": "t5", "byte": "t5"}
_SENTINELS = {"unigram": 100, "byte": 125}
_EMPTY = "The corpus is empty: there is no text to train a tokenizer on."
_CHUNK = 1 << 16  # characters of a file read at once


def train(source, kind, vocabulary_size, special_tokens, lowercase, num_sentinels, template, progress):
    """A trained Rust tokenizer and its roles; the arguments are those of `Tokenizer.train`."""
    if kind not in _KINDS:
        raise ValueError(f"Unknown kind of tokenizer {kind!r}; known are {', '.join(_KINDS)}.")
    template = template or _TEMPLATE.get(kind)
    roles, plain = _roles(kind, special_tokens, template)
    specials = [special_token(token, role, left_space=kind == "bpe") for role, token in roles.items()]
    specials = list({token.content: token for token in [*specials, *map(special_token, plain)]}.values())
    if template:
        post_processor(template, roles, lambda token: 0)  # complains before the work, not after
    num_sentinels = _SENTINELS.get(kind, 0) if num_sentinels is None else num_sentinels
    room = vocabulary_size - num_sentinels
    reserved = f"{len(specials)} special tokens and {num_sentinels} sentinels"
    alphabet = 256 if kind in ("bpe", "byte") else 1
    if room < len(specials) + alphabet:
        raise ValueError(
            f"vocabulary_size={vocabulary_size} is too small for a {kind} tokenizer with {reserved}: "
            f"it needs at least {len(specials) + num_sentinels + alphabet}."
        )
    try:
        backend = _KINDS[kind](_texts(source), room, specials, roles.get("unk"), lowercase, progress)
    except _TooSmall as error:
        raise ValueError(f"vocabulary_size={vocabulary_size} is too small beside {reserved}: {error}.") from None
    backend.add_special_tokens(specials)
    if template:
        backend.post_processor = post_processor(template, roles, backend.token_to_id)
    return backend, roles, num_sentinels


class _TooSmall(Exception):
    pass


def _roles(kind, special_tokens, template):
    """Roles in the order of their ids, and the special tokens that have none."""
    plain = []
    if isinstance(special_tokens, dict):
        if unknown := [role for role in special_tokens if role not in ROLES]:
            raise ValueError(f"special_tokens has the unknown role {unknown[0]!r}; known are {', '.join(ROLES)}.")
        roles = special_tokens | {r: t for r, t in _ROLES[kind].items() if r not in special_tokens}
    elif isinstance(special_tokens, str):
        raise ValueError(f"special_tokens must be a dictionary or a list, got the string {special_tokens!r}.")
    else:
        roles, plain = _ROLES[kind], list(special_tokens or ())
    roles = complete(roles, template)
    if bad := [token for token in [*roles.values(), *plain] if not isinstance(token, str) or not token]:
        raise ValueError(f"special_tokens must be non-empty strings, got {bad[0]!r}.")
    if kind != "bpe" and "unk" not in roles:
        raise ValueError(f"A {kind} tokenizer needs an unk token for characters it has never seen.")
    return roles, plain


def _texts(source):
    """The texts of a path, a list of paths, or any iterable of strings."""
    files = []
    if isinstance(source, str | os.PathLike):
        files = source = [source]
    elif isinstance(source, list | tuple):
        files = [x for x in source if isinstance(x, os.PathLike) or (isinstance(x, str) and os.path.isfile(x))]
    if files and (missing := [x for x in source if not os.path.isfile(x)]):
        raise ValueError(f"{str(missing[0])[:200]!r} is not a file; to train on text itself give a list of strings.")
    return _checked(_lines(files) if files else source)


def _lines(files):
    """Files in chunks of whole lines: long enough that blank lines are seen, short enough to be spread over cores."""
    for path in files:
        try:
            with Path(path).open(encoding="utf-8", newline="") as file:
                while lines := file.readlines(_CHUNK):
                    yield "".join(lines)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text: {error}.") from None


def _checked(texts):
    empty = True
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"A tokenizer is trained on strings; text {i} is of type {type(text).__name__}.")
        empty = empty and not text.strip()
        yield text
    if empty:
        raise ValueError(_EMPTY)


def _bpe(texts, size, specials, unk, lowercase, progress):
    """GPT-2's: bytes as characters, so every text has ids and comes back as it was."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.Lowercase() if lowercase else None
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, min_frequency=2, special_tokens=specials, show_progress=progress,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    backend.train_from_iterator(texts, trainer)
    return backend


def _wordpiece(texts, size, specials, unk, lowercase, progress):
    """BERT's: words and punctuation apart, pieces inside a word begin with `##`."""
    words = Counter()
    for text in texts:
        words.update(text.split())

    def run(texts, known, size, progress=False):
        backend = Tokenizer(models.WordPiece(unk_token=unk))
        backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece(prefix="##")
        trainer = trainers.WordPieceTrainer(
            vocab_size=size, min_frequency=2, special_tokens=known, show_progress=progress
        )
        backend.train_from_iterator(texts, trainer)
        return backend

    # The Rust trainer numbers `##x` in random order, and numbers decide ties. Given as known tokens they are in ours.
    names = [token.content for token in specials]
    alphabet = sorted(run(words, [], 0).get_vocab())
    if len(names) + len(alphabet) > size:
        raise _TooSmall(f"there are {len(alphabet)} different characters, counted apart inside words")
    backend = run(repeated(words), names + [token for token in alphabet if token not in names], size, progress)
    trained = Tokenizer(models.WordPiece(backend.get_vocab(with_added_tokens=False), unk_token=unk))
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        setattr(trained, part, getattr(backend, part))  # all but the alphabet as special tokens
    return trained


def _unigram(texts, size, specials, unk, lowercase, progress):
    """T5's: a space belongs to the word it precedes as `▁`; runs of white space count as one."""
    normalizer = normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), *([normalizers.Lowercase()] if lowercase else [])]
    )
    words = Counter()
    for text in texts:
        words.update(normalizer.normalize_str(text).split())
    if not words:
        raise ValueError(_EMPTY)
    words, names = Counter({"▁" + word: count for word, count in words.items()}), [t.content for t in specials]
    alphabet = set().union(*words)
    if len(names) + len(alphabet) > size:
        raise _TooSmall(f"there are {len(alphabet)} different characters")
    pieces = train_pieces(words, size - len(names), progress)
    pieces = [(name, 0.0) for name in names] + [piece for piece in pieces if piece[0] not in names]
    backend = Tokenizer(models.Unigram(pieces, names.index(unk)))
    backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    backend.decoder = decoders.Metaspace()
    return backend


def _char(texts, size, specials, unk, lowercase, progress):
    """Each character a token: a byte-pair encoding without a single merge."""
    normalizer, alphabet = normalizers.Lowercase(), set()
    for text in texts:
        alphabet.update(normalizer.normalize_str(text) if lowercase else text)
    tokens = list(dict.fromkeys([token.content for token in specials] + sorted(alphabet)))
    if len(tokens) > size:
        raise _TooSmall(f"there are {len(alphabet)} different characters")
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, [], unk_token=unk))
    backend.normalizer = normalizer if lowercase else None
    backend.decoder = decoders.Fuse()
    return backend


def _byte(texts, size, specials, unk, lowercase, progress):
    """Each byte a token; the texts are not read."""
    backend = byte.tokenizer([token.content for token in specials])
    backend.normalizer = normalizers.Lowercase() if lowercase else None
    return backend


_KINDS = {"bpe": _bpe, "wordpiece": _wordpiece, "unigram": _unigram, "char": _char, "byte": _byte}
