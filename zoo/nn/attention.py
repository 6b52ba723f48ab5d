"""Attention: many heads over one memory, with whatever mask, bias and cache it is given.

`attend` chooses between a backend's fused operation and `attend_heads`, which reads a cache where it lies as well;
`Attention` owns the four projections. None knows how masks and biases come about. Letters: b batch, t time, s memory,
n heads, k key/value heads, g = n // k, h head width, d hidden width.
"""

from functools import partial

import keras
from keras import ops

from zoo import backend
from zoo.nn.layers import dense, dropout
from zoo.nn.positions import rotate
from zoo.nn.variants.disentangled import disentangled_bias
from zoo.nn.variants.qk_norm import qk_norm
from zoo.nn.variants.ring import remembered

LONG = 256  # queries, from which on a quarter at a time is faster
MASKED = -1e9  # finite: a row that sees nothing stays a number


def attend(q, k, v, scale, mask=None, bias=None, causal=False, softcap=None, drop=None, seeds=None):
    """Softmax attention (Vaswani et al. 2017), grouped heads (Ainslie et al. 2023) without repeating keys.

    Args:
        q: queries (b, t, n, h).
        k, v: keys and values (b, s, k, h), where k divides n.
        scale: multiplies the scores.
        mask: bool, broadcastable to (b, 1, t, s); True where a key is seen.
        bias: float, broadcastable to (b, n, t, s); added to the scores.
        causal: each query sees the keys up to its own index (needs t == s).
        softcap: scores become softcap * tanh(scores / softcap).
        drop: a function applied to the probabilities, which draws from `seeds`.

    Returns:
        (b, t, n, h).
    """
    if backend.fused_attention_pays() and softcap is None and drop is None:
        if bias is not None:  # it absorbs mask and causality, since PyTorch takes one or the other
            seen = _join(mask, causal, ops.shape(q)[1], ops.shape(k)[1])
            bias = bias if seen is None else ops.where(seen, bias, ops.cast(MASKED, bias.dtype))
            mask, causal = None, False
        return backend.fused_attention(q, k, v, bias, mask, scale, causal)
    if causal and drop is None and (q.shape[1] or 0) >= LONG:  # TensorFlow may not know it yet
        return _by_quarters(partial(attend, scale=scale, softcap=softcap), q, k, v, mask, bias)

    def weigh(q, k, v, mask, bias):
        seen = _join(mask, causal, ops.shape(q)[1], ops.shape(k)[1])
        return attend_heads(q, heads_first(k), heads_first(v), scale, seen, bias, softcap, drop)

    return backend.recomputed(weigh, (q, k, v, mask, bias), seeds)  # probabilities are the most memory of a layer


