"""An optimizer that treats weights by name: no decay here, another learning rate there, frozen elsewhere.

It knows variable paths and Keras's optimizers, and no family. Keras's optimizers are configured and composed, never
subclassed, for a subclass of AdamW loses PyTorch's fused update.
"""

import copy
import difflib
import functools
import re

import keras
from keras import ops

from zoo import backend, sharding


def by_pattern(optimizer, model, *, no_decay=None, rates=None, freeze=(), layer_decay=1.0):
    """A Keras optimizer for a model, some of whose weights are treated otherwise.

    Patterns are regular expressions, searched for in variable paths such as
    `gpt_backbone/decoder/block_0/attn/query/kernel`.

    Args:
        optimizer: a Keras optimizer that is not built; what it is configured with holds wherever nothing else is said.
            Its `global_clipnorm` bounds the gradients of all weights together.
        model: a model with its weights made; compile it afterwards with the optimizer that is returned.
        no_decay: patterns of the weights without decay; None: biases and norms, which are all that have one axis.
        rates: {pattern: factor of the learning rate}; the decay, which Keras multiplies by the rate, follows. Where
            several patterns match, the factors multiply.
        freeze: patterns of the weights that stay as they are: they become untrainable.
        layer_decay: the rate of each block is this times that of the block above; what comes before the blocks is one
            further down (Bao et al. 2022, BEiT). Each stack of an encoder-decoder counts for itself.

    Returns:
        A `Grouped` optimizer.

    Raises:
        ValueError: a pattern that matches nothing, with the paths nearest to it; nothing left to train; an optimizer
            with settings that cannot be composed.

    Example:

    >>> import keras
    >>> layers = [keras.Input((2,)), keras.layers.Dense(3, name="a"), keras.layers.Dense(1, name="b")]
    >>> model = keras.Sequential(layers, name="m")
    >>> optimizer = by_pattern(keras.optimizers.AdamW(1e-3), model, freeze=["/a/"], rates={"b/bias$": 2.0})
    >>> [v.path for v in model.trainable_variables]
    ['m/b/kernel', 'm/b/bias']
    """
    variables = list(model.trainable_variables)
    if not 0 < layer_decay <= 1:
        raise ValueError(f"layer_decay={layer_decay} must lie in (0, 1].")
    factors = _layer_factors(model, layer_decay) if layer_decay < 1 else {}
    for pattern, factor in (rates or {}).items():
        if factor <= 0:
            raise ValueError(f"The factor {factor} of {pattern!r} must be above 0: freeze weights that shall stay.")
        for v in _matching(pattern, variables):
            factors[v.path] = factors.get(v.path, 1.0) * factor
    if no_decay is None:
        plain = [v.path for v in variables if len(v.shape) < 2]
    else:
        plain = [v.path for pattern in no_decay for v in _matching(pattern, variables)]
    frozen = [v for pattern in freeze for v in _matching(pattern, variables)]
    if len({v.path for v in frozen}) == len(variables):
        raise ValueError(f"freeze={list(freeze)} leaves nothing to train.")
    found = Grouped(optimizer, factors, sorted(set(plain)))
    for v in frozen:
        v.trainable = False
    return found


def _matching(pattern, variables):
    found = [v for v in variables if re.search(pattern, v.path)]
    if not found:
        near = difflib.get_close_matches(pattern, [v.path for v in variables], n=3, cutoff=0.0)
        raise ValueError(f"The pattern {pattern!r} matches no trainable weight; the nearest are {', '.join(near)}.")
    return found


def _layer_factors(model, decay):
    """path -> factor, for what is in the backbone."""
    found, factors = {}, {}
    for v in model.backbone.trainable_variables:
        block = re.search(r"/(\w+)/block_(\d+)/", v.path)
        found[v.path] = (block[1], int(block[2])) if block else (None, -1)
    depths = {}
    for stack, index in found.values():
        depths[stack] = max(depths.get(stack, 0), index + 1)
    for path, (stack, index) in found.items():
        if stack is not None or "/final_norm/" not in path:
            factors[path] = decay ** (depths[stack] - index if stack else max(depths.values()) + 1)
    return factors


