"""The English prose that every installation carries: Python's help topics, the docstrings of its library, numpy and
keras.

Files are parsed, in sorted order; no module is imported and none of their code runs. A text counts once, and not at all
under 8 words. Real text on every machine, without a download; it knows nothing of tokens.
"""

import ast
import functools
import importlib.util
import inspect
import platform
import sysconfig
import warnings
from importlib import metadata
from pathlib import Path

NOT_PROSE = {"test", "tests", "idle_test", "site-packages", "dist-packages"}


def pydocs():
    """The source of this prose, as `"pydocs"` names it."""
    return PyDocs()


class PyDocs:
    """The source `pydocs`: about 11,000 documents, 5 MB, read in 2 seconds and then kept in memory."""

    @property
    def fingerprint(self):
        versions = (platform.python_version(), metadata.version("numpy"), metadata.version("keras"))
        return f"pydocs-1 of python {versions[0]}, numpy {versions[1]}, keras {versions[2]}"

    def __iter__(self):
        return (text for _, _, text in docstrings())


@functools.cache
def docstrings():
    """(module, name within it, cleaned text) of every documented object, as a tuple."""
    standard = Path(sysconfig.get_paths()["stdlib"])
    topics = standard / "pydoc_data" / "topics.py"
    found = list(_topics(topics)) if topics.exists() else []
    for package in (standard, *(Path(importlib.util.find_spec(name).origin).parent for name in ("numpy", "keras"))):
        prefix = "" if package == standard else f"{package.name}."
        for path in sorted(package.rglob("*.py")):
            parts = path.relative_to(package).with_suffix("").parts
            if not NOT_PROSE & set(parts) and not parts[-1].endswith("_test"):
                module = (prefix + ".".join(part for part in parts if part != "__init__")).strip(".")
                found += ((module, name, text) for name, text in _docstrings_of(path))
    seen = set()
    return tuple(
        (module, name, text)
        for module, name, text in found
        if len(text.split()) >= 8 and not (text in seen or seen.add(text))
    )


def _topics(path):
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for topic, text in sorted(ast.literal_eval(node.value).items()):
                yield "pydoc_data.topics", topic, inspect.cleandoc(text)


def _docstrings_of(path):
    tree = _parse(path)
    todo = [("", tree)] if tree else []
    while todo:
        name, node = todo.pop()
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)  # cleaned as inspect.cleandoc does
            if text:
                yield name, text.strip()
        if isinstance(node, (ast.Module, ast.ClassDef, ast.If, ast.Try)):
            inner = [(f"{name}.{getattr(one, 'name', '')}".strip("."), one) for one in node.body]
            todo += reversed(inner)


def _parse(path):
    content = path.read_bytes()
    if b'"""' not in content and b"'''" not in content:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's invalid escapes
        try:
            return ast.parse(content)
        except (SyntaxError, ValueError):
            return None
