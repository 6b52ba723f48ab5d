"""The token store: tokenized documents on disk, memory-mapped. It knows no objective: special tokens are added to rows.

A directory of four files: `tokens.bin` (all documents end to end; uint16, or uint32 for more than 65,536 ids),
`offsets.bin` (int64: where each document starts, and the end), `keys.bin` (uint64: a hash of each document's text) and
`manifest.json` (counts, options, and the hashes of tokenizer and inputs by which a stale store is told from a current
one). `zoo.data.prepare` writes it.
"""

import json
import os
from pathlib import Path

import numpy as np

FORMAT = 2
VALIDATION_SHARE = 0.05


class Store:
    """An opened token store.

    Attributes:
        tokens: all tokens, (tokens,) uint16 or uint32, memory-mapped and read-only.
        offsets: (documents + 1,) int64; document i is `tokens[offsets[i]:offsets[i + 1]]`.
        keys: (documents,) uint64, the hash of each document's text.
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
        self.keys = self._map("keys.bin", "uint64", documents)
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

    def check(self, tokenizer, **wanted):
        """Refuses a store made with another tokenizer, or with another value of a given key of the manifest."""
        for key, value in {"tokenizer": tokenizer.fingerprint, **wanted}.items():
            if self.manifest.get(key) != value:
                raise ValueError(
                    f"The token store {self.directory} is stale: its {key} was {self.manifest.get(key)}, now {value}. "
                    "Delete it, or name another directory."
                )
        return self

    @property
    def validation_share(self):
        """The share of the documents that `prepare` was told to hold out, or 0.05."""
        return self.manifest.get("options", {}).get("validation_share") or VALIDATION_SHARE

    def spans(self):
        """Where the documents lie in `tokens`: starts and stops, two (documents,) int64 arrays."""
        return self.offsets[:-1], self.offsets[1:]

    def split(self, share):
        """Training and held-out spans, ((starts, stops), (starts, stops)), by the hash of each document's text.

        A document is held out if its hash is below `share` of the numbers it can be. So it stays where it is when
        others come or go, equal documents are together, and what a smaller share holds out a greater one does too. At
        least one document is held out and one is not. Where even one is more than its due (fewer than 1 / share
        documents), or all are equal, the end of the longest is held out, and its beginning kept for training.
        """
        if not 0 <= share < 1:
            raise ValueError(f"validation_share={share} must lie in [0, 1).")
        starts, stops = self.spans()
        held = np.zeros(len(self), bool)
        if round(share * len(self)):
            held = self.keys < share * 2.0**64
            held |= self.keys == self.keys.min()
            held &= self.keys < self.keys.max()
        if share == 0 or held.any():
            return (starts[~held], stops[~held]), (starts[held], stops[held])
        longest = int(np.argmax(stops - starts))
        length = int(stops[longest] - starts[longest])
        cut = int(stops[longest]) - max(1, min(round(share * len(self.tokens)), length // 2))
        stops = stops.copy()
        end, stops[longest] = stops[longest], cut
        kept = stops > starts
        return (starts[kept], stops[kept]), (np.array([cut]), np.array([end]))


def holds_store(spec):
    """Whether `spec` is the path of a directory with a token store, whole or not."""
    return isinstance(spec, (str, Path)) and os.path.isfile(os.path.join(spec, "manifest.json"))
