"""Twenty training steps of a fixed model on fixed batches: `python -m tests.curve` prints its losses as JSON."""

import json

import keras

import zoo
from tests.goldens import randomised
from tests.models import TINY


def losses():
    """Losses of 20 steps, dropout off, for a decoder, an encoder and an encoder-decoder."""
    import numpy as np

    found = {}
    for name, task in (("GPTBackbone", "CausalLM"), ("BERTBackbone", "MaskedLM"), ("T5Backbone", "Seq2SeqLM")):
        off = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "final_dropout": 0.0}
        model = randomised(getattr(zoo, task)(getattr(zoo, name)(**TINY, **off)))
        rng = np.random.default_rng(1)
        ids = rng.integers(1, 96, (8, 12)).astype("int32")
        ids[:, 6:] = ids[:, :6]
        x, y = {"token_ids": ids}, None
        if task == "MaskedLM":
            x, y = x | {"mask_positions": np.tile(np.array([[3, 9]], "int32"), (8, 1))}, ids[:, [3, 9]]
        if task == "Seq2SeqLM":
            x, y = x | {"decoder_token_ids": np.roll(ids, 1, axis=1)}, ids
        model.compile(keras.optimizers.AdamW(3e-3, name="adamw"))
        steps = []
        for i in range(20):
            rows = slice(i % 2 * 4, i % 2 * 4 + 4)  # two batches in turn
            part = {k: v[rows] for k, v in x.items()}
            history = model.fit(part, None if y is None else y[rows], batch_size=4, verbose=0).history
            steps.append(history["loss"][0])
        found[task] = steps
    return found


if __name__ == "__main__":
    print(json.dumps(losses()))
