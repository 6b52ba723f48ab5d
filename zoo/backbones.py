"""The public backbones: a family's name is all that its class adds to `Backbone`."""

import keras

from zoo.backbone import Backbone

_public = keras.saving.register_keras_serializable("zoo")


@_public
class GPTBackbone(Backbone):
    """GPT-2: a pre-norm decoder with learned positions (Radford et al. 2019). See `Backbone`."""

    family = "gpt2"


@_public
class GPTJBackbone(Backbone):
    """GPT-J: partly rotated heads, attention beside the feed-forward (Wang & Komatsuzaki 2021). See `Backbone`."""

    family = "gptj"


@_public
class GPTNeoXBackbone(Backbone):
    """GPT-NeoX and Pythia: rotary positions, attention beside the feed-forward (Black et al. 2022). See `Backbone`."""

    family = "gpt_neox"


@_public
class OPTBackbone(Backbone):
    """OPT: GPT-3's decoder with ReLU (Zhang et al. 2022). See `Backbone`."""

    family = "opt"


@_public
class BLOOMBackbone(Backbone):
    """BLOOM: a multilingual decoder with ALiBi (BigScience 2022). See `Backbone`."""

    family = "bloom"


@_public
class FalconBackbone(Backbone):
    """Falcon: attention beside the feed-forward, few or shared keys (Almazrouei et al. 2023). See `Backbone`."""

    family = "falcon"


@_public
class LlamaBackbone(Backbone):
    """Llama: RMSNorm, rotary positions, gated feed-forward, grouped heads (Touvron et al. 2023). See `Backbone`."""

    family = "llama"


@_public
class MistralBackbone(Backbone):
    """Mistral: Llama with a sliding window (Jiang et al. 2023). See `Backbone`."""

    family = "mistral"


@_public
class Qwen2Backbone(Backbone):
    """Qwen2: Llama with biases on queries, keys and values (Yang et al. 2024). See `Backbone`."""

    family = "qwen2"


@_public
class Qwen3Backbone(Backbone):
    """Qwen3: Llama with normalised queries and keys (Yang et al. 2025). See `Backbone`."""

    family = "qwen3"


@_public
class GemmaBackbone(Backbone):
    """Gemma: wide heads, scaled embeddings, RMSNorm around one (Gemma Team 2024). See `Backbone`."""

    family = "gemma"


@_public
class Gemma2Backbone(Backbone):
    """Gemma 2: soft caps, norms around each branch, every other layer windowed (Gemma Team 2024). See `Backbone`."""

    family = "gemma2"


@_public
class Gemma3Backbone(Backbone):
    """Gemma 3: five windowed layers to a global one, each with its own rotation (Gemma Team 2025). See `Backbone`."""

    family = "gemma3"


@_public
class PhiBackbone(Backbone):
    """Phi: partly rotated heads, attention beside the feed-forward (Gunasekar et al. 2023). See `Backbone`."""

    family = "phi"


@_public
class Phi3Backbone(Backbone):
    """Phi-3: Llama with fused projections in its files (Abdin et al. 2024). See `Backbone`."""

    family = "phi3"


@_public
class OLMo2Backbone(Backbone):
    """OLMo 2: Llama with norms at the end of each branch (OLMo Team 2025). See `Backbone`."""

    family = "olmo2"


@_public
class SmolLM3Backbone(Backbone):
    """SmolLM3: Llama with every fourth layer unrotated (Bakouch et al. 2025). See `Backbone`."""

    family = "smollm3"


@_public
class GraniteBackbone(Backbone):
    """Granite 3: Llama with scaled embeddings, branches and logits (Granite Team 2024). See `Backbone`."""

    family = "granite"


@_public
class StableLMBackbone(Backbone):
    """StableLM: Llama with LayerNorm and partly rotated heads (Bellagente et al. 2024). See `Backbone`."""

    family = "stablelm"


@_public
class BERTBackbone(Backbone):
    """BERT: a post-norm encoder with sentence types (Devlin et al. 2019). See `Backbone`."""

    family = "bert"


@_public
class RoBERTaBackbone(Backbone):
    """RoBERTa: BERT's encoder, trained longer on more text (Liu et al. 2019). See `Backbone`."""

    family = "roberta"


@_public
class XLMRoBERTaBackbone(Backbone):
    """XLM-R: RoBERTa in a hundred languages (Conneau et al. 2020). See `Backbone`."""

    family = "xlm_roberta"


@_public
class CamemBERTBackbone(Backbone):
    """CamemBERT: RoBERTa on French (Martin et al. 2020). See `Backbone`."""

    family = "camembert"


@_public
class DistilBERTBackbone(Backbone):
    """DistilBERT: half of BERT's layers, distilled (Sanh et al. 2019). See `Backbone`."""

    family = "distilbert"


@_public
class ALBERTBackbone(Backbone):
    """ALBERT: layers that share weights, narrow embeddings (Lan et al. 2020). See `Backbone`."""

    family = "albert"


@_public
class ELECTRABackbone(Backbone):
    """ELECTRA: an encoder trained to tell replaced tokens (Clark et al. 2020). See `Backbone`."""

    family = "electra"


@_public
class DeBERTaV3Backbone(Backbone):
    """DeBERTa v2 and v3: content and distance scored apart (He et al. 2021, 2023). See `Backbone`."""

    family = "deberta_v3"


@_public
class ModernBERTBackbone(Backbone):
    """ModernBERT: a pre-norm encoder with rotary positions and windows (Warner et al. 2024). See `Backbone`."""

    family = "modernbert"


@_public
class MPNetBackbone(Backbone):
    """MPNet: BERT with relative position buckets (Song et al. 2020). See `Backbone`."""

    family = "mpnet"


@_public
class NomicBERTBackbone(Backbone):
    """Nomic BERT: BERT with rotary positions and a gated feed-forward (Nussbaum et al. 2024). See `Backbone`."""

    family = "nomic_bert"


@_public
class T5Backbone(Backbone):
    """T5: an encoder-decoder with relative position buckets (Raffel et al. 2020). See `Backbone`."""

    family = "t5"


@_public
class MT5Backbone(Backbone):
    """mT5: T5 v1.1 in a hundred languages (Xue et al. 2021). See `Backbone`."""

    family = "mt5"


@_public
class UMT5Backbone(Backbone):
    """umT5: mT5 with relative positions of its own in each layer (Chung et al. 2023). See `Backbone`."""

    family = "umt5"


@_public
class BARTBackbone(Backbone):
    """BART: a post-norm encoder-decoder with learned positions (Lewis et al. 2020). See `Backbone`."""

    family = "bart"


@_public
class MBARTBackbone(Backbone):
    """mBART: a pre-norm BART in many languages (Liu et al. 2020). See `Backbone`."""

    family = "mbart"


@_public
class PegasusBackbone(Backbone):
    """Pegasus: a pre-norm BART with sinusoids, for summaries (Zhang et al. 2020). See `Backbone`."""

    family = "pegasus"


@_public
class MarianBackbone(Backbone):
    """Marian: a BART with sinusoids, for translation (Junczys-Dowmunt et al. 2018). See `Backbone`."""

    family = "marian"
