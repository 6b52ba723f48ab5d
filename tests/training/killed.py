"""A run that is killed again and again, for test_killed.py: `python -m tests.training.killed DIRECTORY KILLS`.

This process imports everything and starts no backend; each run is a fork of it, killed at a random moment, or while a
checkpoint is being written. Its last line of output is how many were.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import keras
import numpy as np

import zoo
from zoo import training

STEPS = 40
ROWS = np.random.default_rng(0).integers(0, 20, (STEPS, 4, 9)).astype("int32")


def train(directory):
    """Trains from the newest checkpoint to the end; the weights go into `directory`/final.npz."""
    random.seed(0)  # the first weights and the dropout
    backbone = zoo.GPTBackbone(vocabulary_size=20, num_layers=1, num_heads=2, hidden_dim=64, intermediate_dim=128,
                               max_sequence_length=8, dropout=0.2)  # fmt: skip
    lm = zoo.CausalLM(backbone)
    lm.compile(training.by_pattern(keras.optimizers.AdamW(1e-2, name="adamw"), lm), weighted_metrics=None)
    done = training.restore(directory / "checkpoints", lm)
    (directory / "begun").touch()
    monitor = training.Monitor([], steps=STEPS, tokens_per_step=32, done=done, checkpoints=directory / "checkpoints",
                               checkpoint_every=2)  # fmt: skip
    batches = (({"token_ids": rows[:, :-1]}, rows[:, 1:], np.ones((4, 8), "float32")) for rows in ROWS[done:])
    if done < STEPS:
        lm.fit(batches, steps_per_epoch=STEPS - done, shuffle=False, verbose=0, callbacks=[monitor])
    np.savez(directory / "final.npz", *(keras.ops.convert_to_numpy(v.value) for v in lm.variables))


def fork(directory):
    """The process number of a run in a fork of this process."""
    child = os.fork()
    if child == 0:
        try:
            train(directory)
            os._exit(0)
        finally:
            os._exit(1)
    return child


def wait(child, until):
    """Returns when something is so, or the child has ended, which stays to be waited for."""
    while not until() and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(0.0005)


def main(directory, kills):
    whole, broken = directory / "whole", directory / "broken"
    for path in (whole, broken):
        path.mkdir()
    start = time.monotonic()
    assert os.waitpid(fork(whole), 0)[1] == 0
    moments, cut = random.Random(1), 0
    seconds = time.monotonic() - start
    for i in range(kills):
        (broken / "begun").unlink(missing_ok=True)
        child = fork(broken)
        wait(child, lambda: (broken / "begun").exists())
        if i % 2:
            wait(child, lambda: any(broken.glob("checkpoints/.writing-*")))
        else:
            time.sleep(moments.uniform(0, 0.7 * seconds))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        cut += any(broken.glob("checkpoints/.writing-*"))
    assert os.waitpid(fork(broken), 0)[1] == 0
    print(cut)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
