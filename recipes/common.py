"""What the recipes share: flags, the choice of the backend before Keras is imported, and errors in one sentence."""

import contextlib
import importlib.util
import os
import signal
import sys
import traceback
from pathlib import Path

from absl import app, flags, logging

import zoo

FLAGS = flags.FLAGS
BACKENDS = ("jax", "torch", "tensorflow")
LAUNCHERS = ("SLURM_STEP_NODELIST", "OMPI_COMM_WORLD_SIZE", "WORLD_SIZE", "TF_CONFIG", "TPU_WORKER_HOSTNAMES")
SCHEDULES = ("cosine", "linear", "inverse_sqrt", "wsd", "constant")
_ROBERTA = {"kind": "bpe", "template": "roberta", "special_tokens": {
    "bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}}  # fmt: skip
_TOKENIZERS = {"bert": {"kind": "wordpiece"}, "t5": {"kind": "unigram"}, "roberta": _ROBERTA, "bart": _ROBERTA}
_several = False  # whether `join` found other processes
_HERE, _ZOO = str(Path(__file__).parent), str(Path(zoo.__file__).parent)


def define_flags():
    """Flags of every recipe."""
    flags.DEFINE_enum("backend", None, BACKENDS, "Keras backend. Default: KERAS_BACKEND, else the first installed.")
    flags.DEFINE_string("preset", None, "Model to start from: a name, a directory, or hf://owner/repo.")
    flags.DEFINE_string("dtype", "float32", "Keras dtype policy: float32 or mixed_bfloat16.")
    flags.DEFINE_integer("seed", 0, "Seed of everything that is drawn.")
    flags.DEFINE_string("mesh", None, "Devices, such as data:4,model:2; see docs/distributed.md. Default: one.")
    flags.DEFINE_enum("shard", None, ["none", "fsdp"], "fsdp splits weights and slots over data too.")
    flags.DEFINE_string("coordinator", None, "host:port of the first of several processes. Default: the launcher's.")
    flags.DEFINE_integer("num_processes", None, "How many processes there are. Default: the launcher's.")
    flags.DEFINE_integer("process_id", None, "Which of them this is, from 0. Default: the launcher's.")


def define_training_flags():
    """Flags of every recipe that trains."""
    flags.DEFINE_string(
        "data", "pydocs", "Text: 'pydocs', a file, a directory or a glob; or a store that prepare.py made."
    )
    flags.DEFINE_enum("split", None, ["line", "blank"], "How a text file falls into documents. Default: it is one.")
    flags.DEFINE_string("field", "text", "Key or column of the text in JSON lines, CSV, TSV and Parquet.")
    flags.DEFINE_float("validation_share", None, "Share of the documents held out. Default: the store's, or 0.05.")
    flags.DEFINE_string("output", None, "Directory of the run. Default: runs/<family>-<time>.")
    flags.DEFINE_bool("resume", False, "Continue from the newest whole checkpoint in --output, if it has one.")
    flags.DEFINE_integer("sequence_length", 128, "Tokens in a row.", lower_bound=2)
    flags.DEFINE_integer("batch_size", 8, "Rows in a batch.", lower_bound=1)
    flags.DEFINE_integer("accumulate", 1, "Slices that a batch's rows pass in, for want of memory.", lower_bound=1)
    flags.DEFINE_bool("remat", False, "Recompute activations in the backward pass, for want of memory.")
    flags.DEFINE_bool("scan_layers", False, "Compile one block for all, run in a loop (JAX): for many layers.")
    flags.DEFINE_integer("steps", 1200, "Updates.", lower_bound=1)
    flags.DEFINE_float("learning_rate", None, "Highest learning rate. Default: one that suits the model.")
    flags.DEFINE_integer("warmup_steps", None, "Updates of linear warmup. Default: --steps / 20.", lower_bound=0)
    flags.DEFINE_enum("schedule", "cosine", SCHEDULES, "The learning rate after the warmup.")
    flags.DEFINE_float("min_learning_rate", 0.0, "Where the schedule ends.")
    flags.DEFINE_enum("optimizer", "adamw", ["adamw", "adafactor"], "Optimizer.")
    flags.DEFINE_float("beta_1", 0.9, "AdamW's momentum.")
    flags.DEFINE_float("beta_2", 0.98, "AdamW's decay of squared gradients.")
    flags.DEFINE_float("epsilon", 1e-8, "AdamW's epsilon.")
    flags.DEFINE_float("weight_decay", 0.1, "Decay of all weights but biases and norms.")
    flags.DEFINE_multi_string("no_decay", [], "Pattern of weights without decay. Default: biases and norms.")
    flags.DEFINE_multi_string("freeze", [], "Pattern of weights that are not trained, such as 'block_[0-5]/'.")
    flags.DEFINE_float("layer_decay", 1.0, "Learning rate of a block over that of the block above it.")
    flags.DEFINE_float("clip_norm", 1.0, "Largest norm of all gradients together; 0 does not clip.")
    flags.DEFINE_float("dropout", None, "Dropout. Default: the preset's, or 0 for a new model.")
    flags.DEFINE_integer("log_every", 10, "Steps between rows of metrics.csv.", lower_bound=1)
    flags.DEFINE_integer("validate_every", 100, "Steps between validations.", lower_bound=1)
    flags.DEFINE_integer("validation_batches", 20, "Held-out batches in them; the last has all.", lower_bound=1)
    flags.DEFINE_integer("patience", None, "Validations without a lower loss before the run ends.", lower_bound=1)
    flags.DEFINE_bool("tensorboard", False, "Write event files for TensorBoard to --output/tensorboard.")
    flags.DEFINE_integer("keep", 2, "Newest checkpoints to keep, beside the best.", lower_bound=1)
    flags.DEFINE_integer("checkpoint_every", 500, "Steps between checkpoints.", lower_bound=1)
    flags.DEFINE_float("checkpoint_minutes", 15.0, "Minutes between checkpoints, where these are sooner.")


def run(main):
    """Runs a recipe: parses the flags, and says what is wrong with the input in one sentence."""

    def guarded(arguments):
        try:
            logging.set_verbosity(logging.WARNING)
            if len(arguments) > 1:
                raise ValueError(f"{arguments[1]!r} is no flag: flags are written --name=value.")
            main()
        except KeyboardInterrupt as stop:
            resumable = "output" in FLAGS and FLAGS.output
            print("\nstopped" + f"; go on with --output={FLAGS.output} --resume" * bool(resumable), file=sys.stderr)
            leave(128 + getattr(stop, "number", signal.SIGINT))
        except (ValueError, OSError, ImportError, FloatingPointError) as error:
            if not _is_meant_for_users(error):
                leave(1, error)
            leave(f"error: {' '.join(str(error).split())}")
        except Exception as error:
            leave(1, error)

    app.run(guarded)


def leave(code, error=None):
    """Ends the program with a code or a text; one of several processes at once, for all would wait for each other.

    Args:
        code: as for `sys.exit`.
        error: what is raised on, as it tells more.
    """
    if not several():
        if error is not None:
            raise error
        sys.exit(code)
    if error is not None:
        traceback.print_exception(error)
    elif isinstance(code, str):
        print(code, file=sys.stderr)
    print(f"process {zoo.processes.index()} of {zoo.processes.count()} stops here, and so will the others; a run goes "
          "on from its newest checkpoint with --resume", file=sys.stderr, flush=True)  # fmt: skip
    os._exit(code if isinstance(code, int) else 1)


def _is_meant_for_users(error):
    """Whether our own code raised it, and not something that it called."""
    file = traceback.extract_tb(error.__traceback__)[-1].filename
    return isinstance(error, OSError) or file.startswith((_HERE, _ZOO))


def choose_backend():
    """Sets KERAS_BACKEND from --backend, or to the first backend that is installed, and the mesh of --mesh."""
    assert "keras" not in sys.modules, "the backend must be chosen before keras is imported"
    installed = [name for name in BACKENDS if importlib.util.find_spec(name)]
    name = FLAGS.backend or os.environ.get("KERAS_BACKEND") or (installed or BACKENDS)[0]
    if name not in BACKENDS:
        raise ValueError(f"KERAS_BACKEND={name!r} is none of {', '.join(BACKENDS)}: set --backend.")
    if name not in installed:
        raise ImportError(f"The backend {name} is not installed: pip install keras-zoo[{name}].")
    FLAGS.backend = os.environ["KERAS_BACKEND"] = name
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if "mesh" not in FLAGS:  # a recipe that runs no model
        return
    if FLAGS.shard and not FLAGS.mesh:
        raise ValueError(f"--shard={FLAGS.shard} needs --mesh, such as --mesh=data:8.")
    if FLAGS.mesh or FLAGS.coordinator or any(name in os.environ for name in LAUNCHERS):
        join()
    if FLAGS.mesh:
        zoo.sharding.use(zoo.sharding.make(FLAGS.mesh, FLAGS.shard or "none"))


def join():
    """Joins the other processes of the job, if there are any; the first alone speaks."""
    global _several
    zoo.processes.start(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
    _several = zoo.processes.count() > 1
    if not _several:
        return
    if not FLAGS.mesh:
        raise ValueError(f"{zoo.processes.count()} processes need --mesh, such as --mesh=data:8 for 8 devices in all.")
    if not zoo.processes.is_first():
        sys.stdout = open(os.devnull, "w")


def several():
    """Whether this is one of several processes."""
    return _several


def is_first():
    """Whether this process writes files."""
    return not _several or zoo.processes.is_first()


def data_slice():
    """(index, count): which of how many slices of each batch this process loads."""
    mesh = FLAGS.mesh and zoo.sharding.current()
    return mesh.data_slice if mesh else (0, 1)


def in_turn(name):
    """A context whose body the first process runs before the others, who find its files."""
    return zoo.processes.first_then_others(name) if _several else contextlib.nullcontext()


def check_training_flags():
    """Refuses what no recipe that trains can do."""
    if FLAGS.dtype not in ("float32", "mixed_bfloat16"):
        raise ValueError(
            f"--dtype={FLAGS.dtype} does not train, for weights in half precision round most updates to nothing: "
            "use float32, or mixed_bfloat16, which computes in bfloat16 and keeps the weights in float32."
        )
    if FLAGS.scan_layers and FLAGS.backend != "jax":
        raise ValueError(f"--scan_layers needs --backend=jax, not {FLAGS.backend}.")
    if FLAGS.batch_size % FLAGS.accumulate:
        raise ValueError(f"--accumulate={FLAGS.accumulate} must divide --batch_size={FLAGS.batch_size}.")
    parts = zoo.sharding.current().num_model_replicas if FLAGS.mesh else 1
    if FLAGS.batch_size // FLAGS.accumulate % parts:
        rows, wanted = FLAGS.batch_size // FLAGS.accumulate, parts * FLAGS.accumulate
        raise ValueError(
            f"--mesh={FLAGS.mesh} splits batches in {parts}, which does not divide {rows} rows: "
            f"use --batch_size={-(-FLAGS.batch_size // wanted) * wanted}."
        )
    if FLAGS.validation_share is not None and not 0 < FLAGS.validation_share < 1:
        raise ValueError(f"--validation_share={FLAGS.validation_share} must lie between 0 and 1.")


# What may differ when a run is resumed; anything else would make it another run.
_FREE = ("backend", "steps", "output", "log_every", "validate_every", "validation_batches", "checkpoint_every",
         "checkpoint_minutes", "keep", "patience", "tensorboard", "mesh", "shard", "remat", "scan_layers")  # fmt: skip
_UNKEPT = ("resume", "coordinator", "num_processes", "process_id")  # of one start alone


def open_run(name):
    """The run's directory: a new one, or with --resume one whose run.cfg then sets the flags that are not given."""
    if FLAGS.output is None:
        if FLAGS.resume:
            raise ValueError("--resume needs --output, the directory of the run to continue.")
        if several():
            raise ValueError("Several processes need --output, a directory that all of them see.")
        FLAGS.output = f"runs/{name}"
    output = Path(FLAGS.output)
    with in_turn("run"):
        if is_first():
            _check_run(output)
    return output


def _check_run(output):
    held = [n for n in ("run.cfg", "checkpoints", "preset", "metrics.csv") if (output / n).exists()]
    if held and not FLAGS.resume:
        raise ValueError(f"{output} already holds a run ({', '.join(held)}): add --resume, or choose another --output.")
    output.mkdir(parents=True, exist_ok=True)


def recall_flags():
    """With --resume, flags that are not given take the value they had, from the run.cfg in --output."""
    path = Path(FLAGS.output or "") / "run.cfg"
    if not (FLAGS.resume and FLAGS.output and path.is_file()):
        return
    held = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, _, value = line.removeprefix("--").partition("=")
        if line.startswith("--") and name != "output":
            held.setdefault(name, []).append(value)
    for name, values in held.items():
        flag = FLAGS[name]
        before, given = flag.value, flag.present
        flag.present = 0  # else what is parsed would be added to a list of values
        flag.parse(values if isinstance(flag, flags.MultiFlag) else values[-1])
        if given and flag.value != before and name not in _FREE:
            text = ", ".join(values)
            raise ValueError(f"{path} has --{name}={text}, not {before}: a resumed run keeps it. Leave --{name} out.")
        if given:
            flag.value = before


def write_flags(path):
    """Writes the resolved flags to a file that --flagfile reads."""
    if not is_first():
        return
    modules = FLAGS.flags_by_module_dict()
    ours = [modules.get(module, ()) for module in (__name__, sys.argv[0])]  # libraries define flags too
    values = {flag.name: flag.value for found in ours for flag in found if flag.name not in _UNKEPT}
    one = lambda value: [",".join(value) if isinstance(value, list) else value]  # noqa: E731
    repeated = {name for name in values if isinstance(FLAGS[name], flags.MultiFlag)}
    values = {name: value if name in repeated else one(value) for name, value in values.items()}
    lines = [f"--{name}={value}" for name in sorted(values) for value in values[name] if value is not None]
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text("\n".join([f"# {Path(sys.argv[0]).name} --flagfile={path}", *lines, ""]), encoding="utf-8")
    os.replace(temporary, path)


def make_optimizer(rate):
    """AdamW or Adafactor with the schedule of the flags; `rate` is the learning rate where --learning_rate is not."""
    import keras

    from zoo.training import WarmupSchedule

    if FLAGS.warmup_steps is None:
        FLAGS.warmup_steps = FLAGS.steps // 20
    FLAGS.learning_rate = rate if FLAGS.learning_rate is None else FLAGS.learning_rate
    rate = WarmupSchedule(FLAGS.learning_rate, FLAGS.steps, FLAGS.warmup_steps, FLAGS.schedule, FLAGS.min_learning_rate)
    options = {"weight_decay": FLAGS.weight_decay, "global_clipnorm": FLAGS.clip_norm or None, "name": FLAGS.optimizer}
    if FLAGS.optimizer == "adafactor":
        return keras.optimizers.Adafactor(rate, relative_step=False, **options)
    betas = {"beta_1": FLAGS.beta_1, "beta_2": FLAGS.beta_2, "epsilon": FLAGS.epsilon}
    return keras.optimizers.AdamW(rate, **betas, **options)


def training_fields(family):
    """What the flags of training say of a `Config`; --dropout stands for all the dropout that the family has."""
    fields = {"remat": FLAGS.remat, "scan_layers": FLAGS.scan_layers}
    if FLAGS.dropout is None:
        return fields
    rates = family.switches({"dropout": FLAGS.dropout})
    rates = {name: rate for name, rate in rates.items() if name.endswith("_dropout")}
    return {**fields, **rates, "dropout": FLAGS.dropout}


def tokenizer_options(family):
    """The arguments of `Tokenizer.train` for a new model of a family, where nothing else is asked for."""
    return _TOKENIZERS.get(family, {"kind": "bpe"})
