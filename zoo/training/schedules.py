"""The learning rate over a run: linear warmup, then one of the usual declines. It knows steps and nothing of models."""

import math

import keras
from keras import ops

KINDS = ("cosine", "linear", "inverse_sqrt", "wsd", "constant")


@keras.saving.register_keras_serializable("zoo")
class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warmup to `peak` over `warmup_steps`, then:

    - "cosine": half a cosine down to `minimum` at `steps` (Loshchilov & Hutter 2017; GPT-3, Llama);
    - "linear": a straight line to `minimum` at `steps` (BERT, RoBERTa);
    - "inverse_sqrt": peak * sqrt(warmup_steps / step), without an end (Vaswani et al. 2017), not below `minimum`;
    - "wsd": constant, then over the last `decay_steps` a straight line to `minimum` (Hu et al. 2024, MiniCPM);
    - "constant".

    Args:
        peak: the highest rate, above 0.
        steps: updates in the run; afterwards the rate stays.
        warmup_steps: update i of these, counted from 1, has the rate peak * i / warmup_steps.
        kind: see above.
        minimum: the lowest rate after the warmup.
        decay_steps: of "wsd"; None: a tenth of `steps`.

    Raises:
        ValueError: an unknown kind, or numbers that leave no room for one another.

    Example:

    >>> schedule = WarmupSchedule(1e-3, steps=100, warmup_steps=10, kind="linear")
    >>> [round(float(schedule(step)), 6) for step in (0, 9, 55, 100)]
    [0.0001, 0.001, 0.0005, 0.0]
    """

    def __init__(self, peak, steps, warmup_steps=0, kind="cosine", minimum=0.0, decay_steps=None):
        if kind not in KINDS:
            raise ValueError(f"schedule {kind!r} is none of {', '.join(KINDS)}.")
        if not (peak > 0 and math.isfinite(peak)) or not 0 <= minimum <= peak:
            raise ValueError(f"The learning rate must be above 0 and not below its minimum, got {peak} and {minimum}.")
        if not 0 <= warmup_steps < max(steps, 1):
            raise ValueError(f"warmup_steps={warmup_steps} must lie in [0, steps={steps}): train longer, or lower it.")
        if kind == "inverse_sqrt" and not warmup_steps:
            raise ValueError("schedule 'inverse_sqrt' starts to decline where the warmup ends: give warmup_steps.")
        self.peak, self.steps, self.warmup_steps = float(peak), int(steps), int(warmup_steps)
        self.kind, self.minimum, self.decay_steps = kind, float(minimum), decay_steps
        room, wanted = self.steps - self.warmup_steps, -(-self.steps // 10) if decay_steps is None else decay_steps
        if decay_steps is not None and not 0 < decay_steps <= room:
            raise ValueError(f"decay_steps={decay_steps} must lie in (0, {room}], the steps after the warmup.")
        self._decay = min(wanted, room)

    def __call__(self, step):
        step = ops.cast(step, "float32")
        rate = self._after_warmup(step)
        if self.warmup_steps:
            rate = ops.where(step < self.warmup_steps, self.peak * (step + 1) / self.warmup_steps, rate)
        return rate

    def _after_warmup(self, step):
        span = self.peak - self.minimum
        if self.kind == "constant":
            return ops.full_like(step, self.peak)
        if self.kind == "inverse_sqrt":
            rate = self.peak * ops.sqrt(self.warmup_steps / ops.maximum(step + 1, self.warmup_steps))
            return ops.maximum(rate, self.minimum)
        length = self._decay if self.kind == "wsd" else self.steps - self.warmup_steps
        done = ops.clip((step - (self.steps - length)) / length, 0.0, 1.0)
        if self.kind == "cosine":
            return self.minimum + span * 0.5 * (1 + ops.cos(math.pi * done))
        return self.minimum + span * (1 - done)

    def get_config(self):
        return {"peak": self.peak, "steps": self.steps, "warmup_steps": self.warmup_steps, "kind": self.kind,
                "minimum": self.minimum, "decay_steps": self.decay_steps}  # fmt: skip
