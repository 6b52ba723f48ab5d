"""recipes/generate.py from the command line."""

import functools
import json
import random
import shutil

import pytest

import zoo

uncompiled = functools.partial(pytest.param, marks=pytest.mark.uncompiled)
TEXTS = ["Return the value of a name.", "A list of names and values."]


@pytest.fixture(scope="module")
def presets(tmp_path_factory):
    """Presets of small random models, by task."""
    roles = {role: f"<{role}>" for role in ("bos", "pad", "eos", "unk", "mask")}
    tokenizer = zoo.Tokenizer.train(TEXTS, vocabulary_size=300, special_tokens=roles, template="bos_eos")
    size = {"vocabulary_size": tokenizer.vocabulary_size, "num_layers": 1, "num_heads": 2, "hidden_dim": 16,
            "intermediate_dim": 32, "max_sequence_length": 64, "initializer_range": 0.5}  # fmt: skip
    tokens = {f"{role}_token_id": getattr(tokenizer, f"{role}_id") for role in ("pad", "bos", "eos")}
    made = {}
    random.seed(0)  # which the initial weights are drawn from: not every model samples otherwise than it is greedy
    for task, backbone in (("CausalLM", "GPTBackbone"), ("Seq2SeqLM", "BARTBackbone"), ("MaskedLM", "BERTBackbone")):
        extra = {"decoder_start_token_id": tokens["bos_token_id"]} if task == "Seq2SeqLM" else {}
        made[task] = tmp_path_factory.mktemp("presets") / task
        model = getattr(zoo, task)(getattr(zoo, backbone)(**size, **tokens, **extra), tokenizer)
        model.save_to_preset(made[task])
    return made


@pytest.mark.backends
def test_prints_what_generate_returns(presets, recipe):
    prompts = ["Return the", "A list of"]
    flags = [f"--preset={presets['CausalLM']}", *(f"--prompt={p}" for p in prompts), "--max_new_tokens=12"]
    lm = zoo.CausalLM.from_preset(presets["CausalLM"])
    assert recipe("generate", *flags).stdout == "".join(f"{lm.generate(prompt, 12)}\n\n" for prompt in prompts)


@pytest.mark.parametrize(
    ("flags", "sampler"),
    [
        (("--top_p=0.9", "--temperature=0.9"), lambda: zoo.samplers.TopP(0.9, 0.9)),
        uncompiled(("--top_k=5", "--min_p=0.01"), lambda: zoo.samplers.TopK(5, min_p=0.01)),
        uncompiled(("--contrastive=0.9", "--top_k=3"), lambda: zoo.samplers.Contrastive(3, 0.9)),
    ],
)
def test_samples_by_its_seed(flags, sampler, presets, recipe):
    preset = presets["CausalLM"]
    done = recipe("generate", f"--preset={preset}", "--prompt=Return the", "--max_new_tokens=12", "--seed=3", *flags)
    lm = zoo.CausalLM.from_preset(preset)
    assert done.stdout == f"{lm.generate('Return the', 12, sampler(), seed=3)}\n\n"
    assert done.stdout != f"{lm.generate('Return the', 12)}\n\n"


@pytest.mark.uncompiled
def test_quantises_and_lets_a_draft_guess(presets, recipe):
    preset = presets["CausalLM"]
    flags = [f"--preset={preset}", f"--draft={preset}", "--quantize=int8", "--repetition_penalty=1.2"]
    done = recipe("generate", *flags, "--prompt=Return the", "--max_new_tokens=9")
    lm = zoo.CausalLM.from_preset(preset)
    lm.quantize("int8")
    assert done.stdout == f"{lm.generate('Return the', 9, zoo.samplers.Greedy(repetition_penalty=1.2))}\n\n"


