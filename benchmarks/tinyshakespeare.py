"""nanoGPT's published CPU run on the characters of tinyshakespeare: our card, and the same run in PyTorch alone.

python benchmarks/tinyshakespeare.py --data=input.txt
python benchmarks/tinyshakespeare.py --data=input.txt --contestants=zoo:jax,nanogpt:eager --seeds=0,1,2

Each contestant is one process from start to end, one after the other: seconds are those of the whole process, imports,
compilation and validation with it. The loss is that of the last tenth of the text, all of it, in windows of 64
characters. nanoGPT's own figure is 1.88, of 20 batches drawn at random from that tenth.
"""

import csv
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import turns
from absl import app, flags

FLAGS = flags.FLAGS
HERE = Path(__file__).resolve().parent
flags.DEFINE_string("data", None, "The text: karpathy/char-rnn's data/tinyshakespeare/input.txt.", required=True)
flags.DEFINE_list("contestants", ["zoo:jax", "zoo:torch", "nanogpt:eager"], "Who takes part.")
flags.DEFINE_list("seeds", ["0"], "Seeds.")
flags.DEFINE_multi_string("flag", [], "Further flags of the recipe.")
flags.DEFINE_string("worker", None, "Used by the benchmark itself.")
STEPS, EVERY, BATCH, LENGTH, WARMUP = 2000, 250, 12, 64, 100


def nanogpt(seed):
    """nanoGPT's training loop with the settings of its README; returns the loss of the held-out text."""
    import torch
    from nanogpt import GPT

    torch.manual_seed(seed)
    text = Path(FLAGS.data).read_text(encoding="utf-8")
    places = {letter: i for i, letter in enumerate(sorted(set(text)))}
    ids = torch.tensor([places[letter] for letter in text])
    train, held_out = ids[: int(0.9 * len(ids))], ids[int(0.9 * len(ids)) :]
    model = GPT(len(places), 4, 4, 128, LENGTH, bias=False)
    groups = [[p for p in model.parameters() if (p.ndim > 1) == decays] for decays in (True, False)]
    groups = [{"params": group, "weight_decay": decay} for group, decay in zip(groups, (0.1, 0.0))]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), fused=True)

    def drawn(part):
        starts = torch.randint(len(part) - LENGTH, (BATCH,))
        rows = torch.stack([part[i : i + LENGTH + 1] for i in starts])
        return rows[:, :-1], rows[:, 1:]

    for step in range(STEPS):
        if step % EVERY == 0:
            with torch.no_grad():
                [model(*drawn(part)) for part in (train, held_out) for _ in range(20)]
        share = (step - WARMUP) / (STEPS - WARMUP)
        rate = 1e-3 * (step + 1) / (WARMUP + 1) if share < 0 else 1e-4 + 9e-4 * (1 + math.cos(math.pi * share)) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        model(*drawn(train)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        rows = held_out[: (len(held_out) - 1) // LENGTH * LENGTH + 1]
        return float(model(rows[:-1].view(-1, LENGTH), rows[1:].view(-1, LENGTH)))


def run(name, seed):
    """(seconds, loss) of one process."""
    start = time.perf_counter()
    library, kind = name.split(":")
    if library == "nanogpt":
        command = [sys.executable, __file__, f"--data={FLAGS.data}", f"--worker={seed}"]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return time.perf_counter() - start, float(out.split()[-1])
    with tempfile.TemporaryDirectory() as directory:
        recipes = HERE.parent / "recipes"
        command = [sys.executable, recipes / "pretrain.py", f"--flagfile={recipes}/cards/tinyshakespeare_char.cfg",
                   f"--data={FLAGS.data}", f"--backend={kind}", f"--output={directory}/run", f"--seed={seed}",
                   *FLAGS.flag]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "ZOO_CACHE": directory})
        seconds = time.perf_counter() - start
        with open(f"{directory}/run/metrics.csv", newline="") as file:
            return seconds, [float(row["val_loss"]) for row in csv.DictReader(file) if row["val_loss"]][-1]


def main(_):
    if FLAGS.worker:
        print(nanogpt(int(FLAGS.worker)))
        return
    found = {name: [] for name in FLAGS.contestants}
    for seed in FLAGS.seeds:
        for name in FLAGS.contestants:
            found[name].append(run(name, seed))
            print(f"seed {seed}  {name}: {found[name][-1][0]:.1f} s  loss {found[name][-1][1]:.4f}", flush=True)
    rows = [[name, *(f"{np.median(column):.{digits}f}" for column, digits in zip(zip(*runs), (1, 3)))]
            for name, runs in found.items()]  # fmt: skip
    print(turns.table(["", "seconds", "loss"], rows))


if __name__ == "__main__":
    app.run(main)
