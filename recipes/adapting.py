"""Adapters by words of a flag, such as lora:rank=16,alpha=32: put on a model, and written with what loads them.

It knows the functions of `zoo.adapters`, and no flags.
"""

import inspect

import zoo

METHODS = ("lora", "ia3", "bottleneck", "prompt", "bitfit")


def number(word):
    """A word as a number, if it is one."""
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            pass
    return word


def parsed(words):
    """The function of `zoo.adapters` and its arguments.

    Raises:
        ValueError: one that is not there, or arguments that it does not have.
    """
    method, _, rest = words.partition(":")
    if method not in METHODS:
        raise ValueError(f"--adapter={words}: {method!r} is none of {', '.join(METHODS)}.")
    known = [name for name in inspect.signature(getattr(zoo.adapters, method)).parameters if name != "model"]
    options = dict(word.partition("=")[::2] for word in rest.split(",") if word)
    if unknown := sorted(options.keys() - set(known)):
        raise ValueError(f"--adapter={words}: {method} has no {unknown[0]!r}, only {', '.join(known)}.")
    return method, {name: number(value) for name, value in options.items()}


def put(model, words):
    """Puts an adapter on a model."""
    method, options = parsed(words)
    getattr(zoo.adapters, method)(model, **options)


def save(model, words, preset, directory):
    """Writes the adapter of a model and merges it, where that is possible.

    Returns: what loads the model with an adapter that cannot be merged, or None.
    """
    method, _ = parsed(words)
    if method == "bitfit":  # whose weights are the model's
        return None
    zoo.adapters.save(model, directory, base=preset)
    if method in ("lora", "ia3"):
        zoo.adapters.merge(model)
        return None
    make = f"zoo.{type(model).__name__}"
    if hasattr(model, "labels"):  # the preset's head may be one of other labels, and the adapter has its own
        given = {name: getattr(model, name) for name in ("labels", "problem_type") if hasattr(model, name)}
        words = "".join(f", {name}={value!r}" for name, value in given.items())
        make += f"(zoo.Backbone.from_preset({preset!r}), zoo.Tokenizer.from_preset({preset!r}){words})"
    else:
        make += f".from_preset({preset!r})"
    return f"import zoo; model = {make}; zoo.adapters.load(model, {str(directory)!r})"
