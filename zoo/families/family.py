"""What a family of language models is to us: data that say how its `config.json` and its tensors are written.

Every key of a `config.json` is declared once and used in both directions; what cannot be said in one direction or the
other is an error, never a guess. No arithmetic and no files here.
"""

import dataclasses
import warnings
from collections.abc import Callable

from zoo.config import Config

_ACTIVATIONS = {
    "gelu": "gelu", "gelu_python": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh", "relu": "relu", "silu": "silu", "swish": "silu",
}  # fmt: skip
_TRAINING = ("dropout", "final_dropout", "attention_dropout", "activation_dropout", "initializer",
             "initializer_range", "remat", "scan_layers")  # fmt: skip
_NULLABLE = {field.name for field in dataclasses.fields(Config) if field.default is None}
_RATES = {field.name for field in dataclasses.fields(Config) if isinstance(field.default, float)}
_ASIDE = (  # buffers that are computed, and heads of tasks that the model at hand is not
    r"position_ids$", r"rotary_emb\.inv_freq$", r"^(cls\.)?seq_relationship\.", r"^(score|qa_outputs)\.",
    r"^(pre_|sop_)?classifier\.", r"^classification_head\.", r"^discriminator_predictions\.", r"^sequence_summary\.",
)  # fmt: skip
_TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")


