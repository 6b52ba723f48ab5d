"""Rows of tables of names for KerasHub's files: a layer of ours, and the path of the layer of theirs that holds it.

Their layers are numbered by class, the first without a number, and hold their variables as `vars/0`, `vars/1`. Kernels
of attention have an axis for the heads. It knows which class has which layers as little as `zoo.weights` does.
"""

import dataclasses

import numpy as np

from zoo.weights import Move, same, transpose

EMBEDDED = "layers/reversible_embedding/vars/0"
UNTIED = "layers/reversible_embedding/vars/1"
JOINT = "layers/token_and_position_embedding"


def _load(function):
    return Move(function, None)  # nothing is written in this format


inputs = _load(lambda x: x.reshape(len(x), -1))  # (d, n, h)
outputs = _load(lambda x: x.reshape(-1, x.shape[-1]))  # (n, h, d)
flat = _load(lambda x: x.reshape(-1))  # (n, h) of a bias
heads_first = _load(lambda x: x.transpose(1, 0, 2).reshape(x.shape[1], -1))  # (n, d, h)


def third(heads, part, bias=False):
    """Query, key or value of one kernel (d, n, 3 h), or of its bias (n, 3 h)."""

    def load(x):
        x = x.reshape(-1, heads, 3, x.shape[-1] // 3)[:, :, part]
        return x.reshape(-1) if bias else x.reshape(len(x), -1)

    return _load(load)


def later(offset):
    """A table of positions after rows that no token uses."""
    return _load(lambda x: np.concatenate([np.zeros((offset, *x.shape[1:]), x.dtype), x]))


no_types = _load(lambda x: np.zeros((1, x.shape[1]), x.dtype))  # what is added where there are no token types


def path(layer, number=0):
    """The path of the layer of a class with this number."""
    return f"layers/{layer}_{number}" if number else f"layers/{layer}"


def dense(ours, theirs, kernel=same, bias=same):
    """`kernel` and `bias` of a dense layer."""
    return {f"{ours}/kernel": (f"{theirs}/vars/0", kernel), f"{ours}/bias": (f"{theirs}/vars/1", bias)}


def norm(ours, theirs):
    """`scale` and `bias` of a norm."""
    return {f"{ours}/scale": (f"{theirs}/vars/0", same), f"{ours}/bias": (f"{theirs}/vars/1", same)}


def table(ours, layer, number=0, offset=0):
    """A table of embeddings, with `offset` rows before it that no token uses."""
    return {f"{ours}/embeddings": (f"{path(layer, number)}/vars/0", later(offset) if offset else same)}


def joint(config):
    """Tables of tokens and of positions in one layer."""
    offset = config.position_offset
    return {
        "token/embeddings": (f"{JOINT}/token_embedding/vars/0", same),
        f"{config.architecture}/position/embeddings": (f"{JOINT}/position_embedding/vars/0", later(offset)),
    }


def embedded(untied=False):
    """The token embeddings and a vocabulary head: its own kernel, or the embeddings again where a file has none."""
    return {"token/embeddings": (EMBEDDED, same), "head/kernel": (UNTIED, same) if untied else (EMBEDDED, transpose)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """What a class of layers calls its parts; empty where it has none. `after`: they follow those of the encoder."""

    layer: str
    after: bool = False
    attn: str = "_self_attention_layer"
    cross: str = ""
    query: str = "query_dense"
    key: str = "key_dense"
    value: str = "value_dense"
    out: str = "output_dense"
    into: Move = inputs
    fused: str = ""  # one kernel for queries, keys and values
    attn_norm: str = "_self_attention_layer_norm"
    cross_norm: str = ""
    mlp_norm: str = "_feedforward_layer_norm"
    attn_post_norm: str = ""
    mlp_post_norm: str = ""
    query_norm: str = ""
    key_norm: str = ""
    gate: str = ""
    up: str = "_feedforward_intermediate_dense"
    down: str = "_feedforward_output_dense"

    def rows(self, stack, config):
        """The rows of all layers of a stack."""
        count = config.num_distinct_blocks or (config.resolved_decoder_layers or config.num_layers)
        first, rows = config.num_layers if self.after else 0, {}
        for i in range(count):
            rows |= self._rows(f"{stack}/block_{i}", path(self.layer, first + i), config)
        return rows

    def _rows(self, ours, theirs, config):
        rows = {}
        for place, layer in (("attn", self.attn), ("cross", self.cross)):
            if layer:
                for i, part in enumerate(("query", "key", "value")):
                    name, into = getattr(self, part), (self.into, flat)
                    if self.fused:
                        name, into = self.fused, (third(config.num_heads, i), third(config.num_heads, i, bias=True))
                    rows |= dense(f"{ours}/{place}/{part}", f"{theirs}/{layer}/{name}", *into)
                rows |= dense(f"{ours}/{place}/out", f"{theirs}/{layer}/{self.out}", outputs)
        for part in ("attn_norm", "cross_norm", "mlp_norm", "attn_post_norm", "mlp_post_norm"):
            if name := getattr(self, part):
                rows |= norm(f"{ours}/{part}", f"{theirs}/{name}")
        for part in ("query_norm", "key_norm"):
            if name := getattr(self, part):
                rows |= norm(f"{ours}/attn/{part}", f"{theirs}/{self.attn}/{name}")
        mlp = {"gate": self.gate, "up": self.up, "down": self.down}
        if self.gate and not config.gated:  # the activated layer, which is `gate` beside another
            mlp = {"up": self.gate, "down": self.down}
        for part, name in mlp.items():
            rows |= dense(f"{ours}/mlp/{part}", f"{theirs}/{name}") if name else {}
        return rows


def bert(config):
    """Embeddings and the pooler, which follows the projection of narrow embeddings."""
    narrow = config.resolved_embedding_dim != config.hidden_dim
    return {
        **table("encoder/position", "position_embedding"),
        **table("encoder/token_type", "embedding"),
        **norm("encoder/embedding_norm", "layers/layer_normalization"),
        **(dense("encoder/embedding_projection", "layers/dense") if narrow else {}),
        **dense("head/dense", "layers/dense_1" if narrow else "layers/dense"),  # the pooler
    }


def roberta(config):
    """Embeddings without token types."""
    return {
        **joint(config),
        "encoder/token_type/embeddings": (f"{JOINT}/position_embedding/vars/0", no_types),
        **norm("encoder/embedding_norm", "layers/layer_normalization"),
    }


def bart(config):
    """Embeddings of both stacks."""
    rows = {}
    for i, stack in enumerate(("encoder", "decoder")):
        rows |= table(f"{stack}/position", "position_embedding", i, offset=config.position_offset)
        rows |= norm(f"{stack}/embedding_norm", path("layer_normalization", i))
    return rows


def t5(config):
    """What the stacks have beside their layers."""
    rows = {}
    for i, stack in enumerate(("encoder", "decoder")):
        first = path("t5_transformer_layer", i * config.num_layers)
        rows[f"{stack}/relative_bias/embeddings"] = (f"{first}/self_attention/vars/0", same)
        rows |= norm(f"{stack}/final_norm", path("t5_layer_norm", i))
    return rows


_MLM = "task/layers/masked_lm_head"
MASKED_LM = {
    **dense("head/transform", f"{_MLM}/_intermediate_dense"),
    **norm("head/norm", f"{_MLM}/_intermediate_layer_norm"),
    "head/bias": (f"{_MLM}/vars/0", same),
}
POOLED = dense("head/out", "task/layers/dense")  # on the backbone's pooler
OWN = {**dense("head/dense", "task/layers/dense"), **dense("head/out", "task/layers/dense_1")}
