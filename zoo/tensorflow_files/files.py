"""The tensors of `tf_model.h5`, and of the checkpoints in which BERT, ALBERT, ELECTRA and T5 were published.

They get the names and layouts of `transformers`' PyTorch classes, which are all that the tables of families know.
"""

import math
import re
from pathlib import Path

import numpy as np

from zoo.checkpoint import Checkpoint

_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}

# Names in a checkpoint become names of PyTorch's by these, in turn; the first name that a dialect knows says which.
_LAST = [
    (r"(^|/)(kernel|gamma|scale|embedding|embeddings|weights)$", r"\1weight"), (r"(^|/)beta$", r"\1bias"), ("/", "."),
]  # fmt: skip
_BERT = [
    (r"/layer_(\d+)/", r"/layer/\1/"), (r"_embeddings$", "_embeddings/weight"),
    (r"^cls/squad/output_", "qa_outputs/"), (r"^output_(weights|bias)$", r"classifier/\1"),
    (r"(predictions|seq_relationship)/output_", r"\1/"),
]  # fmt: skip
_DIALECTS = {
    r"^shared/embedding$": [
        (r"/block_0*(\d+)/layer_0*(\d+)/", r"/block/\1/layer/\2/"),
        (r"^(\w+)/(rms|layer)_norm/", r"\1/final_layer_norm/"), ("/rms_norm/", "/layer_norm/"),
        ("^decoder/logits/", "lm_head/"), (r"/(q|k|v|o|relative_attention_bias)$", r"/\1/weight"),
    ],
    r"^bert/encoder/transformer/group_0/": [
        *_BERT, ("^bert/", "albert/"), ("^cls/", ""), ("^predictions/transform/", "predictions/"),
        ("^seq_relationship/", "sop_classifier/classifier/"), ("/pooler/dense/", "/pooler/"),
        (r"/transformer/group_(\d+)/inner_group_(\d+)/", r"/albert_layer_groups/\1/albert_layers/\2/"),
        ("/LayerNorm_1/", "/full_layer_layer_norm/"), (r"(/albert_layers/\d+)/LayerNorm/", r"\1/attention/LayerNorm/"),
        ("/attention_1/(self|output)/", "/attention/"), ("/ffn_1/intermediate/output/dense/", "/ffn_output/"),
        ("/ffn_1/intermediate/dense/", "/ffn/"),
    ],
    "^electra/": [*_BERT, ("^discriminator_predictions/dense_1/", "discriminator_predictions/dense_prediction/")],
    "^bert/": _BERT,
}  # fmt: skip
_TURNED = r"(^|/)kernel$|/block_\d+/.*/(q|k|v|o|relative_attention_bias)$"  # the others are as PyTorch has them
_ASIDE = (  # of optimizers, and ELECTRA's generator, which is another model than the discriminator beside it
    r"(^|/)(global_step|beta[12]_power|good_steps|bad_steps|loss_scale|temperature)$|_slot_\w+$"
    r"|/(adam_[mv]|lamb_[mv]|Adam(_\d+)?|Adafactor\w*|Momentum|vr|vc)$|^generator(_predictions)?/"
)


class TensorFlowFiles(Checkpoint):
    """The tensors of a directory that TensorFlow wrote, under the names that `transformers` has in PyTorch.

    Looks for `tf_model.h5`, then its sharded index, then a checkpoint, whole in `*.index` and `*.data-*`; where there
    are several of these, the file `checkpoint` says which.

    Args:
        directory: a local directory.

    Raises:
        ValueError: no such weights, a damaged file, or names of a model that is not known here.
        ImportError: a checkpoint, and no TensorFlow to read it.

    Example:

    >>> import tempfile, h5py, numpy as np
    >>> from zoo import tensorflow_files
    >>> directory = tempfile.mkdtemp()
    >>> with h5py.File(f"{directory}/tf_model.h5", "w") as file:
    ...     file["bert/tf_bert_model/bert/pooler/dense/kernel:0"] = np.ones((2, 3), "float32")
    >>> tensorflow_files.TensorFlowFiles(directory).shape("bert.pooler.dense.weight")
    (3, 2)
    """

    names = ("tf_model.h5",)

    @classmethod
    def is_in(cls, directory):
        """Whether a directory holds such weights."""
        return super().is_in(directory) or any(Path(directory).glob("*.index"))

    def _files(self):
        return super()._files() if super().is_in(self.directory) else [index_of(self.directory)]

    def _open(self, path):
        return _open_h5(path) if path.suffix == ".h5" else _open_checkpoint(path)


def _add(tensors, path, name, stored, dtype, read, turn):
    """Lists a tensor; `turn` makes of it what PyTorch has, as a view."""
    shape, dtype = turn(np.broadcast_to(np.int8(0), stored or ())).shape, _DTYPES.get(dtype, dtype)
    if tensors.setdefault(name, (shape, dtype))[:2] != (shape, dtype):
        raise ValueError(f"{path} stores {name} twice, in different shapes or types.")
    tensors[name] = shape, dtype, lambda: turn(read())


