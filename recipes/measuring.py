"""What the recipes that measure share: a model's predictions on examples, their measures with intervals, a picture.

It knows the tasks of `zoo.data.examples`, and no flags.
"""

import json

import numpy as np

import zoo
from zoo.checkpoint import write_text

KINDS = {  # task of `zoo.data.examples`: the class, its measures in `zoo.metrics`
    "classify": ("TextClassifier", "classification"),
    "tag": ("TokenClassifier", "tagging"),
    "answer": ("QuestionAnswerer", "question_answering"),
    "choose": ("MultipleChoice", "multiple_choice"),
    "embed": ("TextEmbedder", "similarity"),
    "relate": ("RelationClassifier", "classification"),
    "seq2seq": ("Seq2SeqLM", "summarisation"),
    "instruct": ("CausalLM", "language_modelling"),
    "prefer": ("PreferenceLM", "multiple_choice"),
}


def measure(model, task, part, kind=None, samples=1000, seed=0, **options):
    """(measures, records with a prediction each, predictions, references) of a model on `Examples`.

    Args:
        model: of the class in `KINDS`.
        task: one of `KINDS`.
        part: `zoo.data.Examples`.
        kind: the name of other measures in `zoo.metrics.TASKS`.
        samples, seed: of the bootstrap.
        options: for the prediction of the task.
    """
    said, true, more = _PREDICT[task](model, part, **options)
    kind = kind or _kind(model, task, part)
    measures = zoo.metrics.measure(kind, said, true, samples=samples, seed=seed)
    if kind == "classification" and more is not None:
        found = zoo.metrics.bootstrap(zoo.metrics.calibration_error, more, true, samples=samples, seed=seed)
        measures["calibration_error"] = found._asdict()
    if kind == "summarisation":
        measures["rougeL_of_lead"] = _lead(part, samples, seed)
    if task == "instruct":
        said = [-float(row.mean()) for row in said]
    inputs = zip(*part.x) if isinstance(part.x, tuple) else part.x
    records = [{"input": x, "prediction": a, "reference": b} for x, a, b in zip(inputs, said, true)]
    return measures, records, said, true


def _lead(part, samples, seed):
    """ROUGE-L of the first words of each source, which a summary has to beat; of a few numbers the best one counts."""
    usual = np.median([len(text.split()) for text in part.y])

    def leads(times):
        return [" ".join(text.split()[: round(times * usual)]) for text in part.x]

    best = max(map(leads, (1, 1.5, 2, 3)), key=lambda said: zoo.metrics.rouge(said, part.y)["rougeL"])
    return zoo.metrics.measure("summarisation", best, part.y, samples, seed)["rougeL"]


def _kind(model, task, part):
    if task == "classify":
        return {"multi_label_classification": "multi_label", "regression": "regression"}.get(
            model.problem_type, "classification")  # fmt: skip
    return "multiple_choice" if task == "embed" and part.y is None else KINDS[task][1]


def _classify(model, part, batch_size):
    found = model.classify(part.x, batch_size=batch_size)
    if model.problem_type == "regression":
        return [next(iter(row.values())) for row in found], part.y, None
    if model.problem_type == "multi_label_classification":
        return [[label for label, share in row.items() if share > 0.5] for row in found], part.y, None
    return [max(row, key=row.get) for row in found], part.y, found


def _tag(model, part, batch_size):
    """A word that was cut off has no entity, or a tag that is never right."""
    absent = "O" if "O" in model.labels else "?"
    return [[tag or absent for tag in tags] for tags in model.tag(part.x, batch_size=batch_size)], part.y, None


def _answer(model, part, batch_size):
    found = model.answer(*part.x, no_answer=not all(part.y), batch_size=batch_size)
    texts = [[context[start:end] for start, end in spans] for context, spans in zip(part.x[1], part.y)]
    return [one["answer"] for one in found], texts, None


def _choose(model, part, batch_size):
    return model.choose(*part.x, batch_size=batch_size), part.y, None


def _embed(model, part, batch_size):
    """Cosines of pairs; without scores, which second text is nearest to each first one."""
    first, second = (model.embed(texts, batch_size=batch_size, normalize=True) for texts in part.x[:2])
    if part.y is not None:
        return (first * second).sum(axis=1).tolist(), part.y, None
    return (first @ second.T).argmax(axis=1).tolist(), list(range(len(first))), None


def _seq2seq(model, part, batch_size, **generation):
    return model.generate(part.x, batch_size=batch_size, **generation), part.y, None


def _relate(model, part, batch_size):
    return [max(row, key=row.get) for row in model.relate(*part.x, batch_size=batch_size)], part.y, None


def _instruct(model, part, batch_size):
    """Log-likelihoods of the tokens of each conversation's answers, and these."""
    x, y, w = zoo.data.instructions(model.tokenizer, part.x, model.length_limit)
    slices, scores = [slice(i, i + batch_size) for i in range(0, len(y), batch_size)], []
    for at in slices:
        scores += model.log_likelihoods({key: value[at] for key, value in x.items()}, y[at], w[at])
    answers = ["".join(one["content"] for one in talk if one["role"] == "assistant") for talk in part.x]
    return scores, answers, None


def _prefer(model, part, batch_size):
    """Which of the two answers is likelier, 0 for the better one."""
    found = model.predict(model.inputs_of(part.x), batch_size=batch_size, verbose=0)
    return (found[:, 0] <= found[:, 1]).astype(int).tolist(), [0] * len(found), None


_PREDICT = {"classify": _classify, "tag": _tag, "answer": _answer, "choose": _choose, "embed": _embed,
            "relate": _relate, "seq2seq": _seq2seq, "instruct": _instruct, "prefer": _prefer}  # fmt: skip


def draw(output, task, said, true, title):
    """A picture of predictions beside references, where one tells something."""
    if task == "tag":
        said, true = ([tag for tags in side for tag in tags] for side in (said, true))
    if task in ("classify", "tag", "relate") and isinstance(true[0], str):
        zoo.metrics.plot_confusion(output / "confusion.png", said, true, title=title)
    elif task == "answer":
        scores = [zoo.metrics.squad([a], [b])["f1"] for a, b in zip(said, true)]
        zoo.metrics.plot_scores(output / "scores.png", scores, "F1 of an answer", title)
    elif task == "seq2seq":
        lengths = [len(a.split()) / max(1, len(b.split())) for a, b in zip(said, true)]
        zoo.metrics.plot_scores(output / "lengths.png", lengths, "words over true words", title)
    elif task in ("perplexity", "instruct"):
        zoo.metrics.plot_scores(output / "scores.png", said, "loss of a text (nats per token)", title)
    elif task in ("classify", "embed") and isinstance(true[0], float):
        zoo.metrics.plot_scores(output / "scores.png", np.subtract(said, true), "predicted - true", title)


def write(output, measures, records):
    """Writes metrics.json and predictions.jsonl."""
    write_text(output / "metrics.json", json.dumps(measures, indent=1) + "\n")
    lines = [json.dumps(record, ensure_ascii=False, default=float) for record in records]
    write_text(output / "predictions.jsonl", "\n".join([*lines, ""]))


def show(measures):
    """Prints the measures with their intervals."""
    for name, one in measures.items():
        if isinstance(one, dict):
            print(f"{name:<20}" + ("not defined" if None in one.values() else
                                   f"{one['value']:.4g}  [{one['low']:.4g}, {one['high']:.4g}]"))  # fmt: skip
