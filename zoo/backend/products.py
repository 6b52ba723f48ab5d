"""Arithmetic with a faster way on some backend: products, the cross-entropy, writes in place, dropout, Adam."""

import functools

import keras
from keras import ops


def write(x, part, index):
    """x (b, k, s, h) with `part` (b, k, t, h) in the slots from `index` on, the first of them again behind the last.

    No copy is made, `x` is given up for it. An `index` that is a Python integer leaves room for all of the part.
    """
    t, s = part.shape[2], x.shape[2]
    if keras.backend.backend() != "torch":
        if isinstance(index, int):
            return _slice_written(x, part, index)
        for i in range(t):  # a part that goes on at the front is no slice
            x = _slice_written(x, part[:, :, i : i + 1], (index + i) % s)
        return x
    import torch

    slots = (torch.arange(t, device=x.device) + index) % s
    return x.index_copy_(2, slots, part)


def _slice_written(x, part, index):
    if x.shape[0] == 1:  # in the axes that products keep, see `repeated`
        return ops.slice_update(x[0], (0, index, 0), part[0])[None]
    return ops.slice_update(x, (0, 0, index, 0), part)


def product(x, kernel, bias=None):
    """x (…, d) times kernel (d, f), plus a bias (f,) where there is one.

    On PyTorch the bias is where the product's sums begin, so it costs no pass of its own. On JAX the kernel's gradient
    is written as one contraction over rows. Left to itself, XLA on CPUs transposes the incoming gradient, and what is
    fused with it, element by element: a feed-forward's backward pass takes three times as long.
    """
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        bias = None if bias is None else ops.convert_to_tensor(bias)
        return torch.nn.functional.linear(x, ops.convert_to_tensor(kernel).t(), bias)
    y = _jax_product()(x, ops.convert_to_tensor(kernel)) if backend == "jax" else ops.matmul(x, kernel)
    return y if bias is None else ops.add(y, bias)


@functools.cache
def _jax_product():
    import jax

    @jax.custom_vjp
    def multiply(x, kernel):
        return x @ kernel

    def forward(x, kernel):
        return x @ kernel, (x, kernel)

    def backward(saved, gradient):
        x, kernel = saved
        rows, gradients = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
        d_kernel = jax.lax.dot_general(rows, gradients, (((0,), (0,)), ((), ())))
        return (gradients @ kernel.T).reshape(x.shape), d_kernel

    multiply.defvjp(forward, backward)
    return multiply


def add_product(total, a, b):
    """total + a b, of (p, …) matrices; on PyTorch in the total's memory, which nobody else may need."""
    if keras.backend.backend() == "torch" and a.dtype == total.dtype:
        return total.baddbmm_(a, b)
    return total + ops.cast(ops.matmul(a, b), total.dtype)


def cross_entropy(logits, labels):
    """What the cross-entropy of float32 logits (n, v) against labels (n,) is made of.

    Nothing is differentiated through it. Fewest passes over memory: XLA fuses the formula, the others have kernels.

    Returns:
        log(Z), the logits of the labels and the largest logits, (n, 1) each; and the gradient of the losses (n, v),
        softmax minus one-hot, which on PyTorch takes the place of the logits.
    """
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        index = labels[:, None].long()
        target, top = logits.gather(1, index), logits.amax(1, keepdim=True)
        gradients = torch.softmax(logits, 1, out=logits)
        log_z = top - gradients.amax(1, keepdim=True).log()  # the largest probability is 1 / sum(exp(logits - top))
        return log_z, target, top, gradients.scatter_add_(1, index, gradients.new_full((1, 1), -1.0).expand_as(index))
    top = ops.max(logits, axis=-1, keepdims=True)
    if backend == "tensorflow":
        import tensorflow as tf

        losses, gradients = tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(features=logits, labels=labels)
        target = tf.gather(logits, labels[:, None], batch_dims=1)
        return losses[:, None] + target, target, top, gradients
    exponentials, hot = ops.exp(logits - top), ops.arange(logits.shape[1]) == labels[:, None]
    total = ops.sum(exponentials, axis=-1, keepdims=True)
    target = ops.sum(ops.where(hot, logits, 0.0), axis=-1, keepdims=True)
    return ops.log(total) + top, target, top, exponentials / total - ops.cast(hot, "float32")


