"""From token ids to text that may be shown: whole characters, up to a stop string.

It knows how tokenizers decode, and nothing of models.
"""

import dataclasses
import re

import numpy as np

_CONTEXT = 8  # tokens of the prompt that say whether a space comes first
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


@dataclasses.dataclass
class Generated:
    """One generated text, for `generate(details=True)`.

    Args:
        text: as `generate` returns it without details.
        token_ids: new ids, without the one that ended the text.
        log_probabilities: float32, one for each of them under the model's own distribution (nats); those of a beam
            are after its constraints.
        score: a beam's score, else the sum of the log-probabilities.
        guessed: how many of the tokens a draft guessed.
    """

    text: str
    token_ids: list
    log_probabilities: np.ndarray
    score: float
    guessed: int = 0


def stops(stop):
    """(strings, token ids) of what `generate` takes as `stop`.

    Raises:
        ValueError: an empty string, or something that is neither.
    """
    given = [stop] if isinstance(stop, (str, int, np.integer)) else list(stop or ())
    strings = [s for s in given if isinstance(s, str)]
    ids = [s for s in given if isinstance(s, (int, np.integer)) and not isinstance(s, bool)]
    if len(strings) + len(ids) < len(given) or "" in strings:
        raise ValueError(f"stop must hold strings that are not empty, or token ids, got {stop!r}.")
    return strings, [int(i) for i in ids]


def cut(text, strings):
    """The text before the first of the stop strings, and whether there is one."""
    ends = [at for s in strings if (at := text.find(s)) >= 0]
    return (text[: min(ends)], True) if ends else (text, False)


def continuation(tokenizer, prompt, ids):
    """The text of new ids after a prompt's; many tokenizers drop the space before a text's first word."""
    context = prompt[-_CONTEXT:]
    head = tokenizer.decode(context) if context else ""
    if not head or head.endswith("\ufffd"):
        return tokenizer.decode(ids)
    whole = tokenizer.decode([*context, *ids])
    return whole[len(head) :] if whole.startswith(head) else tokenizer.decode(ids)


class Pieces:
    """Text as it grows by a token at a time, in pieces that are never taken back.

    Args:
        tokenizer: of the model.
        prompt: ids before the text.
        strings: stop strings.
    """

    def __init__(self, tokenizer, prompt, strings):
        self.tokenizer, self.prompt, self.strings = tokenizer, prompt, strings
        self.ids, self.shown, self.stopped = [], "", False

    def add(self, token):
        """The piece that a token makes certain, often an empty one."""
        self.ids.append(token)
        text, self.stopped = cut(continuation(self.tokenizer, self.prompt, self.ids), self.strings)
        if self.stopped:
            return self._show(text)
        # A run of byte tokens is decoded as a whole, and one wrong byte changes all of it.
        if text.endswith("\ufffd") or _BYTE.fullmatch(self.tokenizer.id_to_token(token) or ""):
            return ""
        return self._show(text[: len(text) - self._begun(text)])

    def rest(self):
        """The piece that was held back, when no token follows."""
        return self._show(cut(continuation(self.tokenizer, self.prompt, self.ids), self.strings)[0])

    def _begun(self, text):
        """How many characters at the end may be the beginning of a stop string."""
        return max((n for s in self.strings for n in range(1, len(s)) if text.endswith(s[:n])), default=0)

    def _show(self, text):
        piece, self.shown = text[len(self.shown) :], max(text, self.shown, key=len)
        return piece
