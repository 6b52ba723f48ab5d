"""Marian (Junczys-Dowmunt et al. 2018) as OPUS-MT trained it: BART's layers with sinusoidal positions."""

from zoo.families import bart
from zoo.families.family import Family
from zoo.families.pegasus import SINUSOIDAL, TABLES


def _read(hf):
    if hf.get("decoder_vocab_size") not in (None, hf.get("vocab_size")):
        raise ValueError(f"decoder_vocab_size={hf['decoder_vocab_size']} differs from vocab_size: not supported.")
    return bart.read(hf)


def _write(config):
    start = config.pad_token_id if config.decoder_start_token_id is None else config.decoder_start_token_id
    return {**bart.write(config), "decoder_start_token_id": start or 0}  # its text begins with padding


FAMILY = Family(
    name="marian",
    backbone="MarianBackbone",
    model_types=("marian",),
    architectures={"Seq2SeqLM": "MarianMTModel", "Backbone": "MarianModel"},
    keys=bart.KEYS,
    defaults={**bart.DEFAULTS, **SINUSOIDAL},
    derived=bart.derived,
    fixed={**bart.FIXED, "share_encoder_decoder_embeddings": (True,)},
    absent={"pad_token_id": 58100, "eos_token_id": 0, "decoder_start_token_id": 58100},
    extra_read=_read,
    extra_write=_write,
    table=bart.table,
    prefix="model",
    ignore=(*bart.IGNORE, TABLES),
    optional=("head/bias",),
    presets={
        "opus_mt_en_de": ("Helsinki-NLP/opus-mt-en-de", "74M", "cc-by-4.0"),
        "opus_mt_en_fr": ("Helsinki-NLP/opus-mt-en-fr", "75M", "apache-2.0"),
    },
)
