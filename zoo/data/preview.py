"""Batches as readable text: what a model will see and what it has to say. It knows keys of a batch, no objective."""

import os
import sys

import numpy as np

# What is marked, how it is written without colour, and its colour (ANSI).
STYLES = {
    "hidden": ("«{}»", "31"),  # a mask, or another token in its place, and what is to be said there
    "replaced": ("<{}>", "33"),
    "target": ("{}", "32"),
    "read": ("{}", "2"),
    "boundary": ("{}", "36;1"),
}
BOUNDARY = " ┃ "


def preview(batches, tokenizer=None, rows=2, color=None, file=None):
    """Prints the first rows of a batch as text, and returns that text.

    Documents of a row are divided by ┃, padding is left out and counted, ⏎ is a line break. A token to be predicted in
    its place (masked LM) reads «shown → wanted», a replaced one <shown>. Other targets stand in a line of their own,
    without those of weight 0, and so does what a decoder reads, or the order of a permutation.

    Args:
        batches: a `Pretraining` loader, of which the first batch is taken, or a batch (x, y, w).
        tokenizer: has `decode`; None = the loader's.
        rows: how many rows.
        color: whether to use ANSI colours; None = if `file` is a terminal and NO_COLOR is not set.
        file: where to print; None = standard output.

    Raises: ValueError for a batch without a tokenizer, and for what is no batch.

    >>> from zoo import Tokenizer, data
    >>> tokenizer = Tokenizer.train(["to be or not to be"], kind="wordpiece", vocabulary_size=40)
    >>> objective = data.MaskedLM(0.3, mask_share=1, random_share=0, whole_word=True).bind(tokenizer, 12)
    >>> batch = objective(tokenizer.batch(["to be or not to be"], pad_to=12), np.random.default_rng(0))
    >>> _ = data.preview(batch, tokenizer, color=False)  # doctest: +NORMALIZE_WHITESPACE
    row 0: 12 places, 1 document, 8% padding
    input:  [CLS] to «[MASK] → be» «[MASK] → o» «[MASK] → ##r» not to be [SEP]
    <BLANKLINE>
    """
    if hasattr(batches, "batch"):
        tokenizer = tokenizer or batches.objective.tokenizer
        batches = batches.batch(0)
    if not (isinstance(batches, (tuple, list)) and len(batches) == 3 and isinstance(batches[0], dict)):
        raise ValueError(f"preview takes a loader or a batch (x, y, w), got {type(batches).__name__}.")
    if tokenizer is None:
        raise ValueError("preview needs a tokenizer to show a batch: preview(batch, tokenizer).")
    file = file or sys.stdout
    if color is None:
        color = file.isatty() and "NO_COLOR" not in os.environ
    x, y, w = ({key: np.asarray(value) for key, value in batches[0].items()}, *map(np.asarray, batches[1:]))
    writer = _Writer(tokenizer, color)
    lines = []
    for row in range(min(rows, len(y))):
        one = {key: value[row] for key, value in x.items()}
        lines += [f"row {row}: {_counts(one)}", *writer.row(one, y[row], w[row]), ""]
    text = "\n".join(lines)
    print(text, file=file)
    return text


def _counts(x):
    segments = x.get("segment_ids", x.get("padding_mask"))
    if segments is None:
        return f"{x['token_ids'].size} tokens"
    texts = np.atleast_2d(segments)
    count = sum(len(np.unique(one[one > 0])) for one in texts)
    return f"{segments.size} places, {count} document{'s' * (count != 1)}, {np.mean(segments == 0):.0%} padding"


class _Writer:
    """Rows of one tokenizer as lines."""

    def __init__(self, tokenizer, color):
        self.tokenizer, self.color = tokenizer, color

    def row(self, x, y, w):
        ids, segments = x["token_ids"], x.get("segment_ids", x.get("padding_mask", np.ones_like(x["token_ids"])))
        if ids.ndim == 2:
            for number, (one, segment) in enumerate(zip(ids, segments), 1):
                yield f"text {number}: {self.text(one, segment)}"
        elif "mask_positions" in x:
            wanted = dict(zip(x["mask_positions"][w > 0].tolist(), y[w > 0].tolist()))
            yield f"input:  {self.text(ids, segments, wanted)}"
        elif y.ndim == 0 or "decoder_token_ids" in x:
            yield f"input:  {self.text(ids, segments)}"
        else:
            judged = set(np.unique(y[w > 0])) <= {0, 1}
            replaced = set(np.flatnonzero((y > 0) & (w > 0))) if judged else ()
            yield f"input:  {self.text(ids, segments, replaced=replaced)}"
            if not judged:
                yield f"target: {self.text(np.where(w > 0, y, 0), np.where(w > 0, segments, 0), style='target')}"
        if "decoder_token_ids" in x:
            seen = x.get("decoder_segment_ids", np.ones_like(y))
            yield f"reads:  {self.text(x['decoder_token_ids'], seen, style='read')}"
            yield f"target: {self.text(y, np.where(w > 0, seen, 0), style='target')}"
        if "permutation" in x:
            places = x["mask_positions"][w > 0]
            yield f"order:  {places[np.argsort(x['permutation'][places])].tolist()}"
        if y.ndim == 0:
            yield f"label:  {self.styled(str(y) if w > 0 else 'none', 'target')}"

    def text(self, ids, segments, wanted=None, replaced=(), style=None):
        """One line: the tokens that are no padding, marked where they are `wanted` (place -> id) or `replaced`."""
        wanted, real, line, plain, before = wanted or {}, np.flatnonzero(segments), [], "", None

        def add(text, mark, piece=""):
            nonlocal plain
            line.extend([self.styled(plain, style) if style and plain else plain, self.styled(text, mark, piece)])
            plain = ""

        for place, piece in zip(real.tolist(), self.pieces(ids[real])):
            if before not in (None, segments[place]):
                add(BOUNDARY, "boundary")
            before = segments[place]
            if place in wanted:
                label = self.tokenizer.decode([wanted[place]], skip_special_tokens=False)
                add(f"{piece.strip()} → {label.strip()}", "hidden", piece)
            elif place in replaced:
                add(piece.strip(), "replaced", piece)
            else:
                plain += piece
        return "".join([*line, self.styled(plain, style) if style and plain else plain])

    def pieces(self, ids):
        """What each token adds to the text before it."""
        found, before = [], ""
        for end in range(1, len(ids) + 1):
            start = max(0, end - 40)  # far enough back for any word
            after = self.tokenizer.decode(ids[start:end], skip_special_tokens=False)
            before = self.tokenizer.decode(ids[start : end - 1], skip_special_tokens=False) if end > 1 else ""
            alone = self.tokenizer.decode(ids[end - 1 : end], skip_special_tokens=False)
            found.append(after[len(before) :] if after.startswith(before) else alone)
        return [piece.replace("\n", "⏎") for piece in found]

    def styled(self, text, style, piece=""):
        """Text in its style, with the white space that `piece` begins with before it."""
        plain, code = STYLES[style]
        space = piece[: len(piece) - len(piece.lstrip())]
        return space + (f"\033[{code}m{text}\033[0m" if self.color else plain.format(text))
