"""Text to token store: documents are read, cleaned, tokenized by all cores, and duplicates taken out, in one stream.

The text is read once and never held: memory has a block of it, and 40 bytes for each document. What is known of the
documents together, such as who resembles whom, waits in files until the end. It knows no objective and no row.
"""

import collections
import dataclasses
import hashlib
import itertools
import json
import os
import shutil
import tempfile
import uuid
import weakref
from pathlib import Path

import numpy as np
from tqdm import tqdm

from zoo.data import sources as source_module
from zoo.data.characters import batches
from zoo.data.duplicates import Sketches, check_similarity, repeated
from zoo.data.store import FORMAT, Store

DEDUPLICATIONS = ("none", "exact", "near")
BLOCK = 1 << 20  # characters tokenized together: enough to keep every core of the tokenizer busy
PIECE = 1 << 17  # of a longer document, so that one alone is spread over cores and its tokens take little memory
_FACTS = np.dtype([("keys", "u8"), *((name, "i8") for name in ("tokens", "characters", "words", "bytes"))])


def prepare(
    sources,
    tokenizer,
    directory=None,
    cleaning=None,
    deduplicate="none",
    similarity=0.8,
    validation_share=None,
    progress=True,
):
    """Tokenizes text into a store, or opens the one already made of the same text in the same way.

    Args:
        sources: what `zoo.data.sources.open` takes, or what it returned.
        tokenizer: has `encode(list of texts, add_special_tokens=False)`, `vocabulary_size` and `fingerprint`.
        directory: where the store is kept. None = the cache (`$ZOO_CACHE`, else `~/.cache/keras-zoo`), where each
            combination of text, tokenizer and options has its own place and a damaged store is made again. A source
            that can be read only once is stored in a temporary directory.
        cleaning: a `zoo.data.Cleaning`; None = documents as they are, but those that give no token.
        deduplicate: "none"; "exact" keeps the first of equal documents; "near" the first of those that resemble each
            other, directly or through others.
        similarity: share of the words that near-duplicates have in common in place (see `zoo.data.duplicates`).
        validation_share: share of the documents that `pretraining` holds out where it is not told otherwise.
        progress: whether to show a progress bar.

    A document of more than 131,072 characters is tokenized in pieces, cut where white space begins, and stored as one.

    Returns: a `Store`; `zoo.data.summary(store)` says what became of the documents.

    Raises: ValueError for a source without text, options that cannot be, token ids outside the vocabulary, or a
        `directory` whose store is damaged or stale. Nothing is left half-written.

    >>> import tempfile
    >>> from zoo import Tokenizer, data
    >>> text = ["To be, or not to be.", "to be, or not to be", "That is the question."]
    >>> tokenizer = Tokenizer.train(text, kind="char")
    >>> store = prepare(data.texts(text), tokenizer, tempfile.mkdtemp(), deduplicate="near")
    >>> [tokenizer.decode(store.document(i)) for i in range(len(store))]
    ['To be, or not to be.', 'That is the question.']
    """
    _check(deduplicate, similarity, validation_share)
    source = source_module.open(sources)
    options = {
        "cleaning": cleaning and dataclasses.asdict(cleaning),
        "deduplicate": deduplicate,
        "similarity": similarity if deduplicate == "near" else None,
        "validation_share": validation_share,
    }
    inputs = source.fingerprint
    manifest = {"format": FORMAT, "tokenizer": tokenizer.fingerprint, "inputs": inputs, "options": options}
    make = lambda directory: _write(Path(directory), source, tokenizer, manifest, cleaning, progress)  # noqa: E731
    if directory is not None:
        directory = Path(directory)
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            if inputs is None:
                raise ValueError(
                    f"{directory} is not empty, and text that is read only once cannot be compared with it."
                )
            return Store(directory).check(tokenizer, inputs=inputs, options=options)
        return make(directory)
    if inputs is None:
        scratch = Path(tempfile.mkdtemp(prefix="zoo-tokens-"))
        store = make(scratch / "store")
        weakref.finalize(store, shutil.rmtree, scratch, ignore_errors=True)
        return store
    key = hashlib.blake2b(json.dumps(manifest, sort_keys=True).encode(), digest_size=12).hexdigest()
    directory = cache_directory() / "tokens" / key
    try:
        return Store(directory).check(tokenizer, inputs=inputs, options=options)
    except ValueError:
        shutil.rmtree(directory, ignore_errors=True)
        return make(directory)


def cache_directory():
    """`$ZOO_CACHE`, or `keras-zoo` in the user's cache directory."""
    user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("ZOO_CACHE") or Path(user) / "keras-zoo")


def _check(deduplicate, similarity, validation_share):
    if deduplicate not in DEDUPLICATIONS:
        raise ValueError(f"deduplicate={deduplicate!r} is none of {', '.join(map(repr, DEDUPLICATIONS))}.")
    if deduplicate == "near":
        check_similarity(similarity)
    if validation_share is not None and not 0 < validation_share < 1:
        raise ValueError(f"validation_share={validation_share} must lie between 0 and 1.")


