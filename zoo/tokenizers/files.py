"""The files of a tokenizer: read from whatever a repository holds, written so that `transformers` reads the same ids.

Special tokens come from the files: `special_tokens_map.json` and `tokenizer_config.json` first, then the ids in
`config.json`, then the vocabulary file itself; only what none of them says is taken from the usual names. It knows file
formats and which family surrounds its texts with which tokens, nothing else of models.
"""

import json
import re
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from zoo import kerashub
from zoo.checkpoint import read_json, write_text
from zoo.tensorflow_files import model_type
from zoo.tokenizers import byte, sentencepiece
from zoo.tokenizers.templates import ROLES, complete, post_processor, special_token

_USUAL = {"pad": ("[PAD]", "<pad>"), "unk": ("[UNK]", "<unk>"), "cls": ("[CLS]", "<cls>"), "sep": ("[SEP]", "<sep>"),
          "mask": ("[MASK]", "<mask>"), "bos": ("<s>", "<bos>", "<|endoftext|>"),
          "eos": ("</s>", "<eos>", "<|endoftext|>")}  # fmt: skip
_TEMPLATES = {  # vocab.txt is BERT's unless the family stands here
    **dict.fromkeys(("albert", "deberta", "debertav2"), "bert"),
    **dict.fromkeys(("roberta", "xlmroberta", "camembert", "bart", "mpnet", "longformer", "led"), "roberta"),
    **dict.fromkeys(("t5", "mt5", "umt5", "longt5", "byt5"), "t5"),
    **dict.fromkeys(("llama", "mistral", "gemma", "gemma2"), "bos"),
}
# Their vocabulary files alone do not say how to cut a text, or number tokens otherwise than the files do.
_NEED_TOKENIZER_JSON = (
    "xlnet", "mbart", "mbart50", "nllb", "m2m100", "pegasus", "barthez", "xglm", "marian", "bertjapanese",
    "phobert", "bertweet", "clip", "openaigpt", "ctrl", "xlm", "herbert", "whisper", "blenderbot", "blenderbotsmall",
)  # fmt: skip
# How byte-level vocabularies that are not cut as GPT-2's were trained: so many digits at a time, composed characters or
# not, and whether a word that is in the vocabulary is taken whole.
_WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
          r"\s+(?!\S)|\s+")  # fmt: skip
_CUTS = {**dict.fromkeys(("qwen2", "qwen3"), ("", True, False)),
         **dict.fromkeys(("llama3", "smollm3"), ("{1,3}", False, True))}  # fmt: skip
_BRACKETED = re.compile(r"[\[<].+[\]>]")  # [MASK], <s>, <|endoftext|>
_KEPT = ("model_max_length", "padding_side", "chat_template")  # settings that are ours only to pass on


