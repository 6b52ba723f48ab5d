"""The loader: batches are a function of (store, seed, step), an epoch has everything once, and `fit` takes them."""

import collections
import hashlib
import itertools
import math
import subprocess
import sys

import numpy as np
import pytest

from zoo import data


def digest(batch):
    x, y, w = batch
    hashed = hashlib.sha256()
    for name, array in [*sorted(x.items()), ("y", y), ("w", w)]:
        hashed.update(name.encode() + str((array.dtype, array.shape)).encode() + np.ascontiguousarray(array).tobytes())
    return hashed.hexdigest()


OBJECTIVES = [data.CausalLM(), data.MaskedLM(), data.SpanCorruption(), data.BARTDenoising()]
OTHERS = [data.PrefixLM(), data.UL2(), data.FillInTheMiddle(), data.ReplacedTokenDetection(), data.NextSentence(),
          data.SentenceOrder(), data.PermutationLM(),
          data.Mixture((data.SpanCorruption(), data.PrefixLM()))]  # fmt: skip


@pytest.fixture
def documents(rng):
    return [rng.integers(44, 1000, rng.integers(1, 120)).tolist() for _ in range(400)]


@pytest.fixture
def load(specials, as_texts, documents):
    def load(objective=None, tokenizer=specials, texts=documents, **options):
        options = {"sequence_length": 64, "batch_size": 8} | options
        return data.pretraining(as_texts(texts), tokenizer, objective, progress=False, **options)

    return load


@pytest.mark.parametrize("packing", ["concatenate", "best_fit"])
@pytest.mark.parametrize("objective", OBJECTIVES + OTHERS, ids=lambda one: type(one).__name__)
def test_shapes_and_types(load, objective, packing):
    loader = load(objective, packing=packing)
    for x, y, w in (loader.batch(0), loader.batch(10**9), loader.validation.batch(len(loader.validation) - 1)):
        assert x["token_ids"].shape == x["segment_ids"].shape == x["positions"].shape == (8, 64)
        assert {array.dtype.name for array in (*x.values(), y)} == {"int32"} and w.dtype == "float32"
        assert y.shape == w.shape and set(np.unique(w)) <= {0, 1}
        if "decoder_token_ids" in x:
            assert x["decoder_token_ids"].shape == x["decoder_segment_ids"].shape == y.shape
    assert loader.tokens_per_batch == 8 * (64 + (y.shape[1] if "decoder_token_ids" in x else 0))


@pytest.mark.parametrize("packing", ["concatenate", "best_fit"])
def test_an_epoch_has_every_token_once(numbers, as_texts, packing):
    """Every id is used once in the corpus, so rows can be checked against it."""
    cuts = np.sort(np.random.default_rng(0).choice(np.arange(1, 70000), 900, replace=False))
    documents = [part.tolist() for part in np.split(np.arange(70000), cuts)]
    tokenizer = numbers(70001, eos_id=70000)
    loader = data.pretraining(
        as_texts(documents), tokenizer, sequence_length=64, batch_size=4, validation_share=0.1, packing=packing
    )
    training, held_out = [], []
    for epoch in (0, 1):
        x = np.concatenate([np.append(row["token_ids"], y[-1:]) for row, y, _ in _rows(loader, epoch)])
        training.append(x[x < 70000])
    for x, _, _ in loader.validation:
        held_out.append(x["token_ids"][(x["segment_ids"] > 0) & (x["token_ids"] < 70000)])
    held_out = set(np.concatenate(held_out).tolist())
    for epoch in training:
        epoch = epoch[epoch > 0] if packing == "best_fit" else epoch  # 0 is an id, and here also the padding
        assert len(np.unique(epoch)) == len(epoch)
        assert not held_out & set(epoch.tolist())
    missing = 70000 - len(held_out) - len(training[0])
    assert missing < 65 + len(loader.validation.store)  # the tail of an epoch, and last tokens that have no successor
    assert not np.array_equal(training[0], training[1])
    of_token = np.repeat(np.arange(len(documents)), [len(one) for one in documents])
    assert not {of_token[i] for i in held_out} & {of_token[i] for i in training[0]}


