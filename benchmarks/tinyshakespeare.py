"""nanoGPT's published CPU run on the characters of tinyshakespeare: our card, and the same run in PyTorch alone.

python benchmarks/tinyshakespeare.py --data=input.txt
python benchmarks/tinyshakespeare.py --data=input.txt --contestants=zoo:jax,nanogpt:eager --seeds=0,1,2

Each contestant is one process from start to end, one after the other: seconds are those of the whole process, imports,
compilation and validation with it. The loss is that of the last tenth of the text, all of it, in windows of 64
characters. nanoGPT's own figure is 1.88, of 20 batches drawn at random from that tenth. The last column says when our
run's validation, every 250 steps on 20 batches of it, first showed that or less.
"""

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
STEPS, EVERY, BATCH, LENGTH, WARMUP, GOAL = 2000, 250, 12, 64, 100, 1.88


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
    """(seconds, loss, seconds until the goal or nan) of one process."""
    start = time.perf_counter()
    library, kind = name.split(":")
    if library == "nanogpt":
        command = [sys.executable, __file__, f"--data={FLAGS.data}", f"--worker={seed}"]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return time.perf_counter() - start, float(out.split()[-1]), math.nan
    with tempfile.TemporaryDirectory() as directory:
        recipes = HERE.parent / "recipes"
        command = [sys.executable, recipes / "pretrain.py", f"--flagfile={recipes}/cards/tinyshakespeare_char.cfg",
                   f"--data={FLAGS.data}", f"--backend={kind}", f"--output={directory}/run", f"--seed={seed}",
                   *FLAGS.flag]  # fmt: skip
        metrics, reached = Path(directory, "run", "metrics.csv"), math.nan
        environment = {**os.environ, "ZOO_CACHE": directory}
        with open(f"{directory}/log", "w+") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
            while process.poll() is None:
                time.sleep(0.5)
                if math.isnan(reached) and min(losses(metrics), default=math.inf) <= GOAL:
                    reached = time.perf_counter() - start
            seconds = time.perf_counter() - start
            if process.returncode:
                log.seek(0)
                raise RuntimeError(f"{name} failed:\n{log.read()[-3000:]}")
        return seconds, losses(metrics)[-1], reached


def losses(metrics):
    """The validation losses in a `metrics.csv`, if it is there."""
    from zoo.training.reports import read_rows

    if not metrics.exists():
        return []
    return [row["val_loss"] for row in read_rows(metrics) if row["val_loss"] is not None]


def main(_):
    if FLAGS.worker:
        print(nanogpt(int(FLAGS.worker)))
        return
    found = {name: [] for name in FLAGS.contestants}
    for seed in FLAGS.seeds:
        for name in FLAGS.contestants:
            seconds, loss, reached = run(name, seed)
            found[name].append((seconds, loss, reached))
            print(f"seed {seed}  {name}: {seconds:.1f} s  loss {loss:.4f}  {GOAL} after {reached:.1f} s", flush=True)
    rows = [[name, *(f"{np.median(column):.{digits}f}" for column, digits in zip(zip(*runs), (1, 3, 1)))]
            for name, runs in found.items()]  # fmt: skip
    print(turns.table(["", "seconds", "loss", f"seconds to {GOAL}"], rows))


if __name__ == "__main__":
    app.run(main)
