"""Which tokens of a conversation are an answer's, against transformers; packed rows are their conversations."""

import numpy as np
import pytest

import zoo
from zoo import data
from zoo.tokenizers.chat import PLAIN

TEXTS = ["Add one and one.", "Two.", "Say it in French, please.", "Deux, mon ami.", "Why?", "Because."]
TALKS = [
    [{"role": "user", "content": TEXTS[0]}, {"role": "assistant", "content": TEXTS[1]},
     {"role": "user", "content": TEXTS[2]}, {"role": "assistant", "content": TEXTS[3]}],
    [{"role": "system", "content": "Be short."}, {"role": "user", "content": TEXTS[4]},
     {"role": "assistant", "content": TEXTS[5]}],
    [{"role": "user", "content": TEXTS[4]}, {"role": "assistant", "content": TEXTS[1]}],
]  # fmt: skip
# What they mark for training stands between the tags.
MARKED = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer():
    pytest.importorskip("jinja2")
    made = zoo.Tokenizer.train(TEXTS, kind="bpe", vocabulary_size=300)
    made.add_tokens(["<|im_start|>", "<|im_end|>"])
    made.set_chat_template(MARKED)
    return made


def test_answers_are_those_that_transformers_marks(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for talk in TALKS:
        expected = theirs.apply_chat_template(talk, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
        ids, marks = data.answers_marked(tokenizer, talk)
        assert ids == expected["input_ids"] and [int(mark) for mark in marks] == expected["assistant_masks"]
        assert 0 < sum(marks) < len(marks) - 5


def test_the_plain_template_marks_the_answer_and_its_end(tokenizer):
    plain = zoo.Tokenizer.train(TEXTS, kind="bpe", vocabulary_size=300)
    plain.set_chat_template(PLAIN)
    ids, marks = data.answers_marked(plain, TALKS[0])
    said = plain.decode([i for i, mark in zip(ids, marks) if mark], skip_special_tokens=False)
    end = plain.id_to_token(plain.eos_id)
    assert said == f"Two.{end}Deux, mon ami.{end}"


def test_labels_are_the_next_tokens_of_answers_alone(tokenizer):
    x, y, w = data.instructions(tokenizer, TALKS, 200)
    for row, talk in enumerate(TALKS):
        ids, marks = data.answers_marked(tokenizer, talk)
        assert x["token_ids"][row, : len(ids)].tolist() == ids and x["padding_mask"][row].sum() == len(ids)
        assert y[row, : len(ids) - 1].tolist() == ids[1:]
        assert w[row].tolist() == [float(mark) for mark in marks[1:]] + [0.0] * (w.shape[1] - len(ids) + 1)


@pytest.mark.backends
def test_packed_equals_alone(tokenizer):
    """The same tokens with the same weights, and the same loss for each of them."""
    alone, packed = (data.instructions(tokenizer, TALKS, 150, packed) for packed in (False, True))
    assert len(packed[1]) < len(alone[1]) == 3 and packed[0]["segment_ids"].max() > 1
    assert packed[2].sum() == alone[2].sum()
    sizes = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 32}
    lm = zoo.CausalLM(zoo.LlamaBackbone(vocabulary_size=tokenizer.vocabulary_size, **sizes), tokenizer)
    scores = [np.sort(np.concatenate(lm.log_likelihoods(*arrays))) for arrays in (alone, packed)]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)
    losses = [lm.evaluate(x, y, sample_weight=w, batch_size=3, verbose=0)[0] for x, y, w in (alone, packed)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_what_is_cut_before_its_answer_is_told(tokenizer):
    lengths = [len(data.answers_marked(tokenizer, talk)[0]) for talk in TALKS]
    short = [talk for talk, length in zip(TALKS, lengths) if length < max(lengths)]
    most = max(length for length in lengths if length < max(lengths))
    assert data.answered(tokenizer, TALKS, 500) == [0, 1, 2] and data.answered(tokenizer, TALKS, 4) == []
    assert len(data.answered(tokenizer, short, most)) == 2


def test_refuses(tokenizer):
    with pytest.raises(ValueError, match="Example 0 has no answer within max_length=4 tokens, and so have 3"):
        data.instructions(tokenizer, TALKS, 4)
    forgetful = zoo.Tokenizer.train(TEXTS, kind="bpe", vocabulary_size=300)
    forgetful.set_chat_template("{{ messages[-1]['content'] }}")
    with pytest.raises(ValueError, match="writes a message otherwise once others follow"):
        data.answers_marked(forgetful, TALKS[0])
