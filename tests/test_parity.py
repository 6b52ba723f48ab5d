"""Every family variant against `transformers`: logits, saving both ways, packing and caches."""

import keras
import numpy as np
import pytest
from keras import ops

import zoo
from tests.models import parameters, quickly, relative_error, run
from tests.parity_cases import CASES, KINDS, LENGTH, VOCABULARY, WAYS, model_of
from zoo.families import families

pytestmark = pytest.mark.backends
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TIME, TOLERANCE = 20, 1e-5
LOGITS = KINDS if keras.backend.backend() == "tensorflow" else {*KINDS, *families()}


def of_each(compiled, cases=CASES):
    """Runs a test on all cases, or where it would be compiled on some."""
    return pytest.mark.parametrize("pair", parameters(cases, compiled), indirect=True, scope="module")


@pytest.fixture(scope="module")
def pair(request, tmp_path_factory):
    """(their model, our task, directory their model is saved in)."""
    torch.set_num_threads(1)
    theirs = model_of(request.param)
    path = tmp_path_factory.mktemp("theirs") / request.param
    theirs.save_pretrained(path)
    config = zoo.Backbone.from_preset(path, load_weights=False).config
    kinds = {"decoder": zoo.CausalLM, "encoder": zoo.MaskedLM, "encoder_decoder": zoo.Seq2SeqLM}
    return theirs, kinds[config.architecture].from_preset(path), path


def batch(task, seed=0):
    """Random inputs with padding and token types; (ours, theirs, which outputs count)."""
    rng = np.random.default_rng(seed)
    pad = task.config.pad_token_id or 0
    ids, seen = rng.integers(3, VOCABULARY, (2, TIME)).astype("int32"), np.ones((2, TIME), "int32")
    seen[1, 14:] = 0
    ids[seen == 0] = pad
    ours, theirs = {"token_ids": ids, "padding_mask": seen}, {"input_ids": ids, "attention_mask": seen}
    counts = seen > 0
    if task.config.architecture == "encoder_decoder":
        target = rng.integers(3, VOCABULARY, (2, 11)).astype("int32")
        ours["decoder_token_ids"] = theirs["decoder_input_ids"] = target
        counts = np.ones((2, 11), bool)
    if task.config.num_token_types > 1:
        ours["token_type_ids"] = theirs["token_type_ids"] = (np.arange(TIME)[None] > 7).repeat(2, 0).astype("int32")
    return ours, theirs, counts


def logits_of(theirs, inputs):
    with torch.no_grad():
        return theirs(**{k: torch.tensor(v).long() for k, v in inputs.items()}).logits.numpy()


@of_each(LOGITS)
def test_logits_equal(pair):
    theirs, task, _ = pair
    ours_in, theirs_in, counts = batch(task)
    assert relative_error(run(task, ours_in)[counts], logits_of(theirs, theirs_in)[counts]) < TOLERANCE


@of_each(KINDS)
def test_saved_model_opens_in_transformers(pair, tmp_path):
    theirs, task, _ = pair
    task.save_to_preset(tmp_path)
    back = type(theirs).from_pretrained(tmp_path).eval()
    expected, found = theirs.state_dict(), back.state_dict()
    assert expected.keys() == found.keys()
    for name in expected:
        if name == "cls.predictions.bias" and not theirs.config.tie_word_embeddings:
            continue  # an untied BERT never uses it
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0, msg=name)
    auto = {"CausalLM": "AutoModelForCausalLM", "MaskedLM": "AutoModelForMaskedLM",
            "Seq2SeqLM": "AutoModelForSeq2SeqLM"}[type(task).__name__]  # fmt: skip
    opened = getattr(transformers, auto).from_pretrained(tmp_path).eval()
    _, theirs_in, counts = batch(task)
    np.testing.assert_array_equal(logits_of(opened, theirs_in)[counts], logits_of(theirs, theirs_in)[counts])


