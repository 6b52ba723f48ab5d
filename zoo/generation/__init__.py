"""Generation: the decode loop that CausalLM and Seq2SeqLM share."""
