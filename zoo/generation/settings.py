"""How to generate: what a preset's generation_config.json says, and what one call decides.

It knows the keys of `transformers`, and which of them change the text in a way that we do not have.
"""

import dataclasses
import math
import warnings

from zoo.samplers import Beam, Sampler

# Keys that change the text, with the values that leave it alone.
_OTHERS = {
    "penalty_alpha": (None, 0), "guidance_scale": (None, 1), "encoder_repetition_penalty": (None, 1),
    "encoder_no_repeat_ngram_size": (None, 0), "sequence_bias": (None,), "exponential_decay_length_penalty": (None,),
    "begin_suppress_tokens": (None, []), "epsilon_cutoff": (None, 0), "eta_cutoff": (None, 0), "top_h": (None,),
    "watermarking_config": (None,), "num_beam_groups": (None, 1), "diversity_penalty": (None, 0),
    "constraints": (None,), "force_words_ids": (None,), "stop_strings": (None, []), "dola_layers": (None,),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a preset wants to be generated with.

    Args:
        sampler: a sampler or `Beam`.
        max_new_tokens: or None.
        stop_ids: token ids that end a text, or () where nothing is said.
        ignored: keys that change the text and are not honoured.
    """

    sampler: Sampler | Beam
    max_new_tokens: int | None = None
    stop_ids: tuple = ()
    ignored: tuple = ()

    def warn(self):
        """Says what is not honoured."""
        if self.ignored:
            names = ", ".join(self.ignored)
            warnings.warn(f"generation_config.json sets {names}, which is left out: give a sampler.", stacklevel=4)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What one call of `generate` decides for all its prompts."""

    sampler: object
    max_new_tokens: int
    stop_ids: list
    seed: int
    batch_size: int
    num_returns: int
    scored: bool  # whether log-probabilities are wanted


def read(hf, encoder_decoder):
    """The `Settings` of a generation_config.json's dictionary, which may be empty.

    Args:
        hf: the dictionary.
        encoder_decoder: whether lengths count the start token of a decoder, and not a prompt.

    Raises:
        ValueError: a value that makes no sense; the message names the file.
    """
    try:
        return _read({key: value for key, value in hf.items() if value is not None}, encoder_decoder)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"generation_config.json: {error}") from None


def _read(hf, encoder_decoder):
    ignored = [key for key, harmless in _OTHERS.items() if key in hf and hf[key] not in harmless]
    bias, least = {}, hf.get("min_new_tokens", 0)
    words = [[i] for i in hf.get("suppress_tokens", ())] + list(hf.get("bad_words_ids", ()))
    for word in words:
        if len(word) == 1:
            bias[int(word[0])] = -math.inf
        else:
            ignored.append("bad_words_ids")
    if hf.get("min_length"):
        if encoder_decoder:
            least = max(least, hf["min_length"] - 1)
        else:
            ignored.append("min_length")
    constraints = {
        "logit_bias": bias, "repetition_penalty": hf.get("repetition_penalty", 1.0),
        "no_repeat_ngram": hf.get("no_repeat_ngram_size") or None, "min_new_tokens": least,
        "first_token": hf.get("forced_bos_token_id") if encoder_decoder else None,
        "last_token": _first(hf.get("forced_eos_token_id")),
    }  # fmt: skip
    size, draws = hf.get("num_beams", 1), hf.get("do_sample", False)
    if size > 1:
        ignored += ["do_sample"] * bool(draws)
        sampler = Beam(size, float(hf.get("length_penalty", 1.0)), hf.get("early_stopping", False),
                       renormalize=bool(hf.get("renormalize_logits", False)), **constraints)  # fmt: skip
    elif draws:
        sampler = Sampler(hf.get("temperature", 1.0), hf.get("top_k", 50) or None, hf.get("top_p"),
                          hf.get("min_p"), hf.get("typical_p"), **constraints)  # fmt: skip
    else:
        sampler = Sampler(0.0, **constraints)
    longest = hf.get("max_new_tokens")
    if longest is None and encoder_decoder and "max_length" in hf:
        longest = hf["max_length"] - 1
    ends = hf.get("eos_token_id", ())
    ends = tuple(ends) if isinstance(ends, (list, tuple)) else (ends,)
    return Settings(sampler, longest, ends, tuple(dict.fromkeys(ignored)))


def _first(ids):
    return ids[0] if isinstance(ids, list) else ids