@of_each(WAYS)
def test_packed_rows_equal_documents_alone(pair):
    """Two documents in one row give what `transformers` gives for each alone."""
    theirs, task, _ = pair
    rng, cut = np.random.default_rng(1), 9
    ids = rng.integers(3, VOCABULARY, (1, TIME)).astype("int32")
    segments = np.array([[1] * cut + [2] * (TIME - cut)], "int32")
    ours = {"token_ids": ids, "segment_ids": segments}
    alone = [{"input_ids": ids[:, :cut]}, {"input_ids": ids[:, cut:]}]
    if task.config.architecture == "encoder_decoder":
        target, at = rng.integers(3, VOCABULARY, (1, 12)).astype("int32"), 5
        ours |= {"decoder_token_ids": target, "decoder_segment_ids": np.array([[1] * at + [2] * (12 - at)], "int32")}
        alone[0]["decoder_input_ids"], alone[1]["decoder_input_ids"] = target[:, :at], target[:, at:]
    expected = np.concatenate([logits_of(theirs, x) for x in alone], axis=1)
    assert relative_error(run(task, ours), expected) < TOLERANCE


@of_each(WAYS)
def test_cached_steps_equal_the_full_pass(pair):
    """A prefill of ragged prompts padded on the left, then one token at a time."""
    theirs, task, _ = pair
    backbone = task.backbone
    if backbone.decoder is None:
        pytest.skip("an encoder has no cache")
    rng, prompt, skip = np.random.default_rng(2), 8, 3
    ids, source = (rng.integers(3, VOCABULARY, (2, TIME)).astype("int32") for _ in range(2))
    memory, theirs_in = None, {}
    if backbone.encoder is not None:
        memory = quickly(backbone.encode, task.variables)({"token_ids": ops.convert_to_tensor(source)})
        theirs_in = {"input_ids": source}
    name = "decoder_input_ids" if memory is not None else "input_ids"
    expected = logits_of(theirs, {**theirs_in, name: ids})
    short = {k: v[1:] for k, v in theirs_in.items()}
    late = logits_of(theirs, {**short, name: ids[1:, skip:]})[0]  # the second row starts `skip` slots later
    seen = np.ones((2, TIME + 4), "int32")
    seen[1, :skip] = 0
    tensor, ready = ops.convert_to_tensor, lambda fn: quickly(fn, task.variables)
    prefill = ready(lambda ids, cache, positions, seen: backbone.decode(ids, cache, 0, positions, seen))
    step = ready(lambda ids, cache, at, positions, seen: backbone.decode(ids, cache, at, positions, seen))
    positions = np.maximum(np.cumsum(seen, axis=1) - 1, 0).astype("int32")
    x, cache = prefill(tensor(ids[:, :prompt]), backbone.new_cache(2, TIME + 4, memory), tensor(positions[:, :prompt]),
                       tensor(seen[:, :prompt]))  # fmt: skip
    outputs = [x]
    for at in range(prompt, TIME):
        x, cache = step(tensor(ids[:, at : at + 1]), cache, tensor(np.int32(at)), tensor(positions[:, at : at + 1]),
                        tensor(seen))  # fmt: skip
        outputs.append(x)
    found = ops.convert_to_numpy(ready(task.head)(ops.concatenate(outputs, axis=1)))
    assert relative_error(found[0], expected[0]) < TOLERANCE
    assert relative_error(found[1, skip:], late) < TOLERANCE


@of_each((), [name for name in CASES if name in LOGITS])
def test_greedy_generation_equals_transformers(pair):
    theirs, task, _ = pair
    if task.backbone.decoder is None:
        pytest.skip("an encoder does not generate")
    ids = np.random.default_rng(3).integers(3, VOCABULARY, (2, 9)).astype("int32")
    expected = theirs.generate(torch.tensor(ids).long(), max_new_tokens=16, do_sample=False, num_beams=1,
                               attention_mask=torch.ones(2, 9).long(), pad_token_id=0).numpy()  # fmt: skip
    found = task.generate({"token_ids": ids}, max_new_tokens=16)
    begin = ids.shape[1] if task.backbone.encoder is None else 1
    for a, b in zip(found, expected):  # each up to its end
        ends = np.flatnonzero(b[begin:] == theirs.generation_config.eos_token_id)
        stop = begin + ends[0] + 1 if len(ends) else len(b)
        np.testing.assert_array_equal(a[:stop], b[:stop])


@of_each(KINDS)
def test_positions_end_in_a_clear_error(pair):
    _, task, _ = pair
    if task.config.position != "learned":
        pytest.skip("no learned positions")
    ids = np.full((1, LENGTH + 1), 3, "int32")
    with pytest.raises(ValueError, match=f"{LENGTH + 1} positions, but the model has {LENGTH}"):
        task({"token_ids": ids, "decoder_token_ids": ids} if task.backbone.encoder and task.backbone.decoder
             else {"token_ids": ids})  # fmt: skip
