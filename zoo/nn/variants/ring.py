"""Caches of windowed layers as rings: slot s of a text lies at s modulo the ring's length, over what went out of sight.

Until a ring is full, slots are where they would be without it. It knows no layer.
"""

from keras import ops

from zoo import backend


def ring_length(slots, window, ahead):
    """How many of the `slots` of a text a windowed layer keeps.

    They are all that is seen when `ahead` tokens are written at once, or some of them are taken back.
    """
    return min(slots, window + ahead - 1)


def ring_mask(mask, last, room):
    """The part (…, t, room) of a mask (…, t, slots) for a ring of keys in which slot `last` is the newest.

    Each place holds the newest slot that is congruent to it, or nothing yet.
    """
    held = last - (last - ops.arange(room)) % room
    return ops.take(mask, ops.maximum(held, 0), axis=-1) & (held >= 0)


def remembered(cache, new, index):
    """A cache (b, k, slots, h) with keys or values (b, k, t, h) of slots index, index + 1, …, at these modulo `slots`.

    Of a prompt that is longer than the cache the end is kept.
    """
    room, t, new = cache.shape[2], new.shape[2], ops.cast(new, cache.dtype)
    return ops.roll(new[:, :, t - room :], t, axis=2) if t > room else backend.write(cache, new, index)
