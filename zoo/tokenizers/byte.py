"""One token a byte of UTF-8 (ByT5: Xue et al. 2022): a byte-level encoding without merges, so nothing is trained.

It knows the bytes and ByT5's special tokens, no files.
"""

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from zoo.tokenizers.templates import special_token

_ROLES = {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"}


def byte_tokens():
    """The characters that spell bytes 0 to 255 in byte-level encodings: a printable one itself, others the next."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


def tokenizer(specials):
    """A Rust tokenizer with the tokens `specials`, then the 256 bytes."""
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate([*specials, *byte_tokens()])}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def read(family, settings):
    """ByT5's tokenizer, which has no vocabulary file; `extra_ids` sentinels follow the bytes.

    Special tokens take the spaces around them, where the settings do not describe them otherwise.
    """
    backend = tokenizer(_ROLES.values())
    if "added_tokens_decoder" not in settings:
        plain = [token for role, token in _ROLES.items() if not isinstance(settings.get(f"{role}_token"), dict)]
        backend.add_special_tokens([AddedToken(token, lstrip=True, rstrip=True, special=True) for token in plain])
    backend.add_special_tokens([special_token(f"<extra_id_{i}>") for i in range(settings.get("extra_ids", 125))])
    return backend, _ROLES
