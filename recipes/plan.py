"""Plans a run: compiles its real step for chips that need not be there, and says what it would cost on each.

python recipes/plan.py --flagfile=recipes/cards/gpt2_124m.cfg --topology=v5e:4x4 --mesh=data:16 --batch_size=128
python recipes/plan.py --flagfile=recipes/cards/llama_7b.cfg --topology=v5p:4x4x4 --mesh=data:64 --shard=fsdp --remat
python recipes/plan.py --preset=hf://openai-community/gpt2 --topology=v5e:2x2 --sweep         meshes and batches, ranked
python recipes/plan.py --preset=hf://openai-community/gpt2 --task=generate --dtype=bfloat16   a step of the decode loop
python recipes/plan.py --topology=cpu:1                       this machine's own compiler, without libtpu

The flags are those of pretrain.py, whose step this is; --data is not read, and no weight is made. TPUs need the extra
`plan`, and their compiler alone runs: no chip is opened.
"""

import os
import resource
import sys
import tempfile
import time
import types

import common
import pretrain
from absl import flags

import zoo

FLAGS = flags.FLAGS
flags.DEFINE_string("topology", "v5e:2x4", "Chips to plan for: v4, v5e, v5p or v6e with a shape, or cpu:N.")
flags.DEFINE_enum("task", "train", ["train", "generate"], "The update of a batch, or a step of the decode loop.")
flags.DEFINE_bool("sweep", False, "Plan all of --try_mesh, --try_shard and --try_batch_size, and rank them.")
flags.DEFINE_multi_string("try_mesh", [], "A mesh of the sweep. Default: data and model axes of 1, 2 and 4.")
flags.DEFINE_multi_enum("try_shard", [], ["none", "fsdp"], "A --shard of the sweep. Default: that of --shard.")
flags.DEFINE_multi_integer("try_batch_size", [], "A batch of the sweep. Default: --batch_size and twice that.")
flags.DEFINE_bool("thorough", False, "Let the compiler work as for a run: slower, and a few per cent more exact.")
flags.DEFINE_string("json", None, "File for the plan, or the plans of a sweep, in numbers.")
flags.DEFINE_string("picture", None, "File for bars of memory and time, as a PNG.")


def main():
    # What is planned, and where; the compiler of the chips runs on this machine's CPU.
    FLAGS.backend = os.environ["KERAS_BACKEND"] = "jax"
    os.environ["JAX_PLATFORMS"] = "cpu"
    from zoo import planning
    from zoo.planning import report

    place = planning.open_slice(FLAGS.topology)
    config = pretrain.preset_config() if FLAGS.preset else pretrain.new_config()
    objective = pretrain.make_objective(config)
    tokenizer, bound, batch = example(objective)

    # Each mesh and batch, compiled.
    plans = []
    for mesh, shard, FLAGS.batch_size in cases(place):
        FLAGS.mesh, FLAGS.shard = mesh, shard
        try:
            plans.append(plan(place, config, tokenizer, bound, batch))
        except ValueError as error:
            if not FLAGS.sweep:
                raise
            print(f"left out: {error}\n", file=sys.stderr)
    if not plans:
        raise ValueError("No case of the sweep is possible: give --try_mesh and --try_batch_size.")

    # What came of it.
    plans = report.ranked(plans)
    if FLAGS.sweep:
        print("\nRanked by tokens a second and chip, those that fit first:")
    for number, found in enumerate(plans, 1):
        print(f"\n{number}. " * FLAGS.sweep + report.described(found))
    if FLAGS.json:
        report.write_json(FLAGS.json, plans if FLAGS.sweep else plans[0])
    if FLAGS.picture:
        report.write_picture(FLAGS.picture, plans)


def cases(place):
    """Meshes, shards and batch sizes to plan for."""
    count = len(place.devices)
    if not FLAGS.sweep:
        return [(FLAGS.mesh or f"data:{count}", FLAGS.shard or "none", FLAGS.batch_size)]
    sizes = [size for size in (1, 2, 4) if count % size == 0]
    meshes = FLAGS.try_mesh or [f"data:{count // size},model:{size}" for size in sizes]
    batches = FLAGS.try_batch_size or [FLAGS.batch_size, 2 * FLAGS.batch_size]
    shards = FLAGS.try_shard or [FLAGS.shard or "none"]
    return [(mesh, shard, rows) for mesh in meshes for shard in shards for rows in batches]


def example(objective):
    """A tokenizer of the planned size, the objective bound to it, and a batch of one row: for their shapes alone."""
    text = [" ".join(f"word{i * j % 89}" for j in range(FLAGS.sequence_length)) + "." for i in range(1, 33)]
    if FLAGS.preset:
        tokenizer, size = zoo.Tokenizer.from_preset(FLAGS.preset), None
    else:
        options = common.tokenizer_options(FLAGS.family)
        tokenizer = zoo.Tokenizer.train(text, vocabulary_size=300, **options)
        size = FLAGS.vocabulary_size + objective.add_tokens(tokenizer, FLAGS.sequence_length)
    with tempfile.TemporaryDirectory() as directory:
        options = {"batch_size": 1, "validation_share": 0, "cache": f"{directory}/tokens", "progress": False}
        data = zoo.data.pretraining(zoo.data.texts(text), tokenizer, objective, FLAGS.sequence_length, **options)
        batch = data.batch(0)
    if size:
        ids = {name: getattr(tokenizer, name) for name in ("pad_id", "bos_id", "eos_id")}
        tokenizer = types.SimpleNamespace(vocabulary_size=size, **ids)
    return tokenizer, data.objective, batch


def plan(place, config, tokenizer, objective, batch):
    """One plan, in numbers."""
    from zoo import planning, training
    from zoo.planning import report

    start, (x, y, _) = time.perf_counter(), batch
    mesh = zoo.sharding.make(FLAGS.mesh, FLAGS.shard, place.devices)
    with zoo.sharding.scope(mesh):
        common.check_training_flags()
        if FLAGS.task == "train":
            model = planning.abstract(lambda: compiled_model(config, tokenizer, objective))
            traced = planning.train_program(model, batch, FLAGS.batch_size, place.platform)
            tokens = FLAGS.batch_size * sum(x[name].size for name in ("token_ids", "decoder_token_ids") if name in x)
            needed = FLAGS.batch_size * training.step_flops(model, x, y) if pretrain.is_language_model(model) else None
        else:
            model = planning.abstract(lambda: pretrain.make_model(config, tokenizer, objective, load_weights=False))
            memory = FLAGS.sequence_length if config.architecture == "encoder_decoder" else 0
            traced = planning.decode_program(model, FLAGS.batch_size, FLAGS.sequence_length, memory, place.platform)
            tokens, needed = FLAGS.batch_size, None
        program = planning.compiled(traced, place, mesh.num_devices, FLAGS.thorough)
    needed = planning.flops(traced.jaxpr) if needed is None else needed
    facts = {name: FLAGS[name].value for name in ("task", "family", "preset", "batch_size", "sequence_length", "dtype",
                                                  "remat", "scan_layers", "accumulate", "optimizer")}  # fmt: skip
    facts |= {"objective": FLAGS.objective, "parameters": model.backbone.num_parameters}
    found = report.plan(program, place, mesh, tokens, needed, **facts)
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return found | {"planning_seconds": time.perf_counter() - start, "planning_host_bytes": host}


def compiled_model(config, tokenizer, objective):
    """The model as pretrain.py compiles it."""
    model = pretrain.make_model(config, tokenizer, objective, load_weights=False)
    pretrain.compile_model(model, pretrain.make_optimizer(config))
    return model


if __name__ == "__main__":
    common.run(main)