def _rows(loader, epoch):
    return [loader.row(epoch, index) for index in range(loader.rows)]


def test_rows_show_documents_in_their_frame(specials, load):
    short = {"batch_size": 1, "packing": "best_fit"}
    x, y, w = load(texts=[[50, 51]] * 9, sequence_length=8, **short).row(0, 0)
    assert x["token_ids"].tolist() == [1, 50, 51, 2, 1, 50, 51, 2]  # bos, document, eos; twice
    assert x["segment_ids"].tolist() == [1, 1, 1, 1, 2, 2, 2, 2]
    assert x["positions"].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
    assert w.tolist() == [1, 1, 1, 0, 1, 1, 1, 0] and y[w > 0].tolist() == [50, 51, 2, 50, 51, 2]
    x, _, _ = load(data.MaskedLM(rate=0.01), texts=[[50, 51, 52]] * 9, sequence_length=9, **short).row(0, 0)
    assert x["segment_ids"].tolist() == [1, 1, 1, 1, 1, 2, 2, 2, 2]  # bos, document, eos; document, eos
    assert x["positions"].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3]
    assert x["token_ids"][[0, 4, 8]].tolist() == [1, 2, 2]


@pytest.mark.parametrize("packing", ["concatenate", "best_fit"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_restart_at_any_step_gives_the_same_batches(load, objective, packing):
    steps = 60  # more than an epoch
    known = [digest(load(objective, packing=packing).batch(step)) for step in range(steps)]
    assert len(set(known)) == steps
    places = np.random.default_rng(0)
    for _ in range(50):
        start = int(places.integers(steps - 3))
        loader = load(objective, packing=packing)
        assert [digest(loader.batch(step)) for step in range(start, start + 3)] == known[start : start + 3]
    resumed = list(load(objective, packing=packing).iterate(17, 30, threads=3))
    assert [digest(batch) for batch in resumed] == known[17:30]
    assert digest(load(objective, packing=packing, seed=1).batch(0)) != known[0]


@pytest.mark.parametrize("packing", ["concatenate", "best_fit"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_stream_stopped_fifty_times_is_the_stream(load, objective, packing):
    """A run that dies at random steps, each time with batches made ahead, and goes on with any number of workers."""
    whole = [digest(batch) for batch in load(objective, packing=packing).iterate(0, 200, threads=1)]
    assert len(set(whole)) == len(whole)
    draws, loader = np.random.default_rng(1), load(objective, packing=packing)
    stops = [0, *np.sort(draws.choice(np.arange(1, 200), 50, replace=False)).tolist(), 200]
    seen = []
    for start, stop in itertools.pairwise(stops):
        stream = loader.iterate(start, threads=int(draws.integers(0, 6)), prefetch=int(draws.integers(1, 12)))
        seen += [digest(batch) for batch in itertools.islice(stream, stop - start)]
        stream.close()
    assert seen == whole


@pytest.mark.parametrize("packing", ["concatenate", "best_fit"])
def test_a_run_goes_on_with_another_number_of_processes(load, packing):
    """12 rows a batch on 4, 2, 1, 3 and 4 processes: the rows of one process, in the same global order."""
    options = {"batch_size": 12, "packing": packing}
    rows = lambda loader, step: [digest(({"x": x}, y, w)) for x, y, w in zip(*_arrays(loader.batch(step)))]  # noqa: E731
    alone = load(data.MaskedLM(), **options)
    whole = [rows(alone, step) for step in range(25)]
    assert len(set(itertools.chain(*whole))) == 25 * 12  # no row is lost or loaded twice
    for first, count in enumerate((4, 2, 1, 3, 4)):
        parts = [load(data.MaskedLM(), process_index=i, process_count=count, **options) for i in range(count)]
        for step in range(5 * first, 5 * first + 5):
            slices = [rows(part, step) for part in parts]
            assert {len(one) for one in slices} == {12 // count}
            assert list(itertools.chain(*slices)) == whole[step]


def _arrays(batch):
    x, y, w = batch
    return np.concatenate([x[name] for name in sorted(x)], axis=1), y, w


@pytest.mark.parametrize("objective", OTHERS, ids=lambda one: type(one).__name__)
def test_batches_can_be_had_in_any_order_again(load, objective):
    known = [digest(load(objective).batch(step)) for step in range(6)]
    assert len(set(known)) == 6
    assert [digest(batch) for batch in load(objective).iterate(2, 6, threads=3)] == known[2:]


def test_row_and_batch_agree_across_the_end_of_an_epoch(load):
    loader = load(data.MaskedLM())
    assert loader.rows % 8
    step = len(loader)  # this batch holds the end of epoch 0 and the beginning of epoch 1
    x, y, w = loader.batch(step)
    for place, (epoch, index) in enumerate(loader.rows_of(step)):
        assert (epoch, index) == divmod(step * 8 + place, loader.rows)
        one, label, weight = loader.row(epoch, index)
        assert all(np.array_equal(one[key], x[key][place]) for key in x)
        assert np.array_equal(label, y[place]) and np.array_equal(weight, w[place])
    assert {divmod(step * 8 + place, loader.rows)[0] for place in range(8)} == {0, 1}


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_one_global_batch(load, count):
    whole = load(data.SpanCorruption())
    parts = [load(data.SpanCorruption(), process_index=index, process_count=count) for index in range(count)]
    for loader, slices in ((whole, parts), (whole.validation, [part.validation for part in parts])):
        for step in (0, len(loader) - 1):
            x, _y, w = loader.batch(step)
            got = [part.batch(step) for part in slices]
            assert all(np.array_equal(np.concatenate([one[0][key] for one in got]), x[key]) for key in x)
            assert np.array_equal(np.concatenate([one[2] for one in got]), w)
    assert whole.unigram_perplexity() == parts[0].unigram_perplexity()


def test_validation_is_fixed_finite_and_whole(load):
    validation = load(data.CausalLM(), packing="best_fit", batch_size=9).validation
    assert len(validation) == math.ceil(validation.rows / 9) and validation.validation is None
    first, second = ([digest(batch) for batch in validation] for _ in range(2))
    assert first == second and len(first) == len(validation)
    with pytest.raises(IndexError, match="no batch"):
        validation.batch(len(validation))
    x, _, w = validation.batch(len(validation) - 1)
    missing = len(validation) * 9 - validation.rows
    assert missing and (w[-missing:] == 0).all() and (x["segment_ids"][-missing:] == 0).all()


def test_unigram_perplexity_is_that_of_the_counts(load, numbers, documents):
    """Without special tokens and with no document split, the labels are all tokens but the first of each document."""
    short = [document[:60] for document in documents]
    loader = load(tokenizer=numbers(), texts=short, packing="best_fit", batch_size=1)
    training, held_out = (
        collections.Counter(
            token for start, stop in zip(*part) for token in loader.store.tokens[start + 1 : stop].tolist()
        )
        for part in loader.store.split(0.05)
    )
    total = sum(training.values())
    nats = sum(count * -math.log((training[token] + 1) / (total + 1000)) for token, count in held_out.items())
    assert loader.unigram_perplexity() == pytest.approx(math.exp(nats / sum(held_out.values())), rel=1e-9)


def test_same_batches_in_another_process_without_a_framework(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(f"line {i} of a text that says {i * i}" for i in range(300)))
    code = f"""
import sys
sys.path[:0] = {[str(path) for path in (tmp_path, *sys.path)]!r}
from tests.data.test_loader import digest
from tests.data.conftest import Numbers
class Bytes(Numbers):
    def encode(self, texts, add_special_tokens=False):
        return [list(text.encode()) for text in texts]
from zoo import data
loader = data.pretraining({str(tmp_path / "a.txt")!r}, Bytes(257, mask_id=256), data.MaskedLM(), 32, 4, split="line")
print(*[digest(loader.batch(step)) for step in (0, 1, 50)])
loaded = [name for name in ("keras", "jax", "tensorflow", "torch", "grain") if name in sys.modules]
assert not loaded, loaded
"""
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True) for _ in range(2)]
    assert not any(run.returncode for run in runs), runs[0].stderr
    assert runs[0].stdout == runs[1].stdout and len(runs[0].stdout.split()) == 3


def test_a_store_or_its_directory_is_a_source(load, specials, documents, as_texts, tmp_path):
    direct = load()
    store = data.prepare(as_texts(documents), specials, tmp_path / "store", progress=False)
    for source in (store, tmp_path / "store", str(tmp_path / "store")):
        again = data.pretraining(source, specials, sequence_length=64, batch_size=8)
        assert digest(again.batch(3)) == digest(direct.batch(3))


def test_what_cannot_be_loaded_is_refused(load, numbers):
    with pytest.raises(ValueError, match="packing='random'"):
        load(packing="random")
    with pytest.raises(ValueError, match="batch_size=4096 is more than the"):
        load(batch_size=4096)
    with pytest.raises(ValueError, match="batch_size=8 must be a positive multiple of process_count=3"):
        load(process_count=3)
    with pytest.raises(ValueError, match="process_index=2"):
        load(process_index=2, process_count=2)
    with pytest.raises(ValueError, match="seed=-1"):
        load(seed=-1)
    with pytest.raises(ValueError, match="sequence_length=0"):
        load(sequence_length=0)
    with pytest.raises(ValueError, match="objective='mlm' is no objective"):
        load("mlm")
    with pytest.raises(ValueError, match="batch_size=8 is more than the 0 rows"):
        load(texts=[[50]], packing="best_fit")
    with pytest.raises(ValueError, match="hold no text"):
        load(texts=[])
    with pytest.raises(ValueError, match="validation_share"):
        load(validation_share=0).unigram_perplexity()
    assert load(validation_share=0).validation is None


def test_fit_takes_the_loader(load):
    import keras

    loader, histories = load(), []
    validation = {"x": loader.validation.dataset(), "steps": len(loader.validation), "verbose": 0}
    for batches in (loader.dataset(), loader.iterate()):
        keras.utils.set_random_seed(0)
        names = ("token_ids", "segment_ids", "positions")
        inputs = {name: keras.Input((64,), dtype="int32", name=name) for name in names}
        model = keras.Model(inputs, keras.layers.Dense(1000)(keras.layers.Embedding(1000, 8)(inputs["token_ids"])))
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        history = model.fit(
            batches, steps_per_epoch=5, epochs=2, verbose=0, shuffle=False,
            validation_data=loader.validation.dataset(), validation_steps=len(loader.validation),
        ).history  # fmt: skip
        histories.append([*history["loss"], *history["val_loss"]])
        assert len(history["val_loss"]) == 2 and history["loss"][1] < history["loss"][0]
        assert history["val_loss"][1] == pytest.approx(model.evaluate(**validation), rel=1e-5)
    assert histories[0] == pytest.approx(histories[1], rel=1e-6)


@pytest.mark.backends
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda one: type(one).__name__)
def test_fit_sees_exactly_these_batches(load, objective):
    """A model that writes down what it is trained on, bit for bit, by the dataset and by the generator."""
    import keras

    class Recorder(keras.Model):
        def __init__(self):
            super().__init__()
            self.seen, self.bias = [], self.add_weight(shape=(), initializer="zeros")
            self.built = True  # else Keras calls it on no batch first

        def call(self, x):
            return self.bias + keras.ops.zeros(keras.ops.shape(x["token_ids"])[:1])

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            x, y, w = keras.tree.map_structure(keras.ops.convert_to_numpy, (x, y, sample_weight))
            self.seen.append(digest((x, y, w)))
            return keras.ops.sum(y_pred)

    loader = load(objective, packing="best_fit")
    start = len(loader) - 4  # so that an epoch ends among these steps
    known = [digest(loader.batch(step)) for step in range(start, start + 8)]
    for batches in (loader.dataset(start, threads=3), loader.iterate(start, threads=1)):
        model = Recorder()
        model.compile("sgd", run_eagerly=True)
        model.fit(batches, steps_per_epoch=4, epochs=2, shuffle=False, verbose=0)
        assert model.seen == known