@keras.saving.register_keras_serializable("zoo")
class Grouped(keras.optimizers.Optimizer):
    """A Keras optimizer, a copy of which moves each group of weights that shares a learning rate.

    It has one step count and one schedule. The global norm, of the gradients before clipping, is of all groups.

    Args:
        optimizer: the Keras optimizer to copy.
        factors: {variable path: factor of the learning rate}, 1 where it is not named.
        no_decay: paths of the variables without weight decay.
        name: that of the optimizer by default.

    Attributes:
        gradient_norm: float32 variable, of the last update.
        first_bad: int32 variable, the number, from 1, of the first update whose gradient was not finite; 0 if none.
    """

    def __init__(self, optimizer, factors=None, no_decay=(), name=None):
        config, rate = _settings(optimizer)
        unfit = [key for key in ("gradient_accumulation_steps", "loss_scale_factor") if config.get(key)]
        if unfit:
            raise ValueError(f"{unfit[0]} belongs to one optimizer alone: use compile(accumulate=…) of the model.")
        if "global_clipnorm" not in config:
            raise ValueError(f"A {type(optimizer).__name__} wraps other optimizers: give the one that it wraps.")
        if hasattr(optimizer, "_exclude_from_weight_decay"):  # which its config does not hold
            raise ValueError("exclude_from_weight_decay does not reach the copies of an optimizer: give no_decay.")
        super().__init__(rate, global_clipnorm=config["global_clipnorm"], name=name or optimizer.name)
        self._optimizer = optimizer
        # In a function, for TensorFlow wraps dictionaries that are attributes.
        self._options = functools.partial(copy.deepcopy, (config, dict(factors or {}), list(no_decay)))

    def build(self, variables):
        """Makes the state, and a copy of the optimizer for each group."""
        if self.built:
            return
        super().build(variables)
        self.gradient_norm = self.add_variable((), name="gradient_norm", dtype="float32")
        self.first_bad = self.add_variable((), name="first_bad", dtype="int32")
        members, (_, factors, _) = {}, self._options()
        for i, v in enumerate(variables):
            members.setdefault(factors.get(v.path, 1.0), []).append(i)
        self._members = list(members.values())
        self._copies = [self._copy(factor, [variables[i] for i in group]) for factor, group in members.items()]

    def _copy(self, factor, variables):
        config, _, no_decay = self._options()
        found = type(self._optimizer).from_config({**config, "global_clipnorm": None})
        found.learning_rate = lambda: ops.multiply(self.learning_rate, factor)
        plain = [v for v in variables if v.path in no_decay]
        if plain:
            found.exclude_from_weight_decay(var_list=plain)
        if len(plain) == len(variables):
            found.weight_decay = None  # PyTorch's decay of no variables at all is an error
        sharding.prepared(found).build(variables)
        return found

    @property
    def variables(self):
        """Its own, then those of the copies."""
        return [*super().variables, *(v for one in getattr(self, "_copies", ()) for v in one.variables)]

    def apply(self, grads, trainable_variables=None):
        """Keras's: one update of the variables it was built with, from gradients in their order; it may change them."""
        variables = self._trainable_variables if trainable_variables is None else list(trainable_variables)
        if not self.built:
            self.build(variables)
        if [id(v) for v in variables] != [id(v) for v in self._trainable_variables]:
            raise ValueError("The weights to train are not those that the optimizer was built for: compile again.")
        norm = sharding.plain(backend.global_norm(grads))
        self.gradient_norm.assign(norm)
        bad = ops.logical_and(self.first_bad.value == 0, ops.logical_not(ops.isfinite(norm)))
        self.first_bad.assign(ops.where(bad, ops.cast(self.iterations + 1, "int32"), self.first_bad.value))
        if self.global_clipnorm:
            grads = backend.scaled(grads, self.global_clipnorm / ops.maximum(norm, self.global_clipnorm))
        for one, group in zip(self._copies, self._members):
            if any(grads[i] is not None for i in group):
                one.apply([grads[i] for i in group], [variables[i] for i in group])
        self.iterations.assign_add(1)

    def finalize_variable_values(self, var_list):
        """Keras's, at the end of `fit`."""
        for one, group in zip(self._copies, self._members):
            one.finalize_variable_values([var_list[i] for i in group])

    def get_config(self):
        _, factors, no_decay = self._options()
        optimizer = keras.optimizers.serialize(self._optimizer)
        return {"optimizer": optimizer, "factors": factors, "no_decay": no_decay, "name": self.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**{**config, "optimizer": keras.optimizers.deserialize(config["optimizer"], custom_objects)})


def _settings(optimizer):
    """Its config without the learning rate, and that: a schedule or a number.

    Asked for both, Keras would serialise the schedule, which imports TensorFlow on every backend.
    """
    rate = optimizer._learning_rate
    optimizer._learning_rate = 0.0
    try:
        config = optimizer.get_config()
    finally:
        optimizer._learning_rate = rate
    return config, float(ops.convert_to_numpy(rate)) if isinstance(rate, keras.Variable) else rate
