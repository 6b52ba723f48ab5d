"""Runs the tests as a user does, `python -m tests`: JAX runs all, TensorFlow and PyTorch what depends on them;
what would compile for minutes runs on PyTorch alone."""

import os
import subprocess
import sys

RUNS = (("jax", []), ("torch", ["-m", "backends or uncompiled"]), ("tensorflow", ["-m", "backends"]))


def main():
    failed = []
    for backend, chosen in RUNS:
        print(f"\n=== {backend} ===", flush=True)
        env = {**os.environ, "KERAS_BACKEND": backend}
        command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "worksteal", *chosen, *sys.argv[1:]]
        if subprocess.run(command, env=env).returncode:
            failed.append(backend)
    print(f"\nfailed: {', '.join(failed)}" if failed else "\nall backends passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
