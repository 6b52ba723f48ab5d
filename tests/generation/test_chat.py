"""Chat templates against `transformers`, on templates in the styles of published models."""

import json
import sys

import pytest

import zoo

TEMPLATES = {
    "chatml": "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' "
    "+ message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}",
    "inst": "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] | trim + ' [/INST]' }}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}",
    "blocks": """{%- if tools %}
    {{- 'Tools: ' + (tools | tojson) }}
{%- endif %}
{%- set ns = namespace(count=0) %}
{%- for message in messages %}
    {%- if message.role == 'skip' %}
        {%- continue %}
    {%- endif %}
    {%- set ns.count = ns.count + 1 %}
    {% generation %}{{ ns.count }} {{ message.content | upper }}{% endgeneration %}
{%- endfor %}
{% if add_generation_prompt %}answer:
{% endif %}
""",
}
ASKED = [{"role": "user", "content": " Name a colour <b>. "}, {"role": "assistant", "content": "Blue."},
         {"role": "user", "content": "Another – 東?"}]  # fmt: skip


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A tokenizer with the tokens of the templates."""
    path = tmp_path_factory.mktemp("chat")
    roles = {"bos": "<s>", "eos": "<|im_end|>"}
    tokenizer = zoo.Tokenizer.train(["Name a colour. Blue."], vocabulary_size=300, special_tokens=roles)
    tokenizer.add_tokens(["<|im_start|>"])
    tokenizer.save(path)
    return path


def with_template(directory, tmp_path, template, file=False):
    tokenizer = zoo.Tokenizer.from_preset(directory)
    tokenizer.save(tmp_path)
    if file:
        (tmp_path / "chat_template.jinja").write_text(template)
    else:
        settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": template}))
    return zoo.Tokenizer.from_preset(tmp_path)


@pytest.mark.parametrize("file", [False, True])
@pytest.mark.parametrize("name", TEMPLATES)
def test_equals_transformers(name, file, directory, tmp_path):
    transformers = pytest.importorskip("transformers")
    ours = with_template(directory, tmp_path, TEMPLATES[name], file)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    tools = [{"type": "function", "function": {"name": "f", "description": "a < b & c"}}]
    for prompt in (True, False):
        for given in ({}, {"tools": tools}):
            expected = theirs.apply_chat_template(ASKED, tokenize=False, add_generation_prompt=prompt, **given)
            assert ours.apply_chat_template(ASKED, add_generation_prompt=prompt, **given) == expected
    ids = theirs.apply_chat_template(ASKED, add_generation_prompt=True, return_dict=False)
    assert ours.encode(ours.apply_chat_template(ASKED), add_special_tokens=False) == ids


def test_one_of_several_templates(directory, tmp_path):
    several = [{"name": "rag", "template": "no"}, {"name": "default", "template": TEMPLATES["chatml"]}]
    ours = with_template(directory, tmp_path, several)
    assert ours.apply_chat_template(ASKED).startswith("<|im_start|>system\nYou are helpful.")


@pytest.mark.backends
def test_chat_answers(directory, tmp_path):
    tokenizer = with_template(directory, tmp_path, TEMPLATES["chatml"])
    lm = zoo.CausalLM(zoo.LlamaBackbone(vocabulary_size=tokenizer.vocabulary_size, num_layers=1, num_heads=2,
                                        hidden_dim=16, intermediate_dim=32), tokenizer)  # fmt: skip
    answer = tokenizer.encode("Blue.<|im_end|>", add_special_tokens=False)
    forced = zoo.samplers.Greedy(allowed_tokens=lambda new: [answer[len(new)]])
    assert zoo.chat(lm, ASKED, sampler=forced, max_new_tokens=20) == "Blue."
    text = tokenizer.apply_chat_template(ASKED)
    whole = lm.generate({"token_ids": [tokenizer.encode(text, add_special_tokens=False)]}, 6, echo=False)
    assert zoo.chat(lm, ASKED, max_new_tokens=6) == tokenizer.decode(whole[0]).strip()


@pytest.mark.parametrize(
    ("template", "messages", "message"),
    [
        (None, ASKED, "no chat template"),
        (TEMPLATES["chatml"], [], "messages must be a list"),
        (TEMPLATES["chatml"], "hello", "messages must be a list"),
        (TEMPLATES["chatml"], [{"role": "user"}], "must be a dictionary with 'role' and 'content'"),
        (TEMPLATES["inst"], ASKED[1:], "refuses these messages: Roles must alternate"),
        ("{% for %}", ASKED, "The chat template refuses"),
        ("{{ messages.__class__.__mro__ }}", ASKED, "unsafe"),
        ("{{ ''.__class__.__base__.__subclasses__() }}", ASKED, "unsafe"),
        ("{{ messages.append(1) }}", ASKED, "unsafe"),
        ("{% include 'file' %}", ASKED, "The chat template refuses"),
        ("{{ 1 / 0 }}", ASKED, "The chat template refuses"),
    ],
)
def test_refusals(template, messages, message, directory, tmp_path):
    ours = zoo.Tokenizer.from_preset(directory) if template is None else with_template(directory, tmp_path, template)
    with pytest.raises(ValueError, match=message):
        ours.apply_chat_template(messages)


def test_without_jinja(directory, tmp_path, monkeypatch):
    ours = with_template(directory, tmp_path, TEMPLATES["inst"])
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r"pip install keras-zoo\[chat\]"):
        ours.apply_chat_template(ASKED)
