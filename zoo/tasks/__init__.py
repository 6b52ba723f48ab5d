"""Task models: a backbone, a head, a tokenizer, and what Keras's fit, evaluate and predict need for them."""

from zoo.tasks.causal_lm import CausalLM
from zoo.tasks.label_words import LabelWords
from zoo.tasks.masked_lm import MaskedLM
from zoo.tasks.multiple_choice import MultipleChoice
from zoo.tasks.next_sentence import NextSentence
from zoo.tasks.question_answerer import QuestionAnswerer
from zoo.tasks.replaced_token_detector import ReplacedTokenDetector
from zoo.tasks.seq2seq_lm import Seq2SeqLM
from zoo.tasks.text_classifier import TextClassifier
from zoo.tasks.text_embedder import InBatchContrast, TextEmbedder
from zoo.tasks.token_classifier import TokenClassifier

__all__ = [
    "CausalLM", "InBatchContrast", "LabelWords", "MaskedLM", "MultipleChoice", "NextSentence",
    "QuestionAnswerer", "ReplacedTokenDetector", "Seq2SeqLM", "TextClassifier", "TextEmbedder", "TokenClassifier",
]  # fmt: skip
