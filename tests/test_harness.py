"""lm-eval on our models: every number equal to that of its own class for transformers on the same checkpoint."""

import json

import pytest

pytest.importorskip("lm_eval")
pytest.importorskip("accelerate")

import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

import zoo
from zoo.harness import HarnessLM

TEXT = ["the cat sat on the mat and the dog sat on the cat", "a bird sang in a tree until the sun went down"]
TASKS = {
    "choices": """
output_type: multiple_choice
doc_to_text: "{{context}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{label}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "whole": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{context}}"
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
""",
    "written": """
output_type: generate_until
doc_to_text: "{{context}}"
doc_to_target: "{{choices[0]}}"
generation_kwargs: {until: [" the", "\\n"], max_gen_toks: 8, do_sample: false}
metric_list: [{metric: exact_match}]
""",
}
DOCS = [{"context": text, "choices": [" on the mat", " a tree", " down"], "label": i % 3} for i, text in enumerate(
    ["the cat sat", "a bird sang in", "the sun went", "the dog", " ".join(TEXT * 3), "a"])]  # fmt: skip


def made(kind, directory):
    """A tiny checkpoint with a tokenizer, large weights so that its choices differ."""
    import keras

    keras.utils.set_random_seed(3)
    template = {"llama": "bos", "gpt2": None, "t5": "t5"}[kind]
    trained = (
        {"kind": "unigram", "vocabulary_size": 80, "num_sentinels": 0} if kind == "t5" else {"vocabulary_size": 300}
    )
    if kind == "llama":
        trained["special_tokens"] = {"bos": "<s>", "eos": "</s>", "pad": None}
    tokenizer = zoo.Tokenizer.train(TEXT, template=template, **trained)
    sizes = {"vocabulary_size": tokenizer.vocabulary_size, "num_layers": 2, "num_heads": 2, "hidden_dim": 16,
             "intermediate_dim": 32, "max_sequence_length": 40, "bos_token_id": tokenizer.bos_id,
             "eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}  # fmt: skip
    if kind == "t5":
        lm = zoo.Seq2SeqLM(zoo.T5Backbone(**sizes, decoder_start_token_id=0), tokenizer)
    else:
        lm = zoo.CausalLM({"gpt2": zoo.GPTBackbone, "llama": zoo.LlamaBackbone}[kind](**sizes), tokenizer)
    for v in lm.trainable_variables:
        v.assign(v * 6.0 if v.path.endswith(("kernel", "embeddings")) else v)
    lm.save_to_preset(directory)
    return lm


@pytest.fixture(scope="module", params=["gpt2", "llama", "t5"])
def both(request, tmp_path_factory):
    """(ours, theirs) on one checkpoint."""
    directory = tmp_path_factory.mktemp(request.param)
    lm = made(request.param, directory)
    backend = "seq2seq" if request.param == "t5" else "causal"
    return HarnessLM(lm, batch_size=4), HFLM(str(directory), backend=backend, batch_size=4, device="cpu", max_length=40,
                                             dtype="float32")  # fmt: skip


def asked(kind, *arguments):
    return [Instance(request_type=kind, doc={}, arguments=args, idx=i) for i, args in enumerate(arguments)]


def test_requests_equal_those_of_transformers(both):
    ours = both[0]
    pairs = [(doc["context"], choice) for doc in DOCS for choice in doc["choices"]]
    pairs += [("the cat ", "sat"), ("", "the mat"), *(("a", end) for end in (" c", " b", " d", " t"))]
    found, wanted = (lm.loglikelihood(asked("loglikelihood", *pairs), disable_tqdm=True) for lm in both)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in wanted]
    assert [score for score, _ in found] == pytest.approx([score for score, _ in wanted], rel=1e-4)
    assert len({round(score, 3) for score, _ in found}) > len(pairs) / 2
    settings = {"until": [" the", "\n"], "max_gen_toks": 8, "do_sample": False}
    prompts = [(doc["context"], settings) for doc in DOCS]
    found, wanted = (lm.generate_until(asked("generate_until", *prompts), disable_tqdm=True) for lm in both)
    if ours.backend == "seq2seq":  # theirs counts the prompt's tokens among the new ones, so it writes on
        wanted = [text[: len(own)] for text, own in zip(wanted, found)]
    assert found == wanted and any(found)
    if ours.backend == "causal":
        texts = [(doc["context"],) for doc in DOCS]  # one is longer than a row
        found, wanted = (lm.loglikelihood_rolling(asked("loglikelihood_rolling", *texts), disable_tqdm=True)
                         for lm in both)  # fmt: skip
        assert found == pytest.approx(wanted, rel=1e-4)


def test_a_local_task_end_to_end(both, tmp_path):
    if both[0].backend == "seq2seq":
        pytest.skip("one shape is enough")
    (tmp_path / "docs.jsonl").write_text("\n".join(map(json.dumps, DOCS)))
    for name, text in TASKS.items():
        files = f"{{data_files: {{test: {tmp_path / 'docs.jsonl'}}}}}"
        header = f"task: {name}\ndataset_path: json\ndataset_kwargs: {files}\ntest_split: test\n"
        (tmp_path / f"{name}.yaml").write_text(header + text)
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    found, wanted = (lm_eval.simple_evaluate(lm, tasks=list(TASKS), task_manager=manager, bootstrap_iters=0)["results"]
                     for lm in both)  # fmt: skip
    for name in TASKS:
        numbers = {key: value for key, value in wanted[name].items() if isinstance(value, float)}
        assert numbers and {key: found[name][key] for key in numbers} == pytest.approx(numbers, rel=1e-4)


def test_what_is_refused(both):
    ours, _ = both
    with pytest.raises(ValueError, match="takes no 'num_beams'"):
        ours.generate_until(asked("generate_until", ("a", {"num_beams": 4})))
    with pytest.raises(ValueError, match="leave no room for a prompt in 40"):
        HarnessLM(_causal(ours), max_length=40).generate_until(asked("generate_until", ("a", {})))
    with pytest.raises(ValueError, match="needs a CausalLM or a Seq2SeqLM with a tokenizer"):
        HarnessLM(_causal(ours).backbone)


def _causal(ours):
    return ours.model if ours.backend == "causal" else pytest.skip("prompts of an encoder leave room")
