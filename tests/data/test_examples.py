"""Labelled files: every format gives the same examples, what is wrong with one is said with its place."""

import gzip
import json

import pytest

from zoo import data
from zoo.data.records import read

ROWS = [("a fine film", 'so "good"', "good"), ("a dull film", "so bad", "bad")]


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_every_format_gives_the_same_examples(tmp_path):
    records = [dict(zip(("text", "pair", "label"), row)) for row in ROWS]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    files = [
        written(tmp_path / "a.csv", 'text,pair,label\na fine film,"so ""good""",good\na dull film,so bad,bad\n'),
        written(tmp_path / "a.tsv", 'text\tpair\tlabel\na fine film\tso "good"\tgood\na dull film\tso bad\tbad\n'),
        written(tmp_path / "a.jsonl", lines), written(tmp_path / "a.json", json.dumps(records)),
        tmp_path / "a.jsonl.gz",
    ]  # fmt: skip
    for file in files:
        found = data.examples("classify", file)
        assert list(zip(*found.x, found.y)) == ROWS, file
    bare = written(tmp_path / "bare.tsv", "a fine film\tgood\na dull film\tbad\n")
    found = data.examples("classify", bare, {"text": 0, "label": 1})
    assert found.x == ["a fine film", "a dull film"] and found.places[1] == f"{bare}, line 2"


