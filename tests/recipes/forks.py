"""A process that has imported what recipes import, and runs each recipe in a fork of itself.

python tests/recipes/forks.py torch transformers    imports these, and then reads from its input

Starting Python, a backend and what Keras looks for takes longer than a small recipe runs. A fork has that, and its own
arguments, environment and streams; Keras, `zoo` and the recipe's own modules it imports itself, as any process would.
"""

import importlib
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

KERAS_WANTS = ("absl.app", "h5py", "matplotlib.pyplot", "numpy", "optree", "rich", "sklearn.base")
WANTED = {"jax": ("jax",), "torch": ("torch._dynamo", "jax")}  # TensorFlow imports Keras, which a recipe must do


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
        if modules not in self.started:
            command, pipe = [sys.executable, __file__, *modules], subprocess.PIPE
            self.started[modules] = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)
        parent = self.started[modules]
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
    runpy.run_path(path, run_name="__main__")


def main(modules):
    for name in (*KERAS_WANTS, *modules):
        importlib.import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            return become(*json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