def _write(directory, source, tokenizer, manifest, cleaning, progress):
    """Makes the store under another name and gives it its own when it is whole."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = directory.with_name(f".{directory.name}-{uuid.uuid4().hex}")
    temporary.mkdir()
    try:
        counts = _fill(temporary, source, tokenizer, manifest["options"], cleaning, progress)
        (temporary / "manifest.json").write_text(json.dumps(manifest | counts, indent=1), encoding="utf-8")
        if directory.exists() and not any(directory.iterdir()):
            directory.rmdir()
        try:
            temporary.rename(directory)
        except OSError:  # another process made the same store meanwhile, or something is in the way: opening tells
            return Store(directory).check(tokenizer, inputs=manifest["inputs"], options=manifest["options"])
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Store(directory)


def _fill(place, source, tokenizer, options, cleaning, progress):
    """Writes tokens, offsets and keys; returns what the manifest says of them."""
    dtype = "uint16" if tokenizer.vocabulary_size <= 1 << 16 else "uint32"
    sketches = None
    if options["deduplicate"] == "near":
        (place / "sketches").mkdir()
        sketches = Sketches(place / "sketches", options["similarity"])
    facts, dropped = [np.zeros(0, _FACTS)], collections.Counter()
    tokens, size = 0, 0
    bar = tqdm(unit="document", desc="tokenizing", disable=not progress, delay=1)
    with (place / "tokens.bin").open("wb") as out, bar:
        for texts in _blocks(source, cleaning, dropped, bar):
            found = np.array([_key_and_sizes(text) for text in texts], _FACTS)
            found["tokens"] = _encode(texts, tokenizer, dtype, out)
            facts.append(found)
            if sketches:
                sketches.append(texts)
            tokens, size = tokens + int(found["tokens"].sum()), size + int(found["bytes"].sum())
            seconds = bar.format_dict["elapsed"] or 1e-9
            bar.set_postfix_str(f"{tokens:,} tokens, {size / 1e6 / seconds:.2f} MB/s", refresh=False)
    facts = np.concatenate(facts)
    incoming = len(facts) + dropped.total()
    keep = _kept(facts, sketches, options["deduplicate"], dropped)
    shutil.rmtree(place / "sketches", ignore_errors=True)
    if not keep.any():
        why = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in dropped.items() if count)
        raise ValueError(f"The sources hold no text: of {incoming:,} documents none is left ({why or 'no document'}).")
    if not keep.all():
        _compact(place / "tokens.bin", dtype, facts["tokens"], keep)
        facts = facts[keep]
    np.concatenate([[0], np.cumsum(facts["tokens"])]).astype("int64").tofile(place / "offsets.bin")
    facts["keys"].tofile(place / "keys.bin")
    totals = {name: int(facts[name].sum()) for name in _FACTS.names[1:]}
    return {"dtype": dtype, "documents": len(facts), **totals, "documents_read": incoming,
            "broken_lines": getattr(source, "skipped", 0), "dropped": dict(dropped)}  # fmt: skip


def _blocks(source, cleaning, dropped, bar):
    """Lists of clean documents of BLOCK characters together; counts those left out."""
    block, size = [], 0
    for text in source:
        bar.update()
        text, reason = cleaning(text) if cleaning else (text, None)
        if reason:
            dropped[reason] += 1
            continue
        block.append(text)
        size += len(text)
        if size >= BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block


def _key_and_sizes(text):
    """The facts of a document but its tokens; words are what stands between ASCII white space."""
    hashed, words, size, last = hashlib.blake2b(digest_size=8), 0, 0, b" "
    for start in range(0, len(text), BLOCK):
        data = text[start : start + BLOCK].encode("utf-8", "surrogatepass")
        hashed.update(data)
        inside = np.frombuffer(last + data, "uint8") > 32
        words += np.count_nonzero(inside[1:] & ~inside[:-1])
        size, last = size + len(data), data[-1:]
    return int.from_bytes(hashed.digest(), "little"), 0, len(text), words, size


def _encode(texts, tokenizer, dtype, out):
    """Appends the tokens of texts to a file; returns how many each has."""
    lengths = np.zeros(len(texts), "int64")
    for numbers, pieces in batches(texts, BLOCK, PIECE):
        rows = tokenizer.encode(pieces, add_special_tokens=False)
        flat = np.fromiter(itertools.chain.from_iterable(rows), dtype="int64")
        if flat.size and not (0 <= flat.min() and flat.max() < tokenizer.vocabulary_size):
            raise ValueError(
                f"The tokenizer gave token ids from {flat.min()} to {flat.max()}, outside its "
                f"vocabulary_size={tokenizer.vocabulary_size}: correct vocabulary_size."
            )
        flat.astype(dtype).tofile(out)
        np.add.at(lengths, numbers, [len(row) for row in rows])
    return lengths


def _kept(facts, sketches, deduplicate, dropped):
    """Which documents stay, (documents,) bool; counts the others by reason."""
    leave = {"no_tokens": facts["tokens"] == 0}
    if deduplicate != "none":
        leave["exact_duplicate"] = repeated(facts["keys"])
    if sketches:
        leave["near_duplicate"] = sketches.clusters() != np.arange(len(facts))
    keep = np.ones(len(facts), bool)
    for reason, mask in leave.items():
        dropped[reason] += int(np.count_nonzero(mask & keep))
        keep &= ~mask
    return keep


def _compact(path, dtype, lengths, keep):
    """Writes a file of tokens again without the documents that do not stay."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    edges = np.flatnonzero(np.diff(keep, prepend=False, append=False)).reshape(-1, 2)  # runs of documents that stay
    tokens, temporary = np.memmap(path, dtype, "r"), path.with_suffix(".part")
    with temporary.open("wb") as out:
        for first, last in edges:
            for start in range(offsets[first], offsets[last], BLOCK):
                tokens[start : min(start + BLOCK, offsets[last])].tofile(out)
    del tokens
    os.replace(temporary, path)
