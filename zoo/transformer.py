"""Block and Stack: the one place where layers meet.

    pre        x ─ norm ─ f ─ + ─>      post     x ─ f ─ + ─ norm ─>      sandwich   x ─ norm ─ f ─ norm ─ + ─>
               └──────────────┘                  └───────┘                          └────────────────────┘

A stack prepares once what all its blocks share (masks, rotations, relative bias) and threads caches through them. It
knows no family: each difference is a field of `Config`.
"""

import keras
from keras import ops

from zoo.nn import masks
from zoo.nn.attention import Attention
from zoo.nn.layers import Embedding, Norm, dropout, initializer, seed_generator
from zoo.nn.mlp import MLP
from zoo.nn.positions import RelativeBias, restart_positions, rotary_angles, sinusoids
from zoo.nn.remat import remat


class Block(keras.layers.Layer):
    """Self-attention, cross-attention where there is a memory, and feed-forward, each on a residual branch.

    Args:
        config: `Config`.
        layer: index of the block.
        branches: number of residual branches in the stack.
        causal, cross: what kind of stack this is.
    """

    def __init__(self, config, layer, branches, causal, cross, **kwargs):
        super().__init__(**kwargs)
        self.order, self.parallel, self.rate = config.norm_order, config.parallel, config.dropout
        self.local = config.windowed(layer)
        make = {"branches": branches, "dtype": self.dtype_policy}
        norm = lambda name: Norm(config, name=name, dtype=self.dtype_policy)  # noqa: E731
        self.attn = Attention(config, name="attn", **make)
        self.attn_norm = norm("attn_norm") if config.first_attn_norm or layer > 0 else None
        self.cross = Attention(config, cross=True, name="cross", **make) if cross else None
        self.cross_norm = norm("cross_norm") if cross else None
        self.mlp = MLP(config, name="mlp", **make)
        self.mlp_norm = norm("mlp_norm") if config.parallel != "one_norm" else None
        sandwich = config.norm_order == "sandwich"
        self.attn_post_norm = norm("attn_post_norm") if sandwich else None
        self.mlp_post_norm = norm("mlp_post_norm") if sandwich else None
        per_layer = config.relative == "buckets_per_layer"
        self.relative_bias = None
        if per_layer:
            self.relative_bias = RelativeBias(config, config.num_heads, causal, name="relative_bias")

    def build(self, shape):
        self.seeds = seed_generator()
        names = ("attn", "attn_norm", "cross", "cross_norm", "mlp", "mlp_norm", "attn_post_norm", "mlp_post_norm")
        for name in names:
            if (layer := getattr(self, name)) is not None:
                layer.build(shape)
        if self.relative_bias is not None:
            self.relative_bias.build(shape[-1])

    def call(self, x, memory=None, context=None, cache=None, index=0, causal=False, training=False):
        """(b, t, d) to (b, t, d), and the block's new cache beside it where `cache` is given."""
        bias, kind = context["bias"], "local" if self.local else "global"
        seeds = self.seeds if training else None
        if self.relative_bias is not None:
            slots = x.shape[1] if cache is None or causal else cache["self"][0].shape[1]
            bias = self.relative_bias(t=x.shape[1], s=slots, index=0 if causal else index)

        def attend(h):
            nonlocal cache
            past = None if cache is None else cache["self"]
            y = self.attn(h, seen=context[kind], bias=bias, rotary=context[f"rotary_{kind}"], cache=past,
                          causal=causal, index=index, seeds=seeds)  # fmt: skip
            if cache is not None:
                y, past = y
                cache = {**cache, "self": past}
            return y

        def look(h):
            past = None if cache is None else cache["cross"]
            return self.cross(h, memory, seen=context["cross"], cache=past, seeds=seeds)

        feed = lambda h: self.mlp(h, seeds=seeds)  # noqa: E731
        drop = lambda h: dropout(h, self.rate, seeds)  # noqa: E731
        if self.parallel:
            h = self.attn_norm(x)
            x = x + drop(attend(h)) + drop(feed(h if self.mlp_norm is None else self.mlp_norm(x)))
        else:
            x = self._residual(x, attend, drop, self.attn_norm, self.attn_post_norm)
            if self.cross is not None:
                x = self._residual(x, look, drop, self.cross_norm, None)
            x = self._residual(x, feed, drop, self.mlp_norm, self.mlp_post_norm)
        return x if cache is None else (x, cache)

    def _residual(self, x, f, drop, norm, post):
        if self.order == "post":
            return norm(x + drop(f(x)))
        y = f(x if norm is None else norm(x))
        return x + drop(y if post is None else post(y))