def read(directory):
    """The tokenizer in a local directory.

    Returns:
        (Rust tokenizer, dictionary role -> token, dictionary of settings to pass on).

    Raises:
        ValueError: files that are missing, damaged, or contradict each other.
    """
    directory = Path(directory)
    config, settings, special_map, added = (
        read_json(directory / name) if (directory / name).is_file() else {}
        for name in ("config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
    )
    settings = kerashub.tokenizer(directory) or settings
    family = _family(config or {"model_type": model_type(directory)}, settings)
    names, build = _find(directory, family)
    complete_file = names == ("tokenizer.json",)
    if family in _NEED_TOKENIZER_JSON and not complete_file:
        raise ValueError(f"{directory} has {names[0]}, but a {family} tokenizer can be read from tokenizer.json only: "
                         "load it with transformers and save it again.")  # fmt: skip
    backend, found = build(*(directory / name for name in names), family, settings)
    declared = _declared(settings, special_map)
    template = _TEMPLATES.get(family, "bert" if build is _from_wordpiece else None)
    if not complete_file:
        _add_tokens(backend, directory, settings, special_map, added)
    tokens = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    specials = {content for content, token in tokens.items() if token.special}
    roles = _roles(backend, declared, config, found, specials if complete_file else backend.get_vocab())
    roles = {role: token for role, token in complete(roles, template).items() if declared.get(role, "") is not None}
    for role in (role for role in ROLES if role in roles and roles[role] not in specials):
        described = declared[role] if isinstance(declared.get(role), AddedToken) else tokens.get(roles[role])
        left_space = template == "roberta" and build is not _from_wordpiece  # RoBERTa's mask takes the space before it
        backend.add_special_tokens([described or special_token(roles[role], role, left_space)])
    if template in (None, "bos"):
        ends = [end for end in ("bos", "eos") if end in roles and settings.get(f"add_{end}_token", end == template)]
        template = {"": None, "eos": "t5"}.get(name := "_".join(ends), name)
    if template and not complete_file:
        backend.post_processor = post_processor(template, roles, backend.token_to_id)
    if (directory / "chat_template.jinja").is_file():
        settings["chat_template"] = (directory / "chat_template.jinja").read_text(encoding="utf-8")
    return backend, roles, {key: settings[key] for key in _KEPT if settings.get(key) is not None}


def write(directory, backend, roles, settings):
    """Writes `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json`, each whole or not at all."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    special = {f"{role}_token": token for role, token in roles.items()}
    # This class name makes transformers take tokenizer.json as it is, whatever the family. A null role is one that
    # config.json must not fill in.
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    config |= {f"{role}_token": roles.get(role) for role in ROLES} | settings
    for name, content in (("tokenizer_config.json", config), ("special_tokens_map.json", special)):
        write_text(directory / name, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    write_text(directory / "tokenizer.json", backend.to_str(pretty=True))


def _find(directory, family):
    """The names of the files to read, and the function that does; ByT5 needs none."""
    if family == "byt5" and not (directory / "tokenizer.json").is_file():
        return (), byte.read
    for names, build in (_KERASHUB if kerashub.tokenizer(directory) else _BUILDERS).items():
        if all((directory / name).is_file() for name in names):
            return names, build
    found = [name for names in _BUILDERS for name in names if (directory / name).is_file()]
    raise ValueError(
        f"{directory} holds no whole tokenizer: it needs {', or '.join(' with '.join(names) for names in _BUILDERS)}; "
        f"of these it has {' and '.join(found) or 'none'}."
    )


def _family(config, settings):
    """The model type in lower case without dashes; the tokenizer's class knows it better than the model's."""
    name = str(settings.get("tokenizer_class") or config.get("tokenizer_class") or "")
    name = re.sub(r"Tokenizer(Fast)?$", "", name)
    if name in ("", "PreTrained", "TokenizersBackend"):
        name = str(config.get("model_type") or "")
    return re.sub("[^a-z0-9]", "", name.lower())


def _token(value):
    """A token as files write it: a string, or a dictionary of an `AddedToken`'s fields."""
    if isinstance(value, dict):
        fields = {key: bool(value.get(key)) for key in ("lstrip", "rstrip", "single_word", "normalized")}
        return AddedToken(str(value.get("content")), special=bool(value.get("special", True)), **fields)
    return value


def _declared(settings, special_map):
    """Role -> token, or None where a file says there is none."""
    sources = special_map, settings
    return {role: _token(next(source[key] for source in sources if key in source))
            for role in ROLES if any((key := f"{role}_token") in source for source in sources)}  # fmt: skip


def _roles(backend, declared, config, found, known):
    """Role -> token, each from the first that says something: a declaration, config.json, the file, the usual names."""
    roles = {}
    for role in ROLES:
        number = config.get(f"{role}_token_id")
        number = number[0] if isinstance(number, list) and number else number
        token = backend.id_to_token(number) if isinstance(number, int) and number >= 0 else None
        if role in declared:
            roles[role] = getattr(declared[role], "content", declared[role])
        elif token in known and _BRACKETED.fullmatch(token):  # not GPT-2's "!", which is where a config pads with 0
            roles[role] = token
        else:
            roles[role] = found.get(role) or next((token for token in _USUAL[role] if token in known), None)
    return roles


def _add_tokens(backend, directory, settings, special_map, added):
    """Tokens beyond the vocabulary file, under the ids that the files give them."""
    numbered = {int(i): _token(token) for i, token in settings.get("added_tokens_decoder", {}).items()}
    numbered |= {i: AddedToken(token, normalized=False) for token, i in added.items() if i not in numbered}
    for i, token in sorted(numbered.items()):
        backend.add_special_tokens([token]) if token.special else backend.add_tokens([token])
        if backend.token_to_id(token.content) != i:
            raise ValueError(f"The files of {directory} disagree: the added token {token.content!r} should have id "
                             f"{i}, the vocabulary gives it {backend.token_to_id(token.content)}.")  # fmt: skip
    for source in (special_map, settings):
        for key in ("additional_special_tokens", "extra_special_tokens"):
            more = source.get(key) or []
            more = [_token(token) for token in (more.values() if isinstance(more, dict) else more)]
            backend.add_special_tokens([special_token(t) if isinstance(t, str) else t for t in more])


def _from_json(path, family, settings):
    try:
        backend = Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises a bare Exception for whatever is wrong in the file
        raise ValueError(f"{path} is not a tokenizer the `tokenizers` package can read: {error}.") from None
    processor = json.loads(path.read_text(encoding="utf-8")).get("post_processor") or {}
    return backend, {role: processor[role][0] for role in ("cls", "sep") if role in processor}


def _from_wordpiece(path, family, settings):
    """BERT's `vocab.txt`; where nothing says `do_lower_case`, a vocabulary without capitals lower-cases."""
    tokens = path.read_text(encoding="utf-8").split("\n")
    tokens = [token.rstrip("\r") for token in (tokens[:-1] if tokens[-1] == "" else tokens)]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    unk = _token(settings.get("unk_token")) or "[UNK]"
    cased = any(token != token.lower() for token in tokens if not _BRACKETED.fullmatch(token))
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token=str(getattr(unk, "content", unk))))
    backend.normalizer = normalizers.BertNormalizer(
        lowercase=bool(settings.get("do_lower_case", not cased)), strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
    )  # fmt: skip
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    return backend, {}


