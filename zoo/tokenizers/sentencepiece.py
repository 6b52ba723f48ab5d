"""Reads a SentencePiece model (`spiece.model` and its other names) into a Rust tokenizer, without `sentencepiece`.

The file is a protobuf message; the few fields that decide ids are read here, by their numbers in
https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto. It knows Unigram and BPE models and
the vocabularies that Hugging Face derived from them; it knows nothing of the other files of a preset.
"""

from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from zoo.tokenizers.templates import special_token

_UNIGRAM, _BPE = 1, 2
_UNKNOWN, _CONTROL, _USER = 2, 3, 4  # types of a piece; all others are read as plain ones
_FAIRSEQ = {  # family -> fairseq's first pieces, and how many of SentencePiece's they replace
    "xlmroberta": (("<s>", "<pad>", "</s>", "<unk>"), 3),
    "camembert": (("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED"), 1),
}


def read(path, family, settings):
    """The tokenizer in a SentencePiece file.

    Args:
        path: the file.
        family: the Hugging Face model type, in lower case without dashes.
        settings: the content of `tokenizer_config.json`.

    Returns:
        (Rust tokenizer, dictionary role -> token).

    Raises:
        ValueError: no SentencePiece model, or one that can't be expressed exactly.
    """
    pieces, trainer, normalizer = _parse(path)
    kind = trainer.get(3, _UNIGRAM)
    if kind not in (_UNIGRAM, _BPE) or trainer.get(24, 0):
        raise ValueError(f"{path} is a SentencePiece word or character model, or marks spaces at the end of words; "
                         "only Unigram and BPE models with spaces at the start are read.")  # fmt: skip
    roles = {role: piece for role, piece in _roles(pieces, trainer).items() if piece}
    unknown = next((i for i, (_, _, type_) in enumerate(pieces) if type_ == _UNKNOWN), None)
    scored = [(piece, score) for piece, score, _ in pieces]
    if family in _FAIRSEQ:  # its first ids in place of SentencePiece's; the mask comes last
        first, replaced = _FAIRSEQ[family]
        scored = [(piece, 0.0) for piece in first] + scored[replaced:]
        unknown, roles = 3, {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}
    if family == "debertav2":
        roles |= {"mask": "[MASK]"}
    if family == "albert":  # as ALBERT's own code splits a comma from the number before it
        scored = [(p, s - 100 if len(p) > 1 and p[-1] == "," and p[-2].isdigit() else s) for p, s in scored]
    fallback = bool(trainer.get(35, 0))
    if kind == _UNIGRAM:
        model = models.Unigram(scored, unknown, fallback)
    else:
        vocabulary = {piece: i for i, (piece, _) in enumerate(scored)}
        model = models.BPE(vocabulary, _merges(scored, vocabulary), unk_token=roles.get("unk"), fuse_unk=True,
                           byte_fallback=fallback)  # fmt: skip
    backend = Tokenizer(model)
    _add_text_rules(backend, normalizer, bool(trainer.get(22, 1)), family, settings)
    backend.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), *([decoders.ByteFallback()] if fallback else []), decoders.Fuse(),
        *([decoders.Strip(" ", 1, 0)] if normalizer.get(3, 1) else []),
    ])  # fmt: skip
    if family not in _FAIRSEQ:
        backend.add_special_tokens([special_token(piece) for piece, _, type_ in pieces if type_ == _CONTROL])
        backend.add_tokens([AddedToken(piece, normalized=False) for piece, _, type_ in pieces if type_ == _USER])
    if family == "t5" and not any("<extra_id_" in piece for piece, _ in scored):
        count = int(settings.get("extra_ids", 100))
        backend.add_special_tokens([special_token(f"<extra_id_{i}>") for i in reversed(range(count))])
    return backend, roles


def _roles(pieces, trainer):
    controls = {piece for piece, _, type_ in pieces if type_ == _CONTROL}
    names = {role: trainer.get(field, default.encode()).decode()
             for role, field, default in (("bos", 46, "<s>"), ("eos", 47, "</s>"), ("pad", 48, "<pad>"))}  # fmt: skip
    roles = {role: name for role, name in names.items() if name in controls}
    return roles | {"unk": next((piece for piece, _, type_ in pieces if type_ == _UNKNOWN), None)}


def _add_text_rules(backend, normalizer, split, family, settings):
    """What SentencePiece does to a text before it looks for pieces, step for step."""
    steps = []
    if family == "albert":
        steps += [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
        steps += [] if settings.get("keep_accents", False) else [normalizers.NFKD(), normalizers.StripAccents()]
    if settings.get("do_lower_case", family == "albert"):
        steps.append(normalizers.Lowercase())
    if charsmap := normalizer.get(2):
        steps.append(normalizers.Precompiled(charsmap))
    tidy = normalizer.get(4, 1)
    if tidy:
        steps += [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    scheme = "never"
    if normalizer.get(3, 1) and settings.get("add_prefix_space", True):
        if settings.get("legacy") is False:
            scheme = "first"  # a text after a special token gets no space of its own
        else:
            steps.append(normalizers.Prepend("▁"))
    backend.normalizer = normalizers.Sequence(steps) if steps else None
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=bool(tidy and split))


def _merges(scored, vocabulary):
    """The pairs SentencePiece would join, best first: it joins whichever neighbours spell the best piece."""
    merges = []
    for piece, score in scored:
        for i in range(1, len(piece)):
            if piece[:i] in vocabulary and piece[i:] in vocabulary:
                merges.append((-score, vocabulary[piece], (piece[:i], piece[i:])))
    return [pair for *_, pair in sorted(merges)]


def _parse(path):
    """Pieces as (text, score, type), trainer and normalizer settings by field number."""
    pieces, settings = [], {2: {}, 3: {}}
    try:
        for number, value in _fields(Path(path).read_bytes()):
            if number == 1:
                piece = dict(_fields(value))
                score = np.frombuffer(piece.get(2, bytes(4)), "<f4")[0]
                # In its fewest digits, which survive tokenizer.json; more would come back with another last bit.
                pieces.append((piece[1].decode(), float(str(score)), piece.get(3, 1)))
            elif number in settings:
                settings[number] = dict(_fields(value))
    except (IndexError, KeyError, TypeError, ValueError):
        pieces = []
    if not pieces:
        raise ValueError(f"{path} is not a SentencePiece model (or is damaged).")
    return pieces, settings[2], settings[3]


def _fields(data):
    """The (field number, value) pairs of a protobuf message: integers, or bytes not yet understood."""
    position, end = 0, len(data)

    def varint():
        nonlocal position
        value = shift = 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while position < end:
        number, wire = divmod(varint(), 8)
        if wire == 0:
            yield number, varint()
            continue
        if wire not in (1, 2, 5):
            raise ValueError(f"wire type {wire}")
        size = varint() if wire == 2 else 8 if wire == 1 else 4
        position += size
        if position > end:
            raise IndexError(position)
        yield number, data[position - size : position]