class Stack(keras.layers.Layer):
    """Positions, blocks and the final norm of one encoder or one decoder.

    Args:
        config: `Config`.
        depth: number of layers.
        causal: whether a token sees only what came before it.
        cross: whether the blocks attend over a memory.
    """

    def __init__(self, config, depth, causal, cross=False, **kwargs):
        super().__init__(**kwargs)
        self.config, self.depth, self.causal, self.is_cross = config, depth, causal, cross
        policy, width = self.dtype_policy, config.resolved_embedding_dim
        init = initializer(config, fan_in=width)
        self.position = self.token_type = self.embedding_norm = self.embedding_projection = None
        if config.position == "learned":
            rows = config.max_sequence_length + config.position_offset
            self.position = Embedding(rows, width, init, name="position", dtype=policy)
        if config.num_token_types and not cross:
            self.token_type = Embedding(config.num_token_types, width, init, name="token_type", dtype=policy)
        if config.embedding_norm:
            self.embedding_norm = Norm(config, name="embedding_norm", dtype=policy)
        if width != config.hidden_dim:
            self.embedding_projection = keras.layers.Dense(
                config.hidden_dim, kernel_initializer=init, name="embedding_projection", dtype=policy
            )
        self.relative_bias = None
        if config.relative == "buckets":
            self.relative_bias = RelativeBias(config, config.num_heads, causal, name="relative_bias")
        branches = depth * (3 if cross else 2)
        self.blocks = [
            Block(config, i, branches, causal, cross, name=f"block_{i}", dtype=policy)
            for i in range(config.num_distinct_blocks or depth)
        ]
        self.final_norm = Norm(config, name="final_norm", dtype=policy) if config.final_norm else None

    def build(self, shape):
        self.seeds = seed_generator()
        inner = (*shape[:-1], self.config.hidden_dim)
        for layer in (self.position, self.token_type, self.embedding_norm, self.embedding_projection):
            if layer is not None:
                layer.build(shape)
        if self.relative_bias is not None:
            self.relative_bias.build(inner[-1])
        for block in self.blocks:
            block.build(inner)
        if self.final_norm is not None:
            self.final_norm.build(inner)

    def call(self, x, padding_mask=None, segment_ids=None, positions=None, token_type_ids=None, memory=None,
             memory_mask=None, cache=None, index=None, training=False):  # fmt: skip
        """Runs the stack.

        Args:
            x: embedded tokens (b, t, embedding_dim).
            padding_mask: (b, t), or (b, slots) with a cache; 0 marks padding.
            segment_ids: (b, t), the packed document of each token; 0 marks padding.
            positions, token_type_ids: (b, t).
            memory: (b, s, hidden_dim); memory_mask: broadcastable to (b, 1, t, s).
            cache: one dictionary a layer, from `new_cache`. A Python `index=0` is a prefill: the tokens see each other
                alone, which is all there is. A tensor `index` writes and reads from that slot on.

        Returns:
            (b, t, hidden_dim), and the new cache beside it where `cache` is given.
        """
        config, t = self.config, x.shape[1]
        stepping = cache is not None and not isinstance(index, int)
        start = index if stepping else 0
        if positions is None and segment_ids is not None:
            positions = restart_positions(segment_ids)
        if positions is None:
            positions = (ops.arange(t, dtype="int32") + start)[None]
        x = self._embed(x, positions, token_type_ids)
        seeds = self.seeds if training else None
        x = dropout(x, config.dropout, seeds)
        slots = cache[0]["self"][0].shape[1] if stepping else t
        context = self._context(t, slots, start, stepping, positions, padding_mask, segment_ids)
        context["cross"] = memory_mask
        flags = {"causal": self.causal and not stepping, "training": training}
        new = []
        for i in range(self.depth):
            block = self.blocks[i * len(self.blocks) // self.depth]
            if config.remat and training:
                x = remat(block, block.seeds, {"x": x, "memory": memory, "context": context}, **flags)
                continue
            past = None if cache is None else cache[i]
            x = block(x, memory=memory, context=context, cache=past, index=start, **flags)
            if past is not None:
                x, past = x
                new.append(past)
        if self.final_norm is not None:
            x = self.final_norm(x)
        x = dropout(x, config.final_dropout, seeds)
        return x if cache is None else (x, new)

    def _embed(self, x, positions, token_type_ids):
        if self.position is not None:
            x = x + self.position(positions + self.config.position_offset)
        elif self.config.position == "sinusoidal":
            x = x + ops.cast(sinusoids(positions, x.shape[-1]), x.dtype)
        if self.token_type is not None:
            x = x + self.token_type(ops.zeros_like(positions) if token_type_ids is None else token_type_ids)
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        return x if self.embedding_projection is None else self.embedding_projection(x)

    def _context(self, t, slots, start, stepping, positions, padding_mask, segment_ids):
        """What all blocks share: masks, rotations and the relative bias."""
        config = self.config
        mask = masks.cache_mask(start, t, slots) if stepping else None
        if padding_mask is not None:
            mask = masks.both(mask, masks.keys_mask(padding_mask))
        if segment_ids is not None:
            mask = masks.both(mask, masks.segments_mask(segment_ids, segment_ids))
        context = {"global": mask, "local": None, "rotary_global": None, "rotary_local": None, "bias": None}
        if config.window:
            context["local"] = masks.both(mask, masks.window_mask(start, t, slots, config.window))
        if config.rotary_theta:
            width = int(config.resolved_head_dim * config.rotary_fraction)
            context["rotary_global"] = rotary_angles(positions, width, config.rotary_theta, config.rotary_scaling)
            context["rotary_local"] = context["rotary_global"]
            if config.rotary_local_theta:
                context["rotary_local"] = rotary_angles(positions, width, config.rotary_local_theta)
        if self.relative_bias is not None:
            context["bias"] = self.relative_bias(t=t, s=slots, index=start)
        return context

    def new_cache(self, batch, slots, memory=None):
        """An empty cache: per layer keys and values (batch, slots, key/value heads, head_dim) and, where there is a
        memory, its keys and values, computed here once."""
        config = self.config
        shape = (batch, slots, config.resolved_key_value_heads, config.resolved_head_dim)
        cache = []
        for i in range(self.depth):
            block = self.blocks[i * len(self.blocks) // self.depth]
            layer = {"self": (ops.zeros(shape, self.compute_dtype), ops.zeros(shape, self.compute_dtype))}
            if self.is_cross:
                layer["cross"] = block.cross.keys_values(memory)
            cache.append(layer)
        return cache