def fused_attention(q, k, v, bias, mask, scale, causal):
    """Keras's attention of (b, t, n, h) in one operation."""
    # `None` would make PyTorch probe its kernels in Python on each call; it runs the fused one all the same.
    flash = False if keras.backend.backend() == "torch" else None
    return ops.dot_product_attention(q, k, v, bias, mask, scale, causal, flash)


def softmax(scores):
    """The softmax of float32 scores over their last axis, and what is still to be divided by, or None.

    XLA would make a pass for the division. What is multiplied with the softmax is narrower, and divided in no time.
    """
    if keras.backend.backend() == "torch":
        return ops.softmax(scores, axis=-1), None
    weights = ops.exp(scores - ops.stop_gradient(ops.max(scores, axis=-1, keepdims=True)))
    return weights, ops.sum(weights, axis=-1, keepdims=True)


def dropout(x, rate, seeds):
    """x with a share `rate` of its elements zero and the others larger, by one seed of a `SeedGenerator`.

    Keras's, but on PyTorch with the mask made in place, for Keras passes over memory twice as often. In half precision
    the mask's values would be rounded.
    """
    if keras.backend.backend() != "torch" or x.dtype.itemsize < 4 or x.device.type == "meta":
        return keras.random.dropout(x, rate, seed=seeds)
    import torch

    generator = torch.Generator(x.device).manual_seed(sum(seeds.next().tolist()))
    return x * torch.empty_like(x).bernoulli_(1 - rate, generator=generator).div_(1 - rate)


def global_norm(gradients):
    """The Euclidean norm, in float32, of all gradients together; None among them are left out."""
    found = [g for g in gradients if g is not None]
    if keras.backend.backend() == "torch" and all(g.dtype.itemsize == 4 for g in found):
        import torch

        return torch.nn.utils.get_total_norm(found)
    return ops.sqrt(sum(ops.sum(ops.square(ops.cast(g, "float32"))) for g in found))


def scaled(gradients, scale):
    """Gradients times a number; on PyTorch in their own memory."""
    if keras.backend.backend() == "torch":
        return [None if g is None else g.mul_(scale) for g in gradients]
    return [None if g is None else g * ops.cast(scale, g.dtype) for g in gradients]


def fuse(optimizer):
    """Makes Keras's Adam or AdamW pass over memory once on PyTorch's CPUs, where it makes ten passes; others stay."""
    if keras.backend.backend() == "torch" and isinstance(optimizer, keras.optimizers.Adam):
        by_keras = getattr(optimizer, "_parallel_update_step", None)  # which a user's subclass has not
        if by_keras and not optimizer.amsgrad:
            optimizer._parallel_update_step = functools.partial(_fused_adam, optimizer, by_keras)


def _fused_adam(optimizer, by_keras, gradients, variables, rate):
    import torch
    from torch.optim.adam import adam

    weights, done = [v.value for v in variables], int(optimizer.iterations.value)
    if any(w.device.type != "cpu" or hasattr(w, "placements") for w in weights):  # reading the step would wait for it
        return by_keras(gradients, variables, rate)
    # The kernel walks through memory. Weights of files are parts of others, or lie transposed, as all else must then.
    for w in weights:
        if not w.is_contiguous() and not (w.ndim > 1 and w.mT.is_contiguous()):
            w.data = w.data.contiguous()
    alike = lambda x, w: x if x.stride() == w.stride() else torch.empty_like(w).copy_(x)  # noqa: E731
    places, slots = list(map(optimizer._get_variable_index, variables)), []
    for kept in (optimizer._momentums, optimizer._velocities):
        slots.append([kept[i].value for i in places])
        for slot, w in zip(slots[-1], weights):
            slot.data = alike(slot.data, w)
    gradients = [alike(g, w) for g, w in zip(gradients, weights)]
    steps = list(torch.full((len(weights),), float(done)))
    # Keras adds epsilon before the velocity's bias is corrected, PyTorch after; the decay is done.
    epsilon = optimizer.epsilon / (1 - optimizer.beta_2 ** (done + 1)) ** 0.5
    adam(weights, gradients, *slots, [], steps, fused=True, amsgrad=False, maximize=False, beta1=optimizer.beta_1,
         beta2=optimizer.beta_2, lr=float(rate), weight_decay=0.0, eps=epsilon)  # fmt: skip