def _nothing(_):
    return {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """One family: its names, its switches, and how its files map to ours.

    Args:
        name: the family's name, as recipes give it.
        backbone: name of the public class.
        model_types: the `model_type` values that it reads; the first is written.
        architectures: task -> class in `transformers`; "Backbone" is the model without a head.
        synonyms: further classes -> task.
        keys: key of config.json -> field of `Config`, or several fields that it sets alike.
        defaults: `Config` switches of the family.
        derived: fields -> switches that follow from others, such as a scale from a width.
        fixed: key -> the values with which we compute the same; the first is assumed where it is absent.
        absent: what `transformers` assumes for keys that a config.json leaves out, where `defaults` do not say it.
        extra_read, extra_write: what is no plain pair: config.json -> fields, `Config` -> keys.
        table: `Config` -> our name -> (their names, move).
        heads: `Config` -> task -> `HeadSpec`, the downstream heads that `transformers` has.
        prefix: what their names begin with when a model has a head.
        ignore: patterns of their tensors that hold nothing of ours, beside those that no family needs.
        optional: variables that stay at their initial zeros where a checkpoint lacks them.
        presets: short name -> (repository, number of parameters, licence as the Hub names it).
    """

    name: str
    backbone: str
    model_types: tuple
    architectures: dict
    keys: dict
    table: Callable
    heads: Callable = _nothing
    synonyms: dict = dataclasses.field(default_factory=dict)
    defaults: dict = dataclasses.field(default_factory=dict)
    derived: Callable = _nothing
    fixed: dict = dataclasses.field(default_factory=dict)
    absent: dict = dataclasses.field(default_factory=dict)
    extra_read: Callable = _nothing
    extra_write: Callable = _nothing
    prefix: str = ""
    ignore: tuple = ()
    optional: tuple = ()
    presets: dict = dataclasses.field(default_factory=dict)

    @property
    def ignored(self):
        """Patterns of all their tensors that a model may leave aside."""
        return (*_ASIDE, *self.ignore)

    def rows(self, config, task="Backbone", made_for=None):
        """The table of a model for a task; see `HeadSpec.rows`.

        Args:
            config: the model's `Config`.
            task: a key of `architectures`.
            made_for: the task of the checkpoint; the last layer of another downstream task means something else, so
                it has no row, whatever its name and shape.
        """
        heads, table = self.heads(config), self.table(config)
        if task not in heads:
            return table
        rows = heads[task].rows(table, self.prefix, config)
        foreign = made_for in heads and made_for != task
        return {ours: row for ours, row in rows.items() if not (foreign and ours.startswith("head/out/"))}

    def body(self, config, task):
        """The `Config` of the backbone of a task's class, which may be an encoder-decoder's encoder alone."""
        spec = self.heads(config).get(task)
        if spec is None or not spec.encoder_only:
            return config
        return dataclasses.replace(config, architecture="encoder", num_decoder_layers=None)

    def aliases(self, config):
        """What the names of some classes begin with in place of `prefix`."""
        return tuple({spec.prefix for spec in self.heads(config).values()} - {None, self.prefix})

    def switches(self, fields):
        """The `Config` fields that the family sets where `fields` do not."""
        known = {**self.defaults, **fields}
        return {**self.defaults, **self.derived(known)}

    def read(self, hf):
        """Fields of `Config` from the contents of a config.json.

        Raises:
            ValueError: a value that changes what is computed and that we do not know; it names the key.
        """
        hf = {**self.absent, **hf}
        for key, allowed in self.fixed.items():
            if hf.get(key, allowed[0]) not in allowed:
                raise ValueError(f"{key}={hf[key]!r} is not supported for {self.name}, only {allowed}.")
        fields, source = {}, {}
        for key, names in self._pairs():
            if key not in hf or (hf[key] is None and names[0] not in _NULLABLE):
                continue
            value = _decode(key, names[0], hf[key])
            for name in names:
                if name in fields and fields[name] != value:
                    self._disagree(name, source[name], fields[name], key, value)
                    continue
                fields[name], source[name] = value, key
        fields |= self.extra_read(hf)
        fields |= {name: value for name, value in hf.get("zoo", {}).items() if name in _TRAINING}
        return {**self.switches(fields), **fields}

    def _pairs(self):
        tokens = {key: key for key in _TOKENS if key != "decoder_start_token_id" or "Seq2SeqLM" in self.architectures}
        return [(key, (n,) if isinstance(n, str) else n) for key, n in {**tokens, **self.keys}.items()]

    def _disagree(self, field, key, value, other_key, other):
        message = f"{key}={value!r} and {other_key}={other!r} both set {field}"
        if field not in _TRAINING:
            raise ValueError(f"{message}: only equal values are supported for {self.name}.")
        warnings.warn(f"{message}; {value!r} is used.", stacklevel=3)

    def write(self, config, task="Backbone", dtype="float32"):
        """The contents of a config.json that `transformers` and `read` understand.

        Args:
            config: a `Config`.
            task: a key of `architectures`.
            dtype: name of the dtype that the weights are stored in.

        Raises:
            ValueError: switches for which this family's config.json has no words, or a task that it lacks.
        """
        if task not in self.architectures:
            raise ValueError(f"{self.name} has no {task} in transformers, only {', '.join(self.architectures)}.")
        spec = self.heads(config).get(task)
        if spec is not None and spec.encoder_only:  # its config.json is that of the whole
            config = dataclasses.replace(config, architecture=self.defaults["architecture"])
        hf = {"model_type": self.model_types[0], "architectures": [self.architectures[task]], "dtype": dtype}
        hf |= {key: _encode(names[0], config) for key, names in self._pairs()}
        hf |= self.extra_write(config)
        ours, back = _resolved(config), _resolved(Config.from_dict(self.read(hf)))
        unsaid = {name for name in _TOKENS if ours[name] is None}
        lost = {name: value for name, value in ours.items() if value != back[name] and name not in unsaid}
        if wrong := [f"{name}={lost[name]!r} (but {back[name]!r})" for name in lost if name not in _TRAINING]:
            raise ValueError(f"A {self.name} config.json cannot say {', '.join(wrong)}.")
        return hf | ({"zoo": lost} if lost else {})

    def task_of(self, hf):
        """The task whose class a config.json names, or None."""
        classes = {name: task for task, name in reversed(self.architectures.items())} | self.synonyms
        return next((classes[name] for name in hf.get("architectures") or () if name in classes), None)


def _decode(key, field, value):
    if field == "activation":
        if value not in _ACTIVATIONS:
            raise ValueError(f"{key}={value!r} is not a known activation, only {', '.join(_ACTIVATIONS)}.")
        return _ACTIVATIONS[value]
    return tuple(value) if isinstance(value, list) else value


def _encode(field, config):
    value = _resolved(config)[field]
    if field == "activation":
        return next(name for name, ours in _ACTIVATIONS.items() if ours == value)
    if field in _RATES:
        return float(value)  # transformers refuses an integer in some families
    return list(value) if isinstance(value, tuple) else value


def _resolved(config):
    """All fields, with what None stands for filled in."""
    return {
        **{field.name: getattr(config, field.name) for field in dataclasses.fields(config)},
        "head_dim": config.resolved_head_dim,
        "num_key_value_heads": config.resolved_key_value_heads,
        "embedding_dim": config.resolved_embedding_dim,
        "num_decoder_layers": config.resolved_decoder_layers,
        "num_distinct_blocks": config.num_distinct_blocks or config.num_layers,
        "attention_scale": config.attention_scale or config.resolved_head_dim**-0.5,
        "window_pattern": tuple(config.windowed(i) for i in range(config.num_layers)),
        "rotary_pattern": tuple(config.rotated(i) for i in range(config.num_layers)),
    }
