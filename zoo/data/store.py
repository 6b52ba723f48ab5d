"""The token store: tokenized documents on disk, memory-mapped. It knows no objective: special tokens are added to rows.

A directory of three files: `tokens.bin` (all documents end to end; uint16, or uint32 for more than 65,536 ids),
`offsets.bin` (int64: where each document starts, and the end) and `manifest.json` (counts, and the hashes of tokenizer
and inputs by which a stale store is told from a current one). It is written under a temporary name, then renamed.
"""

import array
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

FORMAT = 1
BLOCK = 1 << 20  # characters tokenized together: enough to keep every core of the tokenizer busy


class Store:
    """An opened token store.

    Attributes:
        tokens: all tokens, (tokens,) uint16 or uint32, memory-mapped and read-only.
        offsets: (documents + 1,) int64; document i is `tokens[offsets[i]:offsets[i + 1]]`.
        manifest: the dictionary of `manifest.json`.

    Raises: ValueError where the directory holds no whole store of this format.
    """

    def __init__(self, directory):
        self.directory = directory = Path(directory)
        try:
            self.manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
            current = self.manifest["format"] == FORMAT
            dtype, documents, tokens = (self.manifest[key] for key in ("dtype", "documents", "tokens"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{directory} holds no token store (manifest.json: {error!r}).") from error
        if not current or dtype not in ("uint16", "uint32"):
            raise ValueError(f"{directory} is a token store of another format: delete it, it will be made again.")
        self.tokens = self._map("tokens.bin", dtype, tokens)
        self.offsets = self._map("offsets.bin", "int64", documents + 1)
        if self.offsets[0] != 0 or self.offsets[-1] != tokens:
            raise ValueError(f"{directory}/offsets.bin does not end with its {tokens:,} tokens: delete the store.")

    def _map(self, name, dtype, count):
        path = self.directory / name
        size = path.stat().st_size if path.exists() else 0
        if size != count * np.dtype(dtype).itemsize:
            raise ValueError(
                f"{path} has {size:,} bytes where its manifest counts {count:,} {dtype}: delete the store."
            )
        return np.asarray(np.memmap(path, dtype=dtype, mode="r"))

    def __len__(self):
        return len(self.offsets) - 1

    def document(self, index):
        """The token ids of one document, a view."""
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    def check(self, tokenizer, inputs=None):
        """Refuses a store that was made with another tokenizer or, where their hash is given, from other inputs."""
        wanted = {"tokenizer": tokenizer.fingerprint} | ({} if inputs is None else {"inputs": inputs})
        for key, value in wanted.items():
            if self.manifest[key] != value:
                raise ValueError(
                    f"The token store {self.directory} is stale: its {key} was {self.manifest[key]}, now {value}. "
                    "Delete it, or name another directory."
                )
        return self

    def spans(self):
        """Where the documents lie in `tokens`: starts and stops, two (documents,) int64 arrays."""
        return self.offsets[:-1], self.offsets[1:]

    def split(self, share, seed):
        """Training and held-out spans, ((starts, stops), (starts, stops)): a seeded draw of whole documents.

        At least one document is held out. Where even one is more than its due (fewer than 1 / share documents), the end
        of the longest is held out instead, and its beginning kept for training.
        """
        if not 0 <= share < 1:
            raise ValueError(f"validation_share={share} must lie in [0, 1).")
        starts, stops = self.spans()
        count = round(share * len(self))
        if share == 0 or count:
            order = np.random.default_rng([seed, 1]).permutation(len(self))
            kept, held = np.sort(order[count:]), np.sort(order[:count])
            return (starts[kept], stops[kept]), (starts[held], stops[held])
        longest = int(np.argmax(stops - starts))
        length = int(stops[longest] - starts[longest])
        cut = int(stops[longest]) - max(1, min(round(share * len(self.tokens)), length // 2))
        stops = stops.copy()
        end, stops[longest] = stops[longest], cut
        kept = stops > starts
        return (starts[kept], stops[kept]), (np.array([cut]), np.array([end]))


def prepare(source, tokenizer, directory=None, progress=True):
    """Tokenizes `source` into a store, or opens the one already made of the same text with the same tokenizer.

    Args:
        source: an iterable of strings with a `fingerprint` (see `zoo.data.sources.open`).
        tokenizer: has `encode(list of texts, add_special_tokens=False)`, `vocabulary_size` and `fingerprint`.
        directory: where the store is kept. None = the cache (`$ZOO_CACHE`, else `~/.cache/keras-zoo`), where each
            combination of text and tokenizer has its own place and a damaged store is made again. A source that can be
            read only once is stored in a temporary directory.
        progress: whether to show a progress bar.

    Returns: a `Store`.

    Raises: ValueError for a source without text, token ids outside the vocabulary, or a `directory` whose store is
        damaged or stale.
    """
    inputs = source.fingerprint
    manifest = {"format": FORMAT, "tokenizer": tokenizer.fingerprint, "inputs": inputs}
    if directory is not None:
        directory = Path(directory)
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            if inputs is None:
                raise ValueError(
                    f"{directory} is not empty, and text that is read only once cannot be compared with it."
                )
            return Store(directory).check(tokenizer, inputs)
        return _write(directory, source, tokenizer, manifest, progress)
    if inputs is None:
        scratch = Path(tempfile.mkdtemp(prefix="zoo-tokens-"))
        store = _write(scratch / "store", source, tokenizer, manifest, progress)
        weakref.finalize(store, shutil.rmtree, scratch, ignore_errors=True)
        return store
    key = hashlib.blake2b(json.dumps(manifest, sort_keys=True).encode(), digest_size=12).hexdigest()
    directory = cache_directory() / "tokens" / key
    try:
        return Store(directory).check(tokenizer, inputs)
    except ValueError:
        shutil.rmtree(directory, ignore_errors=True)
        return _write(directory, source, tokenizer, manifest, progress)


def cache_directory():
    """`$ZOO_CACHE`, or `keras-zoo` in the user's cache directory."""
    user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("ZOO_CACHE") or Path(user) / "keras-zoo")


def _write(directory, source, tokenizer, manifest, progress):
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = directory.with_name(f".{directory.name}-{uuid.uuid4().hex}")
    temporary.mkdir()
    try:
        dtype = "uint16" if tokenizer.vocabulary_size <= 1 << 16 else "uint32"
        lengths, characters = _tokenize(temporary / "tokens.bin", dtype, source, tokenizer, progress)
        if not lengths:
            raise ValueError("The sources hold no text: not one document gave a token.")
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype("int64")
        offsets.tofile(temporary / "offsets.bin")
        counts = {"dtype": dtype, "documents": len(lengths), "tokens": int(offsets[-1]), "characters": characters}
        (temporary / "manifest.json").write_text(json.dumps(manifest | counts, indent=1), encoding="utf-8")
        if directory.exists() and not any(directory.iterdir()):
            directory.rmdir()
        try:
            temporary.rename(directory)
        except OSError:  # another process made the same store meanwhile, or something is in the way: opening tells
            return Store(directory).check(tokenizer, manifest["inputs"])
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Store(directory)


def _tokenize(path, dtype, source, tokenizer, progress):
    lengths, characters, tokens = array.array("q"), 0, 0
    bar = tqdm(unit="document", desc="tokenizing", disable=not progress, delay=1)
    with path.open("wb") as out, bar:
        for block in _blocks(source):
            rows = tokenizer.encode(block, add_special_tokens=False)
            flat = np.fromiter(itertools.chain.from_iterable(rows), dtype="int64")
            if flat.size and not (0 <= flat.min() and flat.max() < tokenizer.vocabulary_size):
                raise ValueError(
                    f"The tokenizer gave token ids from {flat.min()} to {flat.max()}, outside its "
                    f"vocabulary_size={tokenizer.vocabulary_size}: correct vocabulary_size."
                )
            flat.astype(dtype).tofile(out)
            lengths.extend(len(row) for row in rows if len(row))
            characters += sum(map(len, block))
            tokens += flat.size
            bar.update(len(block))
            seconds = bar.format_dict["elapsed"] or 1e-9
            bar.set_postfix_str(f"{tokens:,} tokens, {characters / 1e6 / seconds:.2f} MB/s", refresh=False)
    return lengths, characters


def _blocks(source):
    block, size = [], 0
    for text in source:
        block.append(text)
        size += len(text)
        if size >= BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block