def _from_bpe(vocabulary, merges, family, settings):
    """GPT-2's byte-level BPE, in its own file names or those of `transformers`."""
    try:
        model = models.BPE.from_file(str(vocabulary), str(merges))
    except Exception as error:
        raise ValueError(f"{vocabulary} and {merges.name} are not a byte-pair encoding: {error}.") from None
    backend = Tokenizer(model)
    prefix = bool(settings.get("add_prefix_space", False))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=family not in _CUTS)
    backend.decoder = decoders.ByteLevel()
    if family in _CUTS:
        digits, composed, model.ignore_merges = _CUTS[family]
        words = pre_tokenizers.Split(Regex(_WORDS.replace("DIGITS", digits)), behavior="isolated")
        backend.pre_tokenizer = pre_tokenizers.Sequence([words, backend.pre_tokenizer])
        backend.normalizer = normalizers.NFC() if composed else None
    return backend, {}


_BUILDERS = {
    ("tokenizer.json",): _from_json,
    ("spiece.model",): sentencepiece.read,
    ("sentencepiece.bpe.model",): sentencepiece.read,
    ("tokenizer.model",): sentencepiece.read,
    ("spm.model",): sentencepiece.read,
    ("vocab.txt",): _from_wordpiece,
    ("vocab.json", "merges.txt"): _from_bpe,
    ("encoder.json", "vocab.bpe"): _from_bpe,
}
_KERASHUB = {
    ("assets/tokenizer/vocabulary.json", "assets/tokenizer/merges.txt"): _from_bpe,
    ("assets/tokenizer/vocabulary.txt",): _from_wordpiece,
    ("assets/tokenizer/vocabulary.spm",): sentencepiece.read,
}
