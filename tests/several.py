"""One process of several, or one alone: writes, as JSON, what tests/test_processes.py compares.

ZOO_TEST_DEVICES=2 python -m tests.several 0 2 localhost:1234 DIRECTORY data:4    the first of two processes
ZOO_TEST_DEVICES=1 python -m tests.several 0 1 - DIRECTORY none                   one device, which must be the same
"""

import contextlib
import io
import json
import sys
from pathlib import Path

import numpy as np

import zoo
from tests import sharded  # which chooses the devices before keras is imported
from zoo import processes
from zoo.data import pretraining, texts

INDEX, COUNT, COORDINATOR, DIRECTORY, *MESHES = sys.argv[1:]
WORDS = "to be or not to be that is the question whether it is nobler in the mind to suffer".split()


def loader(index, count):
    """Batches of 8 rows, of which each process loads its slice."""
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(WORDS, 12)) for _ in range(60)]
    tokenizer = zoo.Tokenizer.train(WORDS, kind="char")
    return pretraining(texts(lines), tokenizer, sequence_length=12, batch_size=8, validation_share=0.2,
                       cache=f"{DIRECTORY}/cache", process_index=index, process_count=count)  # fmt: skip


def results(name):
    """What a model comes to on the mesh in force."""
    mesh, (x, y, w) = zoo.sharding.current(), sharded.batch("gpt2", rows=10)
    data = loader(*(mesh.data_slice if mesh else (0, 1)))
    model = sharded.build("gpt2")
    monitor = zoo.training.Monitor([Losses()], steps=4, tokens_per_step=96, every=1, checkpoint_every=2,
                                   validate=lambda model, _: zoo.training.validation_loss(model, data.validation),
                                   validate_every=4, checkpoints=f"{DIRECTORY}/{name}")  # fmt: skip
    model.fit(data.iterate(0, 4), steps_per_epoch=4, shuffle=False, verbose=0, callbacks=[monitor])
    model.save_to_preset(f"{DIRECTORY}/{name}-preset")
    found = {"losses": monitor.reports[0].values, "slice": mesh and mesh.data_slice}
    if COUNT != "1":  # from the checkpoint of one device after two steps
        again = sharded.build("gpt2")
        assert zoo.training.restore(f"{DIRECTORY}/none", again, step=2) == 2
        monitor = zoo.training.Monitor([Losses()], steps=4, tokens_per_step=96, every=1, done=2)
        again.fit(data.iterate(2, 4), steps_per_epoch=2, shuffle=False, verbose=0, callbacks=[monitor])
        found["resumed"] = monitor.reports[0].values
    ids = x["token_ids"]
    return found | {
        "evaluate": model.evaluate(x, y, sample_weight=w, batch_size=4, verbose=0),
        "predict": [model.predict({k: v[:n] for k, v in x.items()}, batch_size=4, verbose=0).tolist() for n in (8, 5)],
        "score": np.concatenate(model.log_likelihoods(x, y, w)).tolist(),
        "generate": model.generate({"token_ids": ids[:4, :6]}, max_new_tokens=6).tolist(),
    }  # fmt: skip


class Losses(zoo.training.reports.Report):
    """Keeps losses and validation losses."""

    def __init__(self):
        self.values = []

    def row(self, row):
        self.values += [row["loss"], row["val_loss"]]


def words():
    """What the processes tell each other, and the errors for meshes that they cannot have."""
    index, error = processes.index(), sharded.error
    return {
        "mean": processes.mean({"a": index, "b": [0.1 * index, 1e-300]})["b"][0].item(),
        "broadcast": processes.broadcast(2**52 + 1 + index),
        "errors": [error(lambda mesh=mesh: zoo.sharding.make(mesh)) for mesh in ("data:2", "data:8", "model:3")],
        "rows": error(lambda: zoo.sharding.make("data:4").get_data_layout((3, 5))),
    }


if __name__ == "__main__":
    if COUNT != "1":
        processes.start(COORDINATOR, int(COUNT), int(INDEX))
    found, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        for mesh in MESHES:
            with sharded.scope(mesh):
                found[mesh] = results(mesh.replace("/", "-").replace(",", "-").replace(":", ""))
        found["words"] = words() if COUNT != "1" else None
    # not to stdout, where Gloo's threads write too
    Path(DIRECTORY, f"found-{INDEX}-{COUNT}.json").write_text(json.dumps([found, printed.getvalue()]))
