"""What a token store holds and what became of the text it was made of, for people: a summary and a picture.

It reads a store's manifest and lengths, and knows nothing of how they came about.
"""

import numpy as np

from zoo.checkpoint import write_png


def summary(store):
    """What became of the documents of a `Store`, as lines of text.

    Words are what stands between white space: in Chinese and other scripts without spaces look at the tokens per
    character instead.

    >>> import tempfile
    >>> from zoo import Tokenizer, data
    >>> tokenizer = Tokenizer.train(["to be or not to be"], kind="char")
    >>> store = data.prepare(data.texts(["to be", "or not", "to be"]), tokenizer, deduplicate="exact", progress=False)
    >>> print(summary(store).splitlines()[1].strip())
    1  exact duplicate
    """
    held = store.manifest
    lines = [(held["documents_read"], "documents read")]
    lines += [(count, reason.replace("_", " ")) for reason, count in held["dropped"].items() if count]
    if held["broken_lines"]:
        lines.append((held["broken_lines"], "broken lines skipped"))
    lines.append((held["documents"], "documents kept"))
    share = store.validation_share
    for name, (starts, stops) in zip(("training", "validation"), store.split(share)):
        tokens = int(np.sum(stops - starts))
        lines.append((len(starts), f"for {name}{f' (share {share:g})' * (name == 'validation')}, {tokens:,} tokens"))
    width = max(len(f"{number:,}") for number, _ in lines)
    lengths = np.diff(store.offsets)
    middle, high = np.percentile(lengths, [50, 95])
    tokens = held["tokens"]
    return "\n".join([
        *(f"{number:>{width},}  {what}" for number, what in lines),
        f"{tokens:,} tokens of {held['dtype']} from {held['bytes'] / 1e6:,.1f} MB of text",
        f"{tokens / max(1, held['words']):.3f} tokens a word, {tokens / max(1, held['characters']):.3f} a character, "
        f"{held['bytes'] / tokens:.2f} bytes a token",
        f"{lengths.mean():,.1f} tokens a document; half have at most {middle:,.0f}, 95 % at most {high:,.0f}, "
        f"the longest {lengths.max():,}",
    ])  # fmt: skip


def length_histogram(store, path):
    """Draws how many documents of a `Store` have how many tokens, and writes it to `path` as PNG."""
    from matplotlib.figure import Figure  # here, for it is slow to import

    lengths = np.diff(store.offsets)
    figure = Figure(figsize=(7, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    edges = np.geomspace(lengths.min(), lengths.max() + 1, 60)
    axes.hist(lengths, np.unique(np.concatenate([edges[:1], np.ceil(edges[1:])])))
    axes.set(xscale="log", xlabel="tokens", ylabel="documents", title=f"Length of {len(store):,} documents")
    axes.grid(alpha=0.3)
    write_png(path, figure)
