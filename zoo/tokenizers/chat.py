"""Chat templates: messages to the text that a model was tuned on, by the Jinja template of a preset.

A template comes from a stranger, so it runs in Jinja's sandbox, which has no files, no imports and no attributes
beginning with an underscore. It knows nothing of what roles mean; the template does.
"""

import datetime
import functools
import json

# For a tokenizer without one: turns are lines of their own, and answers end with the end of text.
PLAIN = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
EXTRA = "Chat templates need jinja2: pip install keras-zoo[chat]."


def render(template, messages, tokens, add_generation_prompt=True, **variables):
    """The text of a conversation.

    Args:
        template: Jinja source; or what `tokenizer_config.json` may hold instead, a list of {"name", "template"}, of
            which the one called "default" is taken.
        messages: list of dictionaries with `role` and `content`.
        tokens: dictionary of what templates call `bos_token`, `eos_token`, ….
        add_generation_prompt: whether the text ends where the model's answer begins.
        variables: further variables of the template, such as `tools`.

    Raises:
        ValueError: no template, messages of another shape, or a template that refuses them or is broken.
        ImportError: jinja2 is not installed.
    """
    if isinstance(template, list):
        template = {each["name"]: each["template"] for each in template}.get("default")
    if not template:
        raise ValueError("The tokenizer has no chat template: its preset was not made for chat, so give plain text.")
    if not isinstance(messages, (list, tuple)) or not messages:
        raise ValueError(f"messages must be a list of at least one {{'role': …, 'content': …}}, got {messages!r}.")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str) or "content" not in message:
            raise ValueError(f"A message must be a dictionary with 'role' and 'content', got {message!r}.")
    try:
        import jinja2
    except ImportError:
        raise ImportError(EXTRA) from None
    try:
        return _compiled(template).render(messages=messages, add_generation_prompt=add_generation_prompt,
                                          **tokens, **{"tools": None, "documents": None, **variables})  # fmt: skip
    except (
        jinja2.TemplateError,
        ArithmeticError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(f"The chat template refuses these messages: {error}") from None


@functools.lru_cache(maxsize=16)
def _compiled(template):
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    extensions = [loopcontrols, _plain()]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    environment.filters["tojson"] = _json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment.from_string(template)


def _plain():
    """The tag {% generation %}, which marks the answers for training, as what is in it."""
    from jinja2 import nodes
    from jinja2.ext import Extension

    class Generation(Extension):
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)

    return Generation


def _json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    """JSON as it is; Jinja's own filter writes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message):
    from jinja2 import TemplateError

    raise TemplateError(message)
