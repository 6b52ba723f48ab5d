"""The schedules against those of `transformers`, and the errors."""

import numpy as np
import pytest

from zoo.training import WarmupSchedule

STEPS, WARMUP = 50, 8
CASES = [
    ("cosine", {}, "get_cosine_schedule_with_warmup", {"num_training_steps": STEPS}),
    ("linear", {}, "get_linear_schedule_with_warmup", {"num_training_steps": STEPS}),
    ("constant", {}, "get_constant_schedule_with_warmup", {}),
    ("wsd", {"decay_steps": 12}, "get_wsd_schedule", {"num_decay_steps": 12, "num_training_steps": STEPS,
                                                      "decay_type": "linear"}),
    ("inverse_sqrt", {}, "get_inverse_sqrt_schedule", {}),
]  # fmt: skip


def rates(schedule, steps=STEPS):
    return np.array([float(schedule(step)) for step in range(steps)])


@pytest.mark.parametrize(("kind", "options", "name", "theirs"), CASES)
def test_equals_transformers(kind, options, name, theirs):
    optimization = pytest.importorskip("transformers.optimization")
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = getattr(optimization, name)(optimizer, num_warmup_steps=WARMUP, **theirs)
    expected = []
    for _ in range(STEPS + 1):
        expected.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    found = rates(WarmupSchedule(0.3, STEPS, WARMUP, kind, **options))
    # Theirs begins with an update at rate zero; ours is that much ahead in the warmup, and where no end is counted to.
    ahead = np.arange(STEPS) < (STEPS if kind == "inverse_sqrt" else WARMUP)
    np.testing.assert_allclose(found, np.where(ahead, expected[1:], expected[:-1]), rtol=1e-5, atol=1e-7 * 0.3)


@pytest.mark.backends
@pytest.mark.parametrize("kind", ["cosine", "linear", "wsd"])
def test_ends_at_the_minimum_and_stays(kind):
    schedule = WarmupSchedule(1.0, STEPS, WARMUP, kind, minimum=0.25)
    found = rates(schedule, STEPS + 20)
    assert found.max() == 1.0
    np.testing.assert_allclose(found[STEPS:], 0.25, rtol=1e-6)
    assert (np.diff(found[WARMUP:]) <= 1e-7).all()


@pytest.mark.backends
def test_survives_serialisation():
    import keras

    schedule = WarmupSchedule(0.1, STEPS, WARMUP, "wsd", 0.01, decay_steps=5)
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    np.testing.assert_array_equal(rates(schedule), rates(again))


@pytest.mark.backends
def test_is_what_the_optimizer_uses():
    import keras

    weight = keras.Variable(np.zeros(1, "float32"), name="w")
    optimizer = keras.optimizers.SGD(WarmupSchedule(0.4, 6, 3, "linear"), name="sgd")
    path = []
    for _ in range(6):
        before = float(keras.ops.convert_to_numpy(weight.value)[0])
        optimizer.apply([keras.ops.ones(1)], [weight])
        path.append(before - float(keras.ops.convert_to_numpy(weight.value)[0]))
    np.testing.assert_allclose(path, [0.4 / 3, 0.8 / 3, 0.4, 0.4, 0.8 / 3, 0.4 / 3], rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "cosin"}, "'cosin'"),
        ({"peak": -1.0}, "above 0"),
        ({"minimum": 2.0}, "minimum"),
        ({"warmup_steps": 50}, "warmup_steps=50"),
        ({"kind": "inverse_sqrt"}, "warmup"),
        ({"kind": "wsd", "warmup_steps": 40, "decay_steps": 11}, "decay_steps=11"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        WarmupSchedule(**{"peak": 1.0, "steps": 50, **arguments})
