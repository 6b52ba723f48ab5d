"""Summaries and translations: how the files of an encoder-decoder say that it was asked for them in training.

T5 was told by words before the text, which config.json has under `task_specific_params`; mBART and its relatives by a
token of the source's language among the encoder's and one of the target's that begins the decoder's text; others
translate from one language to one. Nothing here generates.
"""

import re

_LANGUAGE = re.compile(r"[a-z]{2,3}_[A-Z]\w+|__[a-z]{2,3}__")  # mBART's en_XX, NLLB's eng_Latn, M2M100's __en__
_PAIR = re.compile(r"translation_(\w+)_to_(\w+)")


def languages(tokenizer):
    """Language -> id of its token, such as {"en_XX": 250004}; empty for tokenizers that have none."""
    tokens = {} if tokenizer is None else {tokenizer.id_to_token(i): i for i in sorted(tokenizer.special_ids)}
    return {token: i for token, i in tokens.items() if _LANGUAGE.fullmatch(token)}


def written(tokenizer):
    """(id, whether it comes first) of the language's token that the tokenizer puts around a text, or None."""
    known, ids = languages(tokenizer).values(), tokenizer.encode("")
    return next(((i, at == 0) for at, i in enumerate(ids) if i in known), None)


def summarization(parameters):
    """(what comes before a text, changes to generation_config.json) of a config.json's `task_specific_params`."""
    return _split((parameters or {}).get("summarization", {}))


def translation(tokenizer, parameters, source, target):
    """The same for a translation from `source` to `target`, which are None for a model of one pair.

    Raises:
        ValueError: languages that the model does not have, with those that it has; or one of them missing.
    """
    pairs = {match.groups(): value for key, value in (parameters or {}).items() if (match := _PAIR.fullmatch(key))}
    if pairs:
        if (source, target) not in pairs:
            known = ", ".join(f"source={a!r}, target={b!r}" for a, b in pairs)
            raise ValueError(f"No translation from {source!r} to {target!r}; this model has {known}.")
        return _split(pairs[source, target])
    known = languages(tokenizer)
    if not known:
        if source is not None or target is not None:
            raise ValueError("This model's files name no languages: leave source and target out, and begin the text as "
                             "the texts of its training began.")  # fmt: skip
        return "", {}
    for name, language in (("source", source), ("target", target)):
        if language not in known:
            raise ValueError(f"{name}={language!r} is no language of this model; it has {', '.join(known)}.")
    if (place := written(tokenizer)) is None:
        raise ValueError("The tokenizer puts no language's token around a text, so it cannot be told the source.")
    # mBART-50 begins both texts with their language; mBART ends the source with it and starts the decoder with it.
    key = "forced_bos_token_id" if place[1] else "decoder_start_token_id"
    return "", {"source_token_id": known[source], key: known[target]}


def _split(given):
    changes = {key: value for key, value in given.items() if key != "prefix"}
    return given.get("prefix", ""), changes
