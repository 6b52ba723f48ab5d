"""The vocabulary loss without the vocabulary's logits: cross-entropy from hidden states, a slice of time at a time.

Logits of shape (batch, time, vocabulary) never exist, neither forward nor backward. It knows no model: hidden states, a
kernel and labels come in, sums go out.
"""

from keras import ops

from zoo import backend, sharding

CHUNK_TOKENS = 256  # at least, to fill a matrix product


def chunk_length(batch, time, vocabulary):
    """How many positions of each row share a slice; a batch or time that is not known yet is None."""
    most = max(1, max(CHUNK_TOKENS, backend.logits_at_once() // vocabulary) // (batch or 16))
    return most if time is None else -(-time // -(-time // most))


def chunked_cross_entropy(hidden, kernel, labels, weights, bias=None, softcap=None, z_loss=0.0, label_smoothing=0.0,
                          training=True):  # fmt: skip
    """Sums over (b, t) of weighted cross-entropies, and of weighted hits.

    The gradients with respect to hidden states, kernel and bias are computed beside the loss while a slice's logits are
    at hand. So the backward pass has no matrix product left, and all backends run the same code.

    Args:
        hidden: (b, t, d).
        kernel: (d, v).
        labels: (b, t) integers; weights: (b, t) floats, 0 where a label does not count.
        bias: (v,) or None.
        softcap: logits become softcap * tanh(logits / softcap).
        z_loss: adds z_loss * log(Z) ** 2 per label (Chowdhery et al. 2022).
        label_smoothing: share of the target spread over the vocabulary (Szegedy et al. 2016).
        training: whether gradients are wanted.

    Returns:
        Two float32 scalars: the summed loss and the summed weight of right predictions.

    >>> import numpy as np
    >>> loss, _ = chunked_cross_entropy(np.zeros((1, 2, 4), "float32"), np.ones((4, 8), "float32"),
    ...                                 np.array([[1, 2]]), np.ones((1, 2), "float32"))
    >>> round(float(loss), 4) == round(2 * float(np.log(8)), 4)
    True
    """
    (batch, time, _), v = hidden.shape, kernel.shape[1]
    parts = sharding.parts(batch)
    size = chunk_length(batch and batch // parts, time, v)
    time = ops.shape(hidden)[1]  # TensorFlow may not know it yet
    count = -(-time // size)
    whole = isinstance(time, int) and time % size == 0
    fixed = ops.cast(ops.stop_gradient(kernel), hidden.dtype)
    shift = None if bias is None else ops.cast(ops.stop_gradient(bias), "float32")

    def slices(x):  # (b, t, …) to (count, b, size, …)
        pad = [[0, 0], [0, count * size - time]] + [[0, 0]] * (len(x.shape) - 2)
        x = x if whole else ops.pad(x, pad)
        x = ops.reshape(x, (-1 if batch is None else batch, count, size, *x.shape[2:]))
        return ops.moveaxis(x, 1, 0)

    def step(sums, piece):
        h, y, w = ops.reshape(piece[0], (-1, piece[0].shape[-1])), _flat(piece[1]), _flat(piece[2])[:, None]
        logits = ops.cast(ops.matmul(h, fixed), "float32")
        logits = logits if shift is None else logits + shift
        if softcap:
            slope = ops.tanh(logits / softcap)
            logits = slope * softcap
        mean = ops.mean(logits, axis=-1, keepdims=True) if label_smoothing else None
        log_z, target, top, gradient = backend.cross_entropy(logits, y)
        loss, hits, factor = log_z - target, ops.cast(target >= top, "float32"), 1.0
        if z_loss:
            loss, factor = loss + z_loss * ops.square(log_z), 1 + 2 * z_loss * log_z
            gradient = gradient * factor
        if label_smoothing:
            loss = loss + label_smoothing * (target - mean)
        new = [sums[0] + ops.sum(loss * w), sums[1] + ops.sum(hits * w)]
        if not training:
            return new, w[:0]
        if z_loss or label_smoothing:
            hot = ops.arange(v, dtype="int32") == y[:, None]
            gradient = gradient + ops.where(hot, factor - (1 - label_smoothing), 0.0) - label_smoothing / v
        if softcap:
            gradient = gradient * (1 - ops.square(slope))
        # The weights go where rows are narrow. Each device adds up its own rows: it would wait for others once a slice.
        narrow, weight = ops.cast(gradient, h.dtype), ops.cast(w, h.dtype)
        weighted, errors = (ops.reshape(x, (parts, -1, x.shape[-1])) for x in (h * weight, narrow))
        new.append(backend.add_product(sums[2], ops.swapaxes(weighted, 1, 2), errors))
        if shift is not None:
            new.append(sums[3] + ops.matmul(ops.transpose(w), gradient)[0])
        d_hidden = ops.matmul(narrow, ops.transpose(fixed)) * weight
        return new, ops.reshape(d_hidden, ops.shape(piece[0]))

    sums = [ops.zeros(()), ops.zeros(())]
    if training:
        blank = ops.zeros_like(kernel, dtype="float32")[None]  # in the kernel's layout, which a product may be fast in
        sums.append(blank if parts == 1 else sharding.apart(ops.zeros((parts, *kernel.shape))))
        sums += [] if shift is None else [ops.zeros((v,))]
    pieces = [slices(x) for x in (ops.stop_gradient(hidden), ops.cast(labels, "int32"), ops.cast(weights, "float32"))]
    if isinstance(count, int) and count == 1:
        sums, d_hidden = step(sums, [piece[0] for piece in pieces])
        d_hidden = d_hidden[:, None]
    else:
        sums, d_hidden = backend.scan(step, sums, pieces, count)
        d_hidden = ops.moveaxis(d_hidden, 0, 1)
    loss, hits = ops.stop_gradient(sums[0]), ops.stop_gradient(sums[1])
    if not training:
        return loss, hits
    d_hidden = ops.reshape(d_hidden, (-1, count * size, hidden.shape[2]))[:, :time]
    d_kernel = sums[2][0] if parts == 1 else ops.sum(sums[2], axis=0)
    tensors = [x for x in (hidden, kernel, bias) if x is not None]
    return backend.with_gradients(loss, tensors, [d_hidden, d_kernel, *sums[3:]]), hits


def _flat(x):
    return ops.reshape(x, (-1,))