def _open_h5(path):
    """The tensors of a file of Keras 2: the group of a layer, and below it the whole name of each weight.

    A weight that layers share is there again in each. Shards have the names alone, without the model's.
    """
    import h5py

    held, tensors, whole = {}, {}, path.name == TensorFlowFiles.names[0]

    def note(place, found):
        if isinstance(found, h5py.Dataset):
            held[str(place)] = found.shape, found.dtype.name, found.is_virtual or bool(found.external)

    def read(place):
        try:
            with h5py.File(path) as file:
                return file[place][()]
        except Exception as error:
            raise ValueError(f"{path}: {place} cannot be read: {error}.") from None

    try:
        with h5py.File(path) as file:
            file.visititems(note)
    except Exception as error:  # h5py raises half a dozen kinds for a damaged file
        raise ValueError(f"{path} is not a whole HDF5 file: {error}.") from None
    for place, (shape, dtype, elsewhere) in held.items():
        if elsewhere:
            raise ValueError(f"{path} keeps {place} in another file, which is not read.")
        name = place.split("/", 1)[-1] if whole else place
        if "/" in name and (whole or "model." in name):  # shards keep this level of such names alone
            name = name.split("/", 1)[1]
        name = re.sub(r"[^/]*___", "", name.removesuffix(":0")).replace("_._", "/")  # as transformers 4 marked them
        last, turn = name.split("/")[-1], np.asarray
        if last == "kernel":
            turn = np.transpose
        elif last == "bias" and shape and len(shape) == 2 and shape[0] == 1:  # GPT-2's
            turn = lambda x: x[0]  # noqa: E731
        _add(tensors, path, _renamed(name, _LAST), shape, dtype, lambda place=place: read(place), turn)
    return tensors


def _renamed(name, rules):
    for pattern, new in rules:
        name = re.sub(pattern, new, name)
    return name


def index_of(directory):
    """The index of the directory's checkpoint."""
    found = sorted(directory.glob("*.index"))
    if len(found) > 1 and (directory / "checkpoint").is_file():
        said = re.search(r'^model_checkpoint_path: *"(?:.*[/\\])?(.+)"', (directory / "checkpoint").read_text(), re.M)
        found = [path for path in found if said and path.name == f"{said[1]}.index"] or found
    if len(found) != 1:
        names = [path.name for path in found] or "no *.index of a checkpoint"
        raise ValueError(f"{directory} has {names}: there must be one, or a file `checkpoint` that names it.")
    return found[0]


def stored(index):
    """What a checkpoint holds beside the optimizer's: name -> (shape, dtype), and a function that reads one."""
    try:
        import tensorflow as tf
    except ImportError:
        raise ImportError(
            f"{index} is a checkpoint that only TensorFlow reads: pip install keras-zoo[tensorflow], or convert it to "
            f"safetensors."
        ) from None
    prefix = str(index).removesuffix(".index")
    data = list(index.parent.glob(f"{_escaped(index.name.removesuffix('.index'))}.data-?????-of-?????"))
    if not data or len(data) != int(data[0].name[-5:]):
        raise ValueError(f"{index} needs all of its {prefix}.data-*, {len(data)} are there: the copy is incomplete.")
    try:
        reader = tf.train.load_checkpoint(prefix)
        shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
        size = sum(math.prod(shapes[name]) * kind.size for name, kind in dtypes.items())
    except Exception as error:  # TensorFlow raises half a dozen kinds for a damaged file
        raise ValueError(f"{index} is not a whole checkpoint: {str(error).splitlines()[0]}") from None
    if size > (held := sum(path.stat().st_size for path in data)):
        raise ValueError(f"{prefix}.data-* are cut short: {held} bytes for tensors of {size}.")

    def read(name):
        try:
            return reader.get_tensor(name)
        except Exception as error:
            raise ValueError(f"{prefix}.data-*: {name} cannot be read: {str(error).splitlines()[0]}") from None

    return {n: (tuple(shapes[n]), dtypes[n].name) for n in sorted(shapes) if not re.search(_ASIDE, n)}, read


def _escaped(name):
    return re.sub(r"([*?[])", r"[\1]", name)


def _open_checkpoint(path):
    held, read = stored(path)
    known = (rules for pattern, rules in _DIALECTS.items() if any(re.search(pattern, name) for name in held))
    if (rules := next(known, None)) is None:
        raise ValueError(f"{path} holds neither BERT, ALBERT, ELECTRA nor T5 under the names that they were published "
                         f"with: {', '.join([*held][:6])}, …")  # fmt: skip
    tensors = {}
    for name, (shape, dtype) in held.items():
        turn = np.transpose if re.search(_TURNED, name) else np.asarray
        ours = _renamed(name, rules + _LAST)
        _add(tensors, path, ours, shape, dtype, lambda name=name: read(name), turn)
    return tensors
