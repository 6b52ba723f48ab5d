"""A process that has imported what recipes import, and runs each recipe in a fork of itself.

python tests/recipes/forks.py torch transformers    imports these, and then reads from its input

Starting Python, a backend and Keras takes longer than a small recipe runs. A fork has that, and its own arguments,
environment and streams; the recipe's own modules it imports itself, and Keras it does not see before it asks for it.
"""

import importlib.abc
import importlib.machinery
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

IMPORTED = ("keras", "matplotlib.pyplot", "sklearn.base", "zoo.training", "zoo.adapters")  # none starts a backend
WANTED = {"jax": (), "torch": ("torch._dynamo",), "tensorflow": ()}


class Forks:
    """The processes to fork, started when a recipe first needs what one imports.

    Args:
        directory: for the files that stand for the streams of a fork.
    """

    def __init__(self, directory):
        self.streams = [str(directory / name) for name in ("stdin", "stdout", "stderr")]
        self.started = {}

    def run(self, path, flags, environment, input):
        """What `subprocess.run` would return of Python with a recipe, its flags, environment and standard input."""
        backend = environment["KERAS_BACKEND"]
        for flag in flags:
            backend = flag.partition("=")[2] if flag.startswith("--backend=") else backend
        if backend not in WANTED or sys.platform != "linux":
            return run_anew(path, flags, environment, input)
        modules = (*WANTED[backend], *(["transformers"] if "--verify" in flags else []))
        if (backend, modules) not in self.started:
            command, pipe = [sys.executable, __file__, *modules], subprocess.PIPE
            self.started[backend, modules] = subprocess.Popen(command, env={**environment, "KERAS_BACKEND": backend},
                                                              stdin=pipe, stdout=pipe, text=True)  # fmt: skip
        parent = self.started[backend, modules]
        Path(self.streams[0]).write_text(input, encoding="utf-8")
        print(json.dumps([path, flags, environment, self.streams]), file=parent.stdin, flush=True)
        code = json.loads(parent.stdout.readline())
        return subprocess.CompletedProcess(flags, code, *(Path(file).read_text("utf-8") for file in self.streams[1:]))

    def end(self):
        """Waits for all of them."""
        for parent in self.started.values():
            parent.communicate()


def run_anew(path, flags, environment, input):
    """The same by `subprocess.run`."""
    return subprocess.run([sys.executable, path, *flags], env=environment, input=input, capture_output=True, text=True)


class Kept(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Hides a module until it is imported again, which costs nothing: a recipe minds what was imported before."""

    def __init__(self, name):
        self.name, self.module = name, sys.modules.pop(name)

    def find_spec(self, name, path, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name == self.name else None

    def create_module(self, spec):
        return self.module

    def exec_module(self, module):
        pass


def become(path, flags, environment, streams):
    """Turns a fork into the process that a command starts."""
    os.environ.clear()
    os.environ.update(environment)
    for number, (file, mode) in enumerate(zip(streams, "rww")):
        with open(file, mode) as stream:
            os.dup2(stream.fileno(), number)
    sys.stdin = open(0, closefd=False)
    sys.argv = [path, *flags]
    sys.path[0] = os.path.dirname(path)
    sys.meta_path.insert(0, Kept("keras"))
    runpy.run_path(path, run_name="__main__")


def main(modules):
    for name in (*IMPORTED, *modules):
        importlib.import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            return become(*json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
