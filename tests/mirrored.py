"""What tests/test_pieces.py runs on TensorFlow: one process on one device and on two, which it must make first.

python -m tests.mirrored DIRECTORY prints what it found. Five rows are three
for one device and two for the other.
"""

import json
import sys

import tensorflow as tf

two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)

from tests import pieced  # noqa: E402
from zoo import processes, training  # noqa: E402

pieced.SIZES |= {"num_layers": 1, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 16}
pieced.MODELS["llama"][2].update(num_key_value_heads=1, remat=False)


def results(directory, mesh):
    """Losses, the norm of the last gradient, and the weights that a model without a mesh has from a checkpoint."""
    with pieced.scope(mesh):
        model = pieced.build("llama")
        losses = pieced.fit(model, pieced.batch("llama", rows=5), steps=3)
        norm = float(processes.whole(model.optimizer.gradient_norm.value))
        training.save(directory, model, 1)
        seeds = next(v.value for v in model.variables if v.path.endswith("seed_generator_state"))
        if mesh != "none":
            refused(model)
        copies = [copy.numpy().tolist() for copy in getattr(seeds, "values", [seeds])]
    again = pieced.build("llama")
    training.restore(directory, again)
    weights = {v.path: v.numpy().tolist() for v in again.trainable_variables}
    return {"losses": losses, "norm": norm, "weights": weights, "seeds": copies}


def refused(model):
    """Keras would give the rows of a batch once a device."""
    try:
        model.predict_on_batch(pieced.batch("llama", rows=2)[0])
    except ValueError as error:
        assert "use predict" in str(error)
    else:
        raise AssertionError("predict_on_batch went through")


if __name__ == "__main__":
    print(json.dumps({mesh: results(f"{sys.argv[1]}/{mesh}", mesh) for mesh in ("none", "data:2")}))
