"""Block and Stack: the one place where layers meet.

    pre      x ─ norm ─ f ─ + ─>      sandwich   x ─ norm ─ f ─ norm ─ + ─>
             └──────────────┘                    └─────────────────────┘
    post     x ─ f ─ + ─ norm ─>      branch     x ─ f ─ norm ─ + ─>
             └───────┘                           └──────────────┘

A stack prepares once what its blocks share (masks, rotations, relative bias) and threads caches through them. It knows
no family: each difference is a field of `Config`.
"""

import itertools

import keras
from keras import ops

from zoo import backend, sharding
from zoo.nn import masks
from zoo.nn.attention import Attention, heads_first
from zoo.nn.documents import restart_positions
from zoo.nn.layers import Embedding, Norm, dropout, initializer, seed_generator
from zoo.nn.mlp import MLP
from zoo.nn.positions import rotary_angles
from zoo.nn.variants.convolution import convolution
from zoo.nn.variants.relative import relative_positions
from zoo.nn.variants.ring import ring_length, ring_mask
from zoo.nn.variants.sinusoids import sinusoids


def _build(layers, shape):
    for layer in layers:
        if layer is not None:
            layer.build(shape)


class Block(keras.layers.Layer):
    """Self-attention, cross-attention where there is a memory, and feed-forward, on `branches` of the stack."""

    def __init__(self, config, layer, branches, causal, cross, **kwargs):
        super().__init__(**kwargs)
        self.order, self.parallel, self.rate = config.norm_order, config.parallel, config.dropout
        self.scale, self.local, self.rotates = config.residual_scale, config.windowed(layer), config.rotated(layer)
        policy = self.dtype_policy

        def norm(name, wanted=True):
            return Norm(config, name=name, dtype=policy) if wanted else None

        self.attn = Attention(config, branches=branches, name="attn", dtype=policy)
        self.attn_norm = norm("attn_norm", config.first_attn_norm or layer > 0)
        self.attn_post_norm = norm("attn_post_norm", self.order == "sandwich")
        self.cross = Attention(config, cross=True, branches=branches, name="cross", dtype=policy) if cross else None
        self.cross_norm = norm("cross_norm", cross)
        self.mlp = MLP(config, branches=branches, name="mlp", dtype=policy)
        self.mlp_norm = norm("mlp_norm", self.parallel != "one_norm")
        self.mlp_post_norm = norm("mlp_post_norm", self.order == "sandwich")
        self.relative = relative_positions(config, causal, policy, per_layer=True)
        self.convolution = convolution(config, layer, policy)

    def build(self, shape):
        self.seeds = seed_generator()
        _build((self.attn, self.attn_norm, self.attn_post_norm, self.cross, self.cross_norm, self.mlp, self.mlp_norm,
                self.mlp_post_norm, self.relative, self.convolution), shape)  # fmt: skip

    def call(self, x, memory=None, context=None, cache=None, index=0, causal=False, training=False):
        """(b, t, d) to (b, t, d), and the block's new cache beside it where `cache` is given."""
        seeds, start = self.seeds if training else None, x
        kind, relative, new = "local" if self.local else "global", context["relative"], cache
        if self.relative is not None:
            slots = ops.shape(x)[1] if cache is None or causal else cache["self"][0].shape[2]
            relative = self.relative(t=ops.shape(x)[1], s=slots, index=index)

        def attend(h):
            nonlocal new
            past = None if cache is None else cache["self"]
            rotary = context[f"rotary_{kind}"] if self.rotates else None
            y = self.attn(h, seen=context[kind], rotary=rotary, cache=past, causal=causal, index=index, seeds=seeds,
                          **relative)  # fmt: skip
            if cache is None:
                return y
            new = {**cache, "self": y[1]}
            return y[0]

        def look(h):
            past = None if cache is None else cache["cross"]
            return self.cross(h, memory, seen=context["cross"], cache=past, seeds=seeds)

        if self.parallel:
            h = self.attn_norm(x)
            y = self.mlp(h if self.mlp_norm is None else self.mlp_norm(x), seeds=seeds)
            x = x + self._branch(attend(h), seeds) + self._branch(y, seeds)
        else:
            x = self._residual(x, attend, self.attn_norm, self.attn_post_norm, seeds)
            if self.cross is not None:
                x = self._residual(x, look, self.cross_norm, None, seeds)
            x = self._residual(x, lambda h: self.mlp(h, seeds=seeds), self.mlp_norm, self.mlp_post_norm, seeds)
        if self.convolution is not None:
            x = self.convolution(start, x, segments=context["segments"], drop=lambda z: dropout(z, self.rate, seeds))
        return x if cache is None else (x, new)

    def _residual(self, x, f, norm, post, seeds):
        if self.order == "post":
            return norm(x + self._branch(f(x), seeds))
        if self.order == "branch":
            norm, post = None, norm
        y = f(x if norm is None else norm(x))
        return x + self._branch(y if post is None else post(y), seeds)

    def _branch(self, y, seeds):
        y = dropout(y, self.rate, seeds)
        return y if self.scale == 1.0 else y * ops.cast(self.scale, y.dtype)