def test_datasets_give_names_of_classes(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    one = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    datasets.DatasetDict({"train": one}).save_to_disk(tmp_path / "saved")
    assert data.examples("classify", f"datasets:{tmp_path}/saved/train").y == ["yes", "no"]


CONLL = (
    "# a comment\n-DOCSTART- O\n\nAda\tNNP\tB-PER\nLovelace\tNNP\tI-PER\n#\tNN\tO\n\t\nmet\tVB\tO\nAlan\tNNP\tB-PER\n"
)


def test_conll(tmp_path):
    found = data.examples("tag", written(tmp_path / "a.conll", CONLL))
    assert found.x == [["Ada", "Lovelace", "#"], ["met", "Alan"]]
    assert found.y == [["B-PER", "I-PER", "O"], ["O", "B-PER"]]
    assert data.examples("tag", tmp_path / "a.conll", {"tags": 1}).y[1] == ["VB", "NNP"]
    assert data.label_names("tag", {"train": found}) == ("O", "B-PER", "I-PER")


def squad(start=7, text="sat"):
    qas = [{"id": "1", "question": "what?", "answers": [{"text": text, "answer_start": start}]},
           {"id": "2", "question": "who?", "answers": [], "is_impossible": True}]  # fmt: skip
    return json.dumps({"data": [{"title": "t", "paragraphs": [{"context": "the cat sat", "qas": qas}]}]})


def test_squad(tmp_path):
    found = data.examples("answer", written(tmp_path / "a.json", squad(8)))
    assert found.x == (["what?", "who?"], ["the cat sat"] * 2) and found.y == [[(8, 11)], []]


def test_spans_of_relations(tmp_path):
    marked = "<e1>Ada</e1> wrote the <e2>notes</e2>"
    line = {"text": "Ada wrote the notes", "head": [0, 3], "tail": "14:19", "label": "author"}
    one = data.examples("relate", written(tmp_path / "a.jsonl", json.dumps(line)))
    other = data.examples("relate", written(tmp_path / "b.jsonl", json.dumps({"text": marked, "label": "author"})))
    assert one.x == other.x == (["Ada wrote the notes"], [(0, 3)], [(14, 19)])


def test_conversations(tmp_path):
    line = json.dumps({"instruction": "Add.", "input": "1 1", "output": "2", "chosen": "2", "rejected": "3"})
    file = written(tmp_path / "a.jsonl", line)
    [messages] = data.examples("instruct", file).x
    assert messages == [{"role": "user", "content": "Add.\n\n1 1"}, {"role": "assistant", "content": "2"}]
    assert data.examples("prefer", file).x == (["Add.\n\n1 1"], ["2"], ["3"])


REFUSED = {  # the task, a file's name and content, the columns, what is said
    "no column": ("classify", "a.csv", "text,gold\na,b\n", {}, r"a.csv has no column 'label', only 'text', 'gold'\."),
    "unknown column": ("classify", "a.csv", "text,gold\na,b\n", {"labl": "gold"},
                       "no column 'labl'; it has text, pair"),
    "empty": ("classify", "a.csv", "", {}, "a.csv is empty"),
    "names alone": ("classify", "a.csv", "text,label\n", {}, "a.csv is empty"),
    "ragged": ("classify", "a.tsv", "text\tlabel\na\tb\tc\n", {}, "line 2 has 3 columns, the first has 2"),
    "no label": ("classify", "a.csv", "text,label\na,x\nb,\n", {}, "line 3: label must be a label, got ''"),
    "no JSON": ("classify", "a.jsonl", '{"text": "a"\n', {}, "line 1 is no JSON"),
    "no list": ("classify", "a.json", '{"text": "a"}', {}, "neither a list of objects nor SQuAD"),
    "suffix": ("classify", "a.docx", "x", {}, r"a.docx is none of .csv, .tsv"),
    "span": ("answer", "a.json", squad(7), {},
             "question '1': the answer 'sat' is not at character 7 .* where ' sa' is"),
    "span outside": ("answer", "a.json", squad(99), {}, "is not at character 99 of its context of 11"),
    "tags": ("tag", "a.jsonl", '{"words": ["a", "b"], "tags": ["O"]}', {}, "line 1 has 2 words, but 1 tags"),
    "choice": ("choose", "a.jsonl", '{"context": "a", "choices": ["b"], "label": 1}', {}, "one of the 1 choices"),
    "entity": ("relate", "a.jsonl", '{"text": "ab", "head": [0, 1], "tail": [1, 3], "label": "x"}', {},
               r"tail must be a span inside the text of 2 characters, got \(1, 3\)"),
    "marks": ("relate", "a.jsonl", '{"text": "<e1>a</e1>", "label": "x"}', {}, "a text with <e1>"),
    "number": ("embed", "a.csv", "first,second,score\na,b,high\n", {}, "score must be a number, got 'high'"),
    "unanswered": ("instruct", "a.jsonl", '{"messages": [{"role": "user", "content": "a"}]}', {},
                   "of the role 'assistant'"),
}  # fmt: skip


@pytest.mark.parametrize(("task", "name", "text", "columns", "message"), REFUSED.values(), ids=REFUSED)
def test_refuses(task, name, text, columns, message, tmp_path):
    file = written(tmp_path / name, text)
    with pytest.raises(ValueError, match=message) as found:
        data.examples(task, file, columns)
    assert name in str(found.value) or "unknown" in str(found.value) or columns


def made(labels):
    return data.Examples([""] * len(labels), labels, [f"line {i}" for i in range(len(labels))], [""] * len(labels))


@pytest.mark.parametrize(("task", "train", "other", "message"), [
    ("classify", ["a", "a"], ["a"], "only the label 'a': one class leaves nothing to tell apart"),
    ("classify", ["a", "b"], ["a", "c"], r"line 1 \(test\) has the label 'c', .* those have 'a', 'b'\."),
    ("tag", [["B-X", "I-X", "O"]], [["B-X", "E-X", "O"]], "line 0: the tag 'E-X' is of the scheme IOBES, not BIO"),
    ("tag", [["B-X", "U-X", "O"]], [["O"]], "is of the scheme BILOU"),
    ("tag", [["O", "I-X"], ["B-X"]], [["O"]], "line 0: 'I-X' follows 'O'; in BIO .* such as IOB1"),
    ("tag", [["B-X", "X"]], [["O"]], "'X' has no B- or I- before it"),
    ("tag", [["NN", "VB"]], [["JJ"]], "has the label 'JJ'"),
])  # fmt: skip
def test_refuses_labels(task, train, other, message):
    with pytest.raises(ValueError, match=message):
        data.label_names(task, {"train": made(train), "test": made(other)})


def test_a_paragraph_stays_on_one_side(shared_data):
    found = data.examples("answer", shared_data / "xquad" / "xquad.en.json")
    rest, held = found.split(0.2)
    assert not set(rest.x[1]) & set(held.x[1]) and len(rest) + len(held) == 1190 and 119 < len(held) < 357
    assert found.split(0.2)[1].x == held.x


def test_reads_what_repositories_hold(shared_data):
    parts = {name: data.examples("tag", shared_data / "wnut17" / f"{name}") for name in (
        "wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated")}  # fmt: skip
    assert [sum(map(len, part.x)) for part in parts.values()] == [62730, 15733, 23394]
    assert len(data.label_names("tag", parts)) == 13
    scored = data.examples("classify", shared_data / "stsb" / "stsb-en-dev.csv", {"text": 0, "pair": 1, "label": 2},
                           "regression")  # fmt: skip
    assert len(scored) == 1500 and scored.y[:2] == [5.0, 4.75]


def test_an_unknown_file_and_split(tmp_path):
    with pytest.raises(ValueError, match="There is no file"):
        read(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="leaves nothing on one side"):
        made(["a", "b"]).split(0.5)
