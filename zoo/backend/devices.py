"""Which device programs run on, and what is fast there."""

import contextlib
import contextvars
import os

import keras

if keras.backend.backend() == "torch":
    # Large tensors on huge pages, where Linux has them: each is mapped anew, and small pages cost a part of a step.
    # PyTorch looks here at its first allocation.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

_target = contextvars.ContextVar("target", default=None)


@contextlib.contextmanager
def targeting(platform):
    """Within it, JAX's programs are made for a platform, "tpu" or "cpu", whatever this machine has."""
    token = _target.set(platform)
    try:
        yield
    finally:
        _target.reset(token)


def jax_platform():
    """What JAX's programs are made for: "cpu", "gpu" or "tpu"."""
    import jax

    return _target.get() or jax.default_backend()


def device_name():
    """What the first accelerator in use calls itself, such as "NVIDIA A100-SXM4-40GB"; None on a CPU."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        device = jax.devices()[0]
        return None if device.platform == "cpu" else device.device_kind
    if backend == "torch":
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else None
    import tensorflow as tf

    devices = tf.config.list_physical_devices("GPU")
    return tf.config.experimental.get_device_details(devices[0]).get("device_name", "GPU") if devices else None


def fused_attention_pays():
    """Whether the backend's fused attention beats einsums here: PyTorch always, JAX on GPUs.

    Keras's for TPUs leaves out biases, and sees no future where nothing is masked.
    """
    if keras.backend.backend() == "jax":
        return jax_platform() == "gpu"
    return keras.backend.backend() == "torch"


def logits_at_once():
    """How many logits a slice of the loss makes on a device: 8 MB stay in a CPU's cache where XLA fuses their uses.

    The others pass over memory anyway, and add a kernel's gradient to a sum once a slice; accelerators want few slices.
    """
    if keras.backend.backend() == "jax":
        return 2**21 if jax_platform() == "cpu" else 2**27
    return 2**23
