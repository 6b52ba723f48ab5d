"""What differs between JAX, TensorFlow and PyTorch, each difference behind one function with one contract.

The only module, beside the engines of training and distribution, that imports a backend, and then only the one in use.
"""

import keras


def compiled(fn, variables, donate=()):
    """`fn` of tensors as one compiled program where the backend has one, for inference.

    Args:
        fn: a function of (nested) tensors that reads Keras variables and assigns none.
        variables: the variables it reads.
        donate: indices of arguments that may be overwritten (JAX); the caller must not use them again.

    Returns:
        A function of the same arguments. Each new set of shapes compiles once.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        def run(values, *args):
            with keras.StatelessScope(list(zip(variables, values))):
                return fn(*args)

        program = jax.jit(run, donate_argnums=tuple(i + 1 for i in donate))
        return lambda *args: program([v.value for v in variables], *args)
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(fn, autograph=False)
    import torch

    return torch.no_grad()(fn)
