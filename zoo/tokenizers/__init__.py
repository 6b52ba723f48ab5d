"""Text to token ids and back, over the Rust `tokenizers` package: trained here or read from any usual file."""

from zoo.tokenizers.encoding import Encoding
from zoo.tokenizers.tokenizer import Tokenizer

__all__ = ["Encoding", "Tokenizer"]
