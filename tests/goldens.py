"""Logits kept in float32, so that a backend can be checked where PyTorch and `transformers` are not installed.

Models and inputs follow from seeds; only the logits of `transformers` are stored. `python -m tests.goldens` makes them.
"""

from pathlib import Path

import numpy as np

from zoo.loading import weights

FILE = Path(__file__).with_name("goldens.npz")
SHAPE = {"vocabulary_size": 40, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 24,
         "max_sequence_length": 24}  # fmt: skip
CASES = {
    "gpt2": ("CausalLM", "GPTBackbone", {}),
    "llama": ("CausalLM", "LlamaBackbone", {"num_key_value_heads": 1}),
    "bert": ("MaskedLM", "BERTBackbone", {}),
    "roberta": ("MaskedLM", "RoBERTaBackbone", {"pad_token_id": 1}),
    "t5": ("Seq2SeqLM", "T5Backbone", {"decoder_start_token_id": 0}),
    "t5_v1_1": ("Seq2SeqLM", "T5Backbone", {"decoder_start_token_id": 0, "gated": True, "activation": "gelu_tanh",
                                            "tie_embeddings": False, "logit_scale": 1.0}),
    "bart": ("Seq2SeqLM", "BARTBackbone", {"decoder_start_token_id": 2}),
}  # fmt: skip


def randomised(model):
    """The model with weights that depend on names and shapes alone, the same on every backend."""
    rng = np.random.default_rng(7)
    for name, v in sorted(weights(model).items()):
        v.assign((1.0 if name.endswith("scale") else 0.0) + rng.normal(size=v.shape).astype("float32") * 0.1)
    return model


def model(name):
    """A case's task model."""
    import zoo

    task, backbone, fields = CASES[name]
    return randomised(getattr(zoo, task)(getattr(zoo, backbone)(**SHAPE, **fields)))


def batch(name):
    """A case's inputs: the second row is padded."""
    rng = np.random.default_rng(8)
    ids, seen = rng.integers(3, 40, (2, 10)).astype("int32"), np.ones((2, 10), "int32")
    seen[1, 7:] = 0
    x = {"token_ids": np.where(seen > 0, ids, 1 if name == "roberta" else 0).astype("int32"), "padding_mask": seen}
    if CASES[name][0] == "Seq2SeqLM":
        x["decoder_token_ids"] = rng.integers(3, 40, (2, 6)).astype("int32")
    return x


def main():
    """Saves each model as a preset, runs it in `transformers`, and keeps the logits."""
    import tempfile

    import torch
    import transformers

    autos = {name: f"AutoModelFor{name}" for name in ("CausalLM", "MaskedLM", "Seq2SeqLM")}
    kept = {}
    for name, (task, _, _) in CASES.items():
        with tempfile.TemporaryDirectory() as directory:
            model(name).save_to_preset(directory)
            theirs = getattr(transformers, autos[task]).from_pretrained(directory).eval()
        names = {"token_ids": "input_ids", "padding_mask": "attention_mask", "decoder_token_ids": "decoder_input_ids"}
        with torch.no_grad():
            out = theirs(**{names[k]: torch.tensor(v).long() for k, v in batch(name).items()})
        kept[name] = out.logits.numpy()
    np.savez_compressed(FILE, **kept)


if __name__ == "__main__":
    main()
