"""Normalised queries and keys (Henry et al. 2020), which keep scores from growing; three ways to share the scales."""

from keras import ops

from zoo.nn.layers import Norm


def qk_norm(config, heads, width, name, policy):
    """The built norm of `heads` queries or keys of `width` features; None where they are left as they are."""
    if config.qk_norm is None:
        return None
    kind = {"head": Norm, "each_head": EachHeadNorm, "all_heads": AllHeadsNorm}[config.qk_norm]
    layer = kind(config, name=name, dtype=policy)
    layer.build((heads, width))
    return layer


class AllHeadsNorm(Norm):
    """Over all heads at once (OLMo 2: OLMo Team 2025): x is (…, n, h), its scale (n h)."""

    def build(self, shape):
        super().build((shape[0] * shape[1],))

    def call(self, x):
        flat = ops.reshape(x, (-1, *ops.shape(x)[1:-2], x.shape[-2] * x.shape[-1]))
        return ops.reshape(super().call(flat), (-1, *ops.shape(x)[1:]))


class EachHeadNorm(Norm):
    """Over each head with a scale of its own and no bias (StableLM 2: Bellagente et al. 2024); x is (…, n, h)."""

    def build(self, shape):
        heads, width = shape
        self.scales = [self.add_weight(name=f"scale_{i}", shape=(width,), initializer=self.start, autocast=False)
                       for i in range(heads)]  # fmt: skip

    def call(self, x):
        scale = ops.stack([scale + self.offset for scale in self.scales])
        return ops.cast(self.normalised(ops.cast(x, scale.dtype)) * scale, x.dtype)
