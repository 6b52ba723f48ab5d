"""Task models: a backbone, a head, a tokenizer, and what Keras's fit, evaluate and predict need for them."""

from zoo.tasks.causal_lm import CausalLM
from zoo.tasks.masked_lm import MaskedLM
from zoo.tasks.seq2seq_lm import Seq2SeqLM

__all__ = ["CausalLM", "MaskedLM", "Seq2SeqLM"]
