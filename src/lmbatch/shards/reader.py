"""Read a shard from local disk: the payload is mapped, nothing is loaded before it is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lmbatch.errors import ShardError
from lmbatch.shards.dtypes import DTYPES, TokenArray, itemsize_of
from lmbatch.shards.index import ShardIndex, parse_index


def map_tokens(path: Path, dtype: str, tokens: int) -> TokenArray:
    """The ``tokens`` tokens of a ``.bin`` file, read-only, 1-D. Raises ShardError if the file has another size."""
    size, expected = path.stat().st_size, tokens * itemsize_of(dtype)
    if size != expected:
        raise ShardError(
            f"{path}: {size} bytes, but {tokens} tokens of dtype {dtype} take {expected}",
            remedy="the file is damaged or belongs to another index: run `lmbatch verify` on the store",
        )
    if not tokens:
        return np.empty(0, DTYPES[dtype])  # an empty file cannot be mapped
    return np.memmap(path, dtype=DTYPES[dtype], mode="r")


@dataclass(frozen=True, slots=True, eq=False)
class Shard:
    """A local shard: ``tokens`` is 1-D and of the shard's own dtype; ``len()`` is the number of documents."""

    index: ShardIndex
    tokens: TokenArray

    @classmethod
    def open(cls, bin_path: Path, idx_path: Path) -> Shard:
        """Raises ShardError if the index is wrong or the payload has another size than it says."""
        index = parse_index(idx_path.read_bytes(), str(idx_path))
        return cls(index, map_tokens(bin_path, index.dtype, index.tokens))

    def __len__(self) -> int:
        return self.index.documents

    def document(self, number: int) -> TokenArray:
        """The tokens of one document, over all its sequences, EOD included: a view, not a copy. Raises IndexError."""
        if not 0 <= number < len(self):
            raise IndexError(f"document {number} of {len(self)}")
        return self._between(*self.index.firsts[number : number + 2].tolist())

    def sequence(self, number: int) -> TokenArray:
        """The tokens of one sequence: a view, not a copy. Raises IndexError."""
        if not 0 <= number < self.index.sequences:
            raise IndexError(f"sequence {number} of {self.index.sequences}")
        return self._between(number, number + 1)

    def _between(self, first: int, end: int) -> TokenArray:
        start = int(self.index.pointers[first]) // itemsize_of(self.index.dtype)
        return self.tokens[start : start + int(self.index.lengths[first:end].sum(dtype=np.int64))]