def _kind(block):
    """What blocks have in common that compute the same but for the values of their weights."""
    weights = [(v.path.removeprefix(block.path), v.shape, v.dtype, v.trainable) for v in block.variables]
    return block.local, block.rotates, weights


class Stack(keras.layers.Layer):
    """Positions, `depth` blocks and the final norm of one encoder, or one decoder (`causal`, with a memory `cross`)."""

    def __init__(self, config, depth, causal, cross=False, **kwargs):
        super().__init__(**kwargs)
        self.config, self.depth, self.causal, self.is_cross = config, depth, causal, cross
        if config.scan_layers and keras.backend.backend() != "jax":
            raise ValueError("scan_layers needs KERAS_BACKEND=jax: the others have no program that it makes smaller.")
        policy, width, d = self.dtype_policy, config.resolved_embedding_dim, config.hidden_dim
        init, first = initializer(config, fan_in=width), config.embedding_projection == "first"

        def table(name, rows):
            return Embedding(rows, d if first else width, init, name=name, dtype=policy) if rows else None

        def projection(name, units):
            return keras.layers.Dense(units, use_bias=not first, kernel_initializer=init, name=name, dtype=policy)

        rows = config.max_sequence_length + config.position_offset
        self.position = table("position", rows if config.position == "learned" else 0)
        self.token_type = table("token_type", 0 if cross else config.num_token_types)
        self.embedding_norm = Norm(config, name="embedding_norm", dtype=policy) if config.embedding_norm else None
        self.projects_first = first
        self.embedding_projection = projection("embedding_projection", d) if width != d else None
        self.final_projection = projection("final_projection", width) if width != d and first else None
        self.relative = relative_positions(config, causal, policy)
        self.final_norm = Norm(config, name="final_norm", dtype=policy) if config.final_norm else None
        branches = depth * (3 if cross else 2)
        self.blocks = [Block(config, i, branches, causal, cross, name=f"block_{i}", dtype=policy)
                       for i in range(config.num_distinct_blocks or depth)]  # fmt: skip

    def build(self, shape):
        self.seeds = seed_generator()
        inner = *shape[:-1], self.config.hidden_dim
        _build((self.embedding_projection,), shape)
        _build((self.position, self.token_type, self.embedding_norm), inner if self.projects_first else shape)
        _build((self.relative, *self.blocks, self.final_norm, self.final_projection), inner)

    def _sequence(self):
        """The block of each layer; ALBERT's layers share them."""
        return [self.blocks[i * len(self.blocks) // self.depth] for i in range(self.depth)]

    def call(self, x, padding_mask=None, segment_ids=None, positions=None, token_type_ids=None, memory=None,
             memory_mask=None, cache=None, index=None, longest=None, training=False):  # fmt: skip
        """Runs the stack.

        Args:
            x: embedded tokens (b, t, embedding_dim).
            padding_mask: (b, t), or (b, slots) when stepping with a cache, which needs it; 0 marks padding.
            segment_ids: (b, t), the packed document of each token; 0 marks padding.
            positions, token_type_ids: (b, t). longest: (b,), the tokens a row can come to; else what the cache holds.
            memory: (b, s, hidden_dim); memory_mask: broadcastable to (b, 1, t, s).
            cache: one dictionary a layer, from `new_cache`. With a Python `index=0` this is a prefill: the tokens see
                each other alone, which is all there is. With a tensor `index` it is a step: it writes from that slot on
                and sees all slots up to its own.

        Returns:
            (b, t, hidden_dim), and the new cache beside it where `cache` is given.
        """
        config, t, new = self.config, ops.shape(x)[1], []
        seeds = self.seeds if training else None
        stepping, rooms = cache is not None and not isinstance(index, int), [c["self"][0].shape[2] for c in cache or ()]
        start, slots = (index, padding_mask.shape[1]) if stepping else (0, t)
        room = max(rooms, default=None) if longest is None else ops.cast(longest, "float32")[:, None, None, None]
        if positions is None:
            counted = (ops.arange(t, dtype="int32") + start)[None]
            positions = counted if segment_ids is None else restart_positions(segment_ids)
        x = dropout(self._embed(x, positions, token_type_ids), config.dropout, seeds)
        context = self._masks(t, slots, rooms, start, stepping, padding_mask, segment_ids)
        context |= self._rotations(positions, room)
        relative = {} if self.relative is None else self.relative(t=t, s=slots, index=start)
        if "distances" in relative:
            relative["distances"] = dropout(relative["distances"], config.dropout, seeds)
        context |= {"cross": memory_mask, "relative": relative}
        flags = {"causal": self.causal and not stepping, "training": training}
        if cache is None:
            x = self._through(x, {"memory": memory, "context": context}, **flags)
        else:
            for block, past in zip(self._sequence(), cache):
                x, past = block(x, memory=memory, context=context, cache=past, index=start, **flags)
                new.append(past)
        x = x if self.final_norm is None else self.final_norm(x)
        x = dropout(x, config.final_dropout, seeds)
        x = x if self.final_projection is None else self.final_projection(x)
        return x if cache is None else (x, new)

    def _through(self, x, inputs, **flags):
        """`x` through all blocks, without caches."""
        remat = self.config.remat and flags["training"]
        if self.config.scan_layers:
            for _, alike in itertools.groupby(self._sequence(), _kind):
                x = backend.scanned(list(alike), x, inputs, sharding.gathered_late, sharding.lean, remat, **flags)
            return x
        for block in self._sequence():
            x = backend.remat(block, block.seeds, x, inputs, **flags) if remat else block(x, **inputs, **flags)
        return x

    def _embed(self, x, positions, token_type_ids):
        project = (lambda x: x) if self.embedding_projection is None else self.embedding_projection
        x = project(x) if self.projects_first else x
        if self.position is not None:
            x = x + self.position(positions + self.config.position_offset)
        elif self.config.position == "sinusoidal":
            x = x + ops.cast(sinusoids(positions, x.shape[-1]), x.dtype)
        if self.token_type is not None:
            x = x + self.token_type(ops.zeros_like(positions) if token_type_ids is None else token_type_ids)
        x = x if self.embedding_norm is None else self.embedding_norm(x)
        return x if self.projects_first else project(x)

    def _masks(self, t, slots, rooms, start, stepping, padding_mask, segment_ids):
        """Who sees whom in all blocks, windowed or not, and the documents that say so."""
        mask = masks.cache_mask(start, t, slots) if stepping else None
        if padding_mask is not None:
            mask = masks.both(mask, masks.keys_mask(padding_mask))
        if segment_ids is not None:
            mask = masks.both(mask, masks.segments_mask(segment_ids, segment_ids))
        window = self.config.window
        local = masks.both(mask, masks.window_mask(start, t, slots, window)) if window else None
        local = ring_mask(local, start + t - 1, min(rooms)) if stepping and min(rooms) < slots else local
        return {"global": mask, "local": local, "segments": padding_mask if segment_ids is None else segment_ids}

    def _rotations(self, positions, room):
        """Angles of all blocks, windowed or not; `room` is how long texts can become, where there is a cache."""
        config, width, angles, local = self.config, self.config.rotary_width, None, None
        if config.rotary_theta:
            angles = local = rotary_angles(positions, width, config.rotary_theta, config.rotary_scaling, room)
        if config.rotary_theta and config.rotary_local_theta:
            local = rotary_angles(positions, width, config.rotary_local_theta)
        return {"rotary_global": angles, "rotary_local": local}

    def rooms(self, slots, ahead=1):
        """How many slots each layer's cache has; relative positions count slots in order, and get all."""
        ring = lambda block: block.local and self.relative is None and block.relative is None  # noqa: E731
        return [ring_length(slots, self.config.window, ahead) if ring(block) else slots for block in self._sequence()]

    def new_cache(self, batch, slots, memory=None, ahead=1):
        """An empty cache: a layer's keys and values (batch, k, slots, h), and those of a memory, computed here once."""
        heads, width = self.config.resolved_key_value_heads, self.config.resolved_head_dim
        cache = [{"self": tuple(ops.zeros((batch, heads, room, width), self.compute_dtype) for _ in "kv")}
                 for room in self.rooms(slots, ahead)]  # fmt: skip
        if self.is_cross:
            for layer, block in zip(cache, self._sequence()):
                layer["cross"] = tuple(map(heads_first, block.cross.keys_values(memory)))
        return cache