@pytest.mark.uncompiled
def test_reads_files_for_encoder_decoders(presets, recipe, tmp_path):
    preset = presets["Seq2SeqLM"]
    (tmp_path / "prompts.txt").write_text("one name\ntwo values\n")
    done = recipe("generate", f"--preset={preset}", f"--file={tmp_path / 'prompts.txt'}", "--max_new_tokens=5")
    expected = zoo.Seq2SeqLM.from_preset(preset).generate(["one name", "two values"], 5)
    assert done.stdout == "".join(f"{text}\n\n" for text in expected)


@pytest.mark.uncompiled
def test_writes_json_lines(presets, recipe, tmp_path):
    """Batches of two, a beam, a progress bar, and no file left beside the result."""
    prompts = ["one name", "two values and more", "three"]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts))
    preset, output = presets["Seq2SeqLM"], tmp_path / "texts.jsonl"
    done = recipe("generate", f"--preset={preset}", f"--file={tmp_path / 'prompts.txt'}", "--max_new_tokens=5",
                  "--num_beams=3", "--batch_size=2", f"--output={output}")  # fmt: skip
    lines = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    beam = zoo.samplers.Beam(3)
    found = zoo.Seq2SeqLM.from_preset(preset).generate(prompts, 5, beam, details=True)
    assert [(line["prompt"], line["text"]) for line in lines] == [(p, f.text) for p, f in zip(prompts, found)]
    assert [line["score"] for line in lines] == pytest.approx([f.score for f in found], abs=1e-4)
    assert "3/3" in done.stderr and not list(tmp_path.glob(".*"))


@pytest.mark.uncompiled
def test_asks_on_standard_input(presets, recipe):
    flags = [f"--preset={presets['CausalLM']}", "--max_new_tokens=4", "--stop=value"]
    asked = recipe("generate", *flags, input="Return the\nA list of\n")
    given = recipe("generate", *flags, "--prompt=Return the", "--prompt=A list of")
    assert asked.stdout == given.stdout and given.stdout.startswith("Return the")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--preset is missing"),
        (["--preset=gpt9", "--prompt=a"], "No preset 'gpt9'"),
        (["--preset=gpt2", "--num_beams=3", "--top_p=0.5"], "exclude each other"),
        (["--preset=gpt2", "--temperature=0", "--top_p=0.5"], "leave out --top_p"),
        (["--preset=gpt2", "--prompt=a", "--file=b"], "exclude each other"),
        (["--preset=gpt2", "--file=no-such-file"], "no-such-file"),
        (["--preset=gpt2", "--prompt=a", "--output=no-such/file"], "is in no directory"),
        (["--preset=gpt2", "--temperature=-1"], "temperature"),
        (["--preset=gpt2", "--contrastive=0.5", "--top_p=0.9"], "--contrastive draws nothing"),
        (["--preset=gpt2", "--unknown"], "unknown"),
    ],
)
def test_refuses_in_one_sentence(flags, message, recipe):
    done = recipe("generate", *flags, check=False)
    assert done.returncode in (1, 2) and message in done.stderr and "Traceback" not in done.stderr


def test_refuses_an_encoder(presets, recipe):
    done = recipe("generate", f"--preset={presets['MaskedLM']}", "--prompt=a", check=False)
    assert done.returncode == 1 and "is an encoder" in done.stderr


@pytest.mark.uncompiled
def test_holds_a_conversation(presets, recipe, tmp_path):
    """The second answer is to both questions and the first answer."""
    preset = tmp_path / "chat"
    shutil.copytree(presets["CausalLM"], preset)
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    (preset / "chat_template.jinja").write_text(template)
    done = recipe("generate", f"--preset={preset}", "--chat", "--max_new_tokens=4", input="a value\na name\n")
    lm = zoo.CausalLM.from_preset(preset)
    messages, expected = [], ""
    for question in ("a value", "a name"):
        messages.append({"role": "user", "content": question})
        text = lm.tokenizer.apply_chat_template(messages)
        answer = lm.generate(text, 4, echo=False, add_special_tokens=False)
        expected += f"{answer}\n\n"
        messages.append({"role": "assistant", "content": zoo.chat(lm, messages, max_new_tokens=4)})
    assert done.stdout == expected
