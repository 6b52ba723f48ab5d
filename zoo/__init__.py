"""zoo: language models on Keras 3 for JAX, TensorFlow and PyTorch.

Public names are resolved on first use, so `import zoo` alone imports no backend: set KERAS_BACKEND first.
"""

import importlib

__version__ = "0.1.0"

_HOMES = {
    "zoo.config": "Config",
    "zoo.backbone": "Backbone",
    "zoo.backbones": "GPTBackbone GPTJBackbone GPTNeoXBackbone OPTBackbone BLOOMBackbone FalconBackbone LlamaBackbone "
    "MistralBackbone Qwen2Backbone Qwen3Backbone GemmaBackbone Gemma2Backbone Gemma3Backbone PhiBackbone Phi3Backbone "
    "OLMo2Backbone SmolLM3Backbone GraniteBackbone StableLMBackbone BERTBackbone RoBERTaBackbone XLMRoBERTaBackbone "
    "CamemBERTBackbone DistilBERTBackbone ALBERTBackbone ELECTRABackbone DeBERTaV3Backbone ModernBERTBackbone "
    "MPNetBackbone NomicBERTBackbone T5Backbone MT5Backbone UMT5Backbone BARTBackbone MBARTBackbone PegasusBackbone "
    "MarianBackbone",
    "zoo.tasks": "CausalLM MaskedLM Seq2SeqLM TextClassifier TokenClassifier QuestionAnswerer MultipleChoice "
    "TextEmbedder InBatchContrast NextSentence ReplacedTokenDetector LabelWords",
    "zoo.tokenizers": "Tokenizer",
    "zoo.generation.chat": "chat",
    "zoo.pretrained": "presets",
}
_MODULES = ("adapters", "data", "metrics", "samplers", "families", "processes", "sharding", "training")
_NAMES = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = ["__version__", *_MODULES, *_NAMES]


def __getattr__(name):
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"zoo.{name}")
    raise AttributeError(f"module 'zoo' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__():
    return __all__