def _by_quarters(attend, q, k, v, mask, bias):
    """Causal attention, a quarter of the queries at a time over the keys up to its end: 5/8 of the work."""
    t, ys = q.shape[1], []
    seen, size = _join(mask, True, t, t), -(-t // 4)
    for start in range(0, t, size):
        rows, keys = slice(start, start + size), slice(min(start + size, t))
        own = bias if bias is None else bias[:, :, rows if bias.shape[2] > 1 else slice(None), keys]
        ys.append(attend(q[:, rows], k[:, keys], v[:, keys], mask=seen[:, :, rows, keys], bias=own))
    return ops.concatenate(ys, axis=1)


def attend_heads(q, k, v, scale, mask=None, bias=None, softcap=None, drop=None):
    """`attend` over keys and values (b, k, s, h), a head's side by side, which products read at full speed.

    The queries of the heads that share keys are rows of one product, so nothing is repeated. The softmax's sums divide
    what comes out, which is narrower than the weights that go in.
    """
    _, t, n, h = ops.shape(q)
    heads, groups = k.shape[1], n // k.shape[1]
    q = ops.reshape(q * ops.cast(scale, q.dtype), (-1, t, heads, groups, h))
    q = ops.reshape(ops.transpose(q, (0, 2, 3, 1, 4)), (-1, heads, groups * t, h))
    q, k, v = (x[0] if k.shape[0] == 1 else x for x in (q, k, v))  # one row's axis would cost a copy, see `repeated`
    scores = ops.reshape(ops.matmul(q, ops.swapaxes(k, -1, -2)), (-1, heads, groups, t, ops.shape(k)[-2]))
    scores = _scores(scores, mask, bias, softcap)
    weights, sums = backend.softmax(scores)
    weights = ops.cast(weights, v.dtype) if drop is None else drop(ops.cast(weights, v.dtype))
    y = ops.matmul(ops.reshape(weights, (*ops.shape(q)[:-1], ops.shape(k)[-2])), v)
    y = ops.reshape(y, (-1, heads, groups, t, h))
    y = y if sums is None else ops.cast(ops.divide(y, sums), v.dtype)
    return ops.reshape(ops.transpose(y, (0, 3, 1, 2, 4)), (-1, t, n, h))


def _scores(scores, seen, bias, softcap):
    """Scores (b, k, g, t, s) in float32; `seen` is broadcastable to (b, 1, t, s), `bias` to (b, n, t, s)."""
    scores = ops.cast(scores, "float32")
    if softcap is not None:
        scores = ops.tanh(scores / softcap) * softcap
    if bias is not None:
        bias = ops.reshape(bias, (ops.shape(bias)[0], *scores.shape[1:3], *ops.shape(bias)[2:]))
        scores = scores + ops.cast(bias, "float32")
    return scores if seen is None else ops.where(seen[:, :, None], scores, MASKED)


def heads_first(x):
    """(b, s, k, h) as (b, k, s, h), the layout of caches."""
    return ops.swapaxes(x, 1, 2)


def _join(mask, causal, t, s):
    """The mask with causality in it, (b, 1, t, s), or None where everything is seen."""
    if not causal:
        return mask
    lower = ops.arange(t)[:, None] >= ops.arange(s)[None]
    return lower[None, None] if mask is None else mask & lower


class Attention(keras.layers.Layer):
    """Multi-head attention of a sequence over itself, or with `cross=True` over a memory, whose keys are not rotated.

    `branches` is the number of residual branches of the stack, for the initial scale of `out`.
    """

    def __init__(self, config, cross=False, branches=0, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.groups = config.num_heads, config.resolved_key_value_heads
        self.width, self.cross = config.resolved_head_dim, cross
        self.scale = self.width**-0.5 if config.attention_scale is None else config.attention_scale
        self.softcap, self.rate = config.attention_softcap, config.attention_dropout
        self.config, self.branches = config, branches

    def build(self, shape):
        config, d, inner = self.config, shape[-1], self.heads * self.width
        make = partial(dense, config, policy=self.dtype_policy)
        # T5 folds the scale of the scores into the initial queries.
        q_fan = d if config.attention_scale is None else d * self.width
        self.query = make("query", d, inner, config.qkv_bias, fan_in=q_fan)
        self.key = make("key", d, self.groups * self.width, config.qkv_bias)
        self.value = make("value", d, self.groups * self.width, config.qkv_bias)
        self.out = make("out", inner, d, config.out_bias, branches=self.branches)
        self.query_norm = qk_norm(config, self.heads, self.width, "query_norm", self.dtype_policy)
        self.key_norm = qk_norm(config, self.groups, self.width, "key_norm", self.dtype_policy)

    def _heads(self, y, norm=None):
        """(…, n h) to (…, n, h), normalised."""
        y = ops.reshape(y, (-1, *ops.shape(y)[1:-1], y.shape[-1] // self.width, self.width))
        return y if norm is None else norm(y)

    def keys_values(self, memory, rotary=None):
        """Keys and values of a memory (b, s, d): two tensors (b, s, k, h)."""
        k, v = self._heads(self.key(memory), self.key_norm), self._heads(self.value(memory))
        return (k if rotary is None else rotate(k, *rotary)), v

    def call(self, x, memory=None, seen=None, bias=None, distances=None, rotary=None, cache=None, causal=False,
             index=None, seeds=None):  # fmt: skip
        """Attends (b, t, d) over itself, over `memory` (b, s, d), or over a `cache` of keys, values (b, k, slots, h).

        `seen` is the mask of `attend` (Keras takes an argument called mask for its own). A self-attention cache is
        written from slot `index` on, in its place where the backend can, and returned beside the output; a
        cross-attention's holds for good. `distances` (2 t, d) are DeBERTa's. `seeds` turn dropout on.
        """
        q = self._heads(self.query(x), self.query_norm)
        if rotary is not None:
            q = rotate(q, *rotary)
        if self.cross:
            k, v = self.keys_values(memory) if cache is None else cache
        else:
            k, v = self.keys_values(x, rotary)
            if cache is not None:
                cache = tuple(remembered(old, heads_first(new), index) for old, new in zip(cache, (k, v)))
                if not causal:  # a causal pass from slot 0 sees just what it has computed
                    k, v = cache
        if distances is not None:
            distance_q, distance_k = self._heads(self.query(distances)), self._heads(self.key(distances))
            bias = disentangled_bias(q, k, distance_q, distance_k) * ops.cast(self.scale, q.dtype)
        drop = partial(dropout, rate=self.rate, seeds=seeds) if seeds is not None and self.rate else None
        if cache is None or causal:
            y = attend(q, k, v, self.scale, seen, bias, causal, self.softcap, drop, drop and seeds)
        else:
            y = attend_heads(q, k, v, self.scale, seen, bias, self.softcap)
        y = self.out(ops.reshape(y, (-1, ops.shape(x)[1], self.heads * self.width)))
        return y if cache is None or self.cross else (y, cache)
