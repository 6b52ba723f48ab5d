"""The heads of downstream tasks, as data: what is pooled, which layers follow, and how files call them.

A family gives one `HeadSpec` for each task that `transformers` has for it; every other task gets the plain head of
`plain`. `zoo.tasks.heads` computes them. No arithmetic and no files here.
"""

import dataclasses

from zoo.families.rows import linear, norm

_BODY = ("token/", "encoder/", "decoder/")
_POOLS = {"cls": "first", "mean": "mean"}  # ModernBERT's classifier_pooling


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """One head: pooling, dropout, dense, activation, norm, dropout, and the layer that gives the outputs.

    Args:
        pool: what one output a text is made from, the "first" token, the "last", or the "mean" or "max" of all; None
            for an output each token.
        end: id of the token that counts as the last one, where texts end with it (T5, BART); its last occurrence.
        start: first token of a decoder that reads the text again: an id, or "last" for the text's last (mBART).
        dense: their name of the layer before the last; None where there is none.
        units: its width, where not the model's.
        dense_bias, out_bias: whether these layers have one.
        activation: after `dense`: "tanh", "relu", "gelu" or "linear"; None for that of the feed-forwards.
        norm: their name of a norm after it.
        out: their name of the layer that gives the outputs; None where the pooled state is the output.
        dropout: rate before the last layer; `dropout_first`: and before `dense`.
        keys: key of config.json -> field of this class that it sets.
        fixed: key -> the values with which we compute the same.
        prefix: what the names of the backbone begin with, where not with the family's prefix.
        encoder_only: whether the class has an encoder-decoder's encoder alone.
        ignore: patterns of their tensors that this class does not have.
    """

    pool: str | None = None
    end: int | None = None
    start: int | str | None = None
    dense: str | None = None
    units: int | None = None
    dense_bias: bool = True
    activation: str | None = "tanh"
    norm: str | None = None
    out: str | None = "classifier"
    out_bias: bool = True
    dropout: float = 0.0
    dropout_first: bool = False
    keys: dict = dataclasses.field(default_factory=dict)
    fixed: dict = dataclasses.field(default_factory=dict)
    prefix: str | None = None
    encoder_only: bool = False
    ignore: tuple = ()

    def read(self, hf):
        """Fields that a config.json sets.

        Raises:
            ValueError: a value that changes what is computed and that we do not know; it names the key.
        """
        for key, allowed in self.fixed.items():
            if hf.get(key, allowed[0]) not in allowed:
                raise ValueError(f"{key}={hf[key]!r} is not supported, only {allowed}.")
        found = {field: hf[key] for key, field in self.keys.items() if hf.get(key) is not None}
        if "pool" in found:
            if found["pool"] not in _POOLS:
                raise ValueError(f"A pooling of {found['pool']!r} is not supported, only {', '.join(_POOLS)}.")
            found["pool"] = _POOLS[found["pool"]]
        rate = found.get("dropout", 0.0)
        if not isinstance(rate, int | float) or not 0 <= rate < 1:
            raise ValueError(f"A dropout of {rate!r} before the last layer is not in [0, 1).")
        return found

    def write(self):
        """The keys of config.json that say what `read` reads."""
        names = {ours: theirs for theirs, ours in _POOLS.items()}
        return {key: names[self.pool] if field == "pool" else getattr(self, field) for key, field in self.keys.items()}

    def rows(self, table, prefix, config):
        """The table of a model with this head, from that of the family: our name -> (their names, move).

        The rows of the vocabulary head stay under names that no model has, so that a file may hold its weights.
        """
        rows = {ours if ours.startswith(_BODY) else f"other_{ours}": row for ours, row in table.items()}
        if self.prefix:
            rows = {ours: (_renamed(names, prefix, self.prefix), move) for ours, (names, move) in rows.items()}
        if self.dense:
            rows |= linear("head/dense", self.dense, self.dense_bias)
        if self.norm:
            rows |= norm("head/norm", self.norm, config.norm_bias)
        return rows | (linear("head/out", self.out, self.out_bias) if self.out else {})


def _renamed(names, old, new):
    """Names with another prefix: the first is written, the others are read too."""
    names = (names,) if isinstance(names, str) else names
    return (f"{new}.{names[0].removeprefix(f'{old}.')}", *names)


def plain(task, config):
    """The head of a task that `transformers` does not have for a family, after the custom for that shape."""
    if task == "TextEmbedder":
        return HeadSpec(pool="mean" if config.architecture == "encoder" else "last", out=None)
    if task in ("TokenClassifier", "QuestionAnswerer", "RelationClassifier"):
        return HeadSpec(dropout=config.dropout, start=_start(config))
    if task == "ReplacedTokenDetector":
        return HeadSpec(dense="dense", activation=None)
    if config.architecture == "decoder":
        return HeadSpec(pool="last", out_bias=False)
    rates = {"dropout": config.dropout, "dropout_first": True}
    if config.architecture == "encoder":
        return HeadSpec(pool="first", dense="dense", **rates)
    return HeadSpec(pool="last", dense="dense", end=end_of(config), start=_start(config), **rates)


def end_of(config):
    """The id of the token that ends a text, the first of several."""
    ends = config.eos_token_id
    return ends[0] if isinstance(ends, tuple) else ends


def _start(config):
    starts = (config.decoder_start_token_id, config.pad_token_id, config.bos_token_id)
    return next((start for start in starts if start is not None), None)


def of(family, config, task):
    """The `HeadSpec` of a task on a backbone; `family` is its entry, or None."""
    return (family.heads(config) if family else {}).get(task) or plain(task, config)
