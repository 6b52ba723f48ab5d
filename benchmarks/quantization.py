"""What integers for weights cost and save: perplexity, bytes of weights, and tokens per second of generation.

python benchmarks/quantization.py --preset=DIRECTORY --backend=jax

A preset without its own text is judged by text that it draws itself at temperature 1, with a fixed seed.
"""

import argparse
import os
import time


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", required=True)
    parser.add_argument("--backend", default="jax")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=192)
    arguments = parser.parse_args()
    os.environ["KERAS_BACKEND"] = arguments.backend
    import numpy as np

    import zoo

    def load(mode):
        lm = zoo.CausalLM.from_preset(arguments.preset)
        if mode != "float32":
            lm.quantize(mode)
        return lm

    start = np.full((arguments.rows, 1), load("float32").config.bos_token_id or 0, "int32")
    ids = load("float32").generate({"token_ids": start}, arguments.tokens, zoo.samplers.Temperature(), seed=5)
    weights = np.ones(ids[:, 1:].shape, "float32")
    print("| weights | perplexity | megabytes | tokens per second, batch 1 |\n|---|---|---|---|")
    for mode in ("float32", "int8", "int4"):
        lm = load(mode)
        logs = np.concatenate(lm.log_likelihoods({"token_ids": ids[:, :-1]}, ids[:, 1:], weights))
        size = sum(v.value.nbytes for v in [*lm.backbone.variables, *lm.head.variables] if "seed" not in v.path)
        lm.generate({"token_ids": start[:1]}, arguments.tokens)
        begin = time.perf_counter()
        made = lm.generate({"token_ids": start[:1]}, arguments.tokens, echo=False).shape[1]
        rate = made / (time.perf_counter() - begin)
        print(f"| {mode} | {np.exp(-logs.mean()):.3f} | {size / 1e6:.2f} | {rate:.0f} |", flush=True)


if __name__ == "__main__":
    main()
