"""recipes/generate.py from the command line."""

import pytest


def model(preset, name="CausalLM"):
    import zoo

    return getattr(zoo, name).from_preset(preset)


@pytest.mark.backends
def test_prints_what_generate_returns(pretrained, recipe):
    preset = pretrained("gpt2")[0] / "preset"
    prompts = ["Return the", "A list of"]
    done = recipe("generate", f"--preset={preset}", *(f"--prompt={p}" for p in prompts), "--max_new_tokens=12")
    lm = model(preset)
    assert done.stdout == "".join(f"{lm.generate(prompt, 12)}\n\n" for prompt in prompts)


def test_samples_by_its_seed(pretrained, recipe):
    import zoo

    preset = pretrained("gpt2")[0] / "preset"
    flags = (f"--preset={preset}", "--prompt=Return the", "--max_new_tokens=12", "--seed=3", "--temperature=0.9")
    lm = model(preset)
    for extra, sampler in (("--top_p=0.9", zoo.samplers.TopP(0.9, 0.9)), ("--top_k=5", zoo.samplers.TopK(5, 0.9))):
        expected = lm.generate("Return the", 12, sampler, seed=3)
        assert recipe("generate", *flags, extra).stdout == f"{expected}\n\n"
    assert expected != lm.generate("Return the", 12)


def test_reads_files_and_encoder_decoders(pretrained, recipe, tmp_path):
    preset = pretrained("bart")[0] / "preset"
    (tmp_path / "prompts.txt").write_text("one name\ntwo names\n")
    done = recipe("generate", f"--preset={preset}", f"--file={tmp_path / 'prompts.txt'}", "--max_new_tokens=5")
    assert done.stdout == "".join(f"{text}\n\n" for text in model(preset, "Seq2SeqLM").generate(["one name", "two names"], 5))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--preset is missing"),
        (["--preset=gpt9", "--prompt=a"], "No preset 'gpt9'"),
        (["--preset=gpt2", "--top_k=3", "--top_p=0.5"], "exclude each other"),
        (["--preset=gpt2", "--prompt=a", "--file=b"], "exclude each other"),
        (["--preset=gpt2", "--file=no-such-file"], "no-such-file"),
        (["--preset=gpt2", "--temperature=-1"], "temperature"),
        (["--preset=gpt2", "--unknown"], "unknown"),
    ],
)
def test_refuses_in_one_sentence(flags, message, recipe):
    done = recipe("generate", *flags, check=False)
    assert done.returncode in (1, 2) and message in done.stderr and "Traceback" not in done.stderr


def test_refuses_an_encoder(pretrained, recipe):
    done = recipe("generate", f"--preset={pretrained('bert')[0] / 'preset'}", "--prompt=a", check=False)
    assert done.returncode == 1 and "is an encoder" in done.stderr
