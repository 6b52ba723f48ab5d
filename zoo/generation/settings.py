"""How to generate: what a preset's generation_config.json says, and what one call decides.

It knows the keys of `transformers`, and which of them change the text in a way that we do not have.
"""

import dataclasses
import math
import warnings

from zoo.samplers import Beam, Contrastive, Sampler

# Keys that change the text, with the values that leave it alone.
_OTHERS = {
    "guidance_scale": (None, 1), "encoder_repetition_penalty": (None, 1), "encoder_no_repeat_ngram_size": (None, 0),
    "top_h": (None,), "watermarking_config": (None,), "num_beam_groups": (None, 1), "diversity_penalty": (None, 0),
    "constraints": (None,), "force_words_ids": (None,), "stop_strings": (None, []), "dola_layers": (None,),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a preset wants to be generated with.

    Args:
        sampler: of `zoo.samplers`.
        max_new_tokens: or None.
        stop_ids: token ids that end a text, or () where nothing is said.
        start_id: the decoder's first token, or None.
        source_id: what takes the place of the language's token in the texts of an encoder, or None; a key of ours.
        ignored: keys that change the text and are not honoured.
    """

    sampler: Sampler | Beam | Contrastive
    max_new_tokens: int | None = None
    stop_ids: tuple = ()
    start_id: int | None = None
    source_id: int | None = None
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
    draft: object  # a model that guesses, or None
    draft_tokens: int
    start_id: int | None
    source_id: int | None


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
    ends = hf.get("eos_token_id", ())
    ends = tuple(ends) if isinstance(ends, (list, tuple)) else (ends,)
    ignored += ["min_length"] * bool(hf.get("min_length") and not encoder_decoder)
    constraints = _constraints(hf, encoder_decoder, ends)
    size, draws = hf.get("num_beams", 1), hf.get("do_sample", False)
    if size > 1:
        ignored += ["do_sample"] * bool(draws)
        sampler = Beam(size, float(hf.get("length_penalty", 1.0)), hf.get("early_stopping", False),
                       renormalize=bool(hf.get("renormalize_logits", False)), **constraints)  # fmt: skip
    elif draws:
        sampler = Sampler(hf.get("temperature", 1.0), hf.get("top_k", 50) or None, hf.get("top_p"),
                          hf.get("min_p"), hf.get("typical_p"), hf.get("epsilon_cutoff") or None,
                          hf.get("eta_cutoff") or None, **constraints)  # fmt: skip
    elif hf.get("penalty_alpha") and hf.get("top_k", 50) > 1:
        sampler = Contrastive(hf.get("top_k", 50), hf["penalty_alpha"], **constraints)
    else:
        sampler = Sampler(0.0, **constraints)
    longest = hf.get("max_new_tokens")
    if longest is None and encoder_decoder and "max_length" in hf:
        longest = hf["max_length"] - 1
    start, source = hf.get("decoder_start_token_id"), hf.get("source_token_id")
    return Settings(sampler, longest, ends, start, source, tuple(dict.fromkeys(ignored)))


def _constraints(hf, encoder_decoder, ends):
    words = [[i] for i in hf.get("suppress_tokens", ())] + list(hf.get("bad_words_ids", ()))
    biases = [*hf.get("sequence_bias", ()), *((word, -math.inf) for word in words)]
    biases = {tuple(map(int, ids)): float(value) for ids, value in biases}
    ending = hf.get("exponential_decay_length_penalty")
    return {
        "logit_bias": {ids[0]: value for ids, value in biases.items() if len(ids) == 1},
        "sequence_bias": {ids: value for ids, value in biases.items() if len(ids) > 1},
        "repetition_penalty": hf.get("repetition_penalty", 1.0),
        "no_repeat_ngram": hf.get("no_repeat_ngram_size") or None,
        "ending": ending and (*ending, ends),
        "min_new_tokens": max(hf.get("min_new_tokens", 0), hf.get("min_length", 0) - 1 if encoder_decoder else 0),
        "first_token": hf.get("forced_bos_token_id") if encoder_decoder else None,
        "last_token": _first(hf.get("forced_eos_token_id")),
        "not_first": hf.get("begin_suppress_tokens", ()),
    }


def _first(ids):
    return ids[0] if isinstance(ids, list) else ids
