"""Models without weights, and their programs traced on a mesh: the update of `fit` and a step of `generate`.

Layers are built as ever, within an abstract evaluation, so variables have paths, shapes and layouts, and no values.
It knows tasks as Keras runs them, and no file.
"""

import jax
import keras

from zoo import backend, samplers, sharding
from zoo.generation import loop


def abstract(make):
    """What `make()` returns, whose Keras variables have shapes and layouts, but no values and no memory.

    Args:
        make: a function of nothing that builds and compiles a model, called within the mesh that is in force.
    """
    made = []
    jax.eval_shape(lambda: made.append(make()))
    return made[0]


def shapes(variables):
    """What stands for the values of variables: shapes with dtypes and layouts."""
    mesh = sharding.current()

    def shape(variable):
        layout = mesh.get_variable_layout(variable) if variable._layout is None else variable._layout
        return jax.ShapeDtypeStruct(variable.shape, variable.dtype, sharding=layout.backend_layout)

    return [shape(variable) for variable in variables]


def train_program(model, batch, rows, platform):
    """The update that `fit` compiles, traced.

    Args:
        model: an abstract task, compiled; its optimizer is built here.
        batch: (x, y, sample_weight) as arrays of any number of rows; their shapes are looked at alone.
        rows: of the whole batch, over all devices.
        platform: what it is made for, "tpu" or "cpu".

    Returns:
        What `jax.jit(…).trace(…)` returns.
    """
    abstract(lambda: model.optimizer.build(model.trainable_variables))
    state = tuple(map(shapes, (model.trainable_variables, model.non_trainable_variables, model.optimizer.variables,
                               model.metrics_variables)))  # fmt: skip
    layouts = jax.tree.map(lambda leaf: leaf.sharding, state)
    data = keras.tree.map_structure(lambda x: _rows((rows, *x.shape[1:]), x.dtype), batch)
    with backend.targeting(platform):
        return jax.jit(model.train_step, donate_argnums=0, out_shardings=(None, layouts)).trace(state, data)


def decode_program(model, rows, slots, memory, platform):
    """A step of greedy decoding with a cache of `slots` tokens a row, traced.

    Args:
        model: an abstract task that generates.
        rows: that decode together, over all devices.
        slots: tokens of a row, prompt and answer.
        memory: tokens of an encoder's input a row; 0 for a decoder.
        platform: what it is made for, "tpu" or "cpu".

    The cache lies as attention makes it: rows over the data axes, heads over `model` where they divide.
    """
    config, mesh = model.config, sharding.current()
    hidden = jax.ShapeDtypeStruct((rows, memory, config.hidden_dim), model.compute_dtype)
    heads = config.resolved_key_value_heads

    def laid(leaf):
        split = [sharding.DATA_AXES if rows % mesh.num_model_replicas == 0 else (), (), (), ()]
        split[1] = () if heads % mesh.sizes["model"] else ("model",)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=mesh.layout(split).backend_layout)

    def stateless(values, fn, *args):
        with keras.StatelessScope(list(zip(model.variables, values))):
            return fn(*args)

    def step(values, tokens, cache, index, seen, uniform, memory_mask):
        logits, cache = stateless(values, loop.stepped, model, tokens, cache, index, seen, memory_mask)
        return samplers.Greedy()(logits, uniform), cache

    values = shapes(model.variables)
    with backend.targeting(platform):
        cache = jax.eval_shape(
            lambda values, hidden: stateless(values, model.backbone.new_cache, rows, slots, hidden if memory else None),
            values, hidden,
        )  # fmt: skip
        cache = jax.tree.map(laid, cache)
        mask = _rows((rows, 1, 1, memory), "bool") if memory else None
        index = jax.ShapeDtypeStruct((), "int32", sharding=mesh.layout([]).backend_layout)
        return jax.jit(step, donate_argnums=2).trace(
            values,
            _rows((rows,), "int32"),
            cache,
            index,
            _rows((rows, slots), "int32"),
            _rows((rows,), "float32"),
            mask,
        )


def _rows(shape, dtype):
    layout = sharding.current().get_data_layout(shape).backend_layout
    return jax.ShapeDtypeStruct(shape, dtype, sharding=layout)
