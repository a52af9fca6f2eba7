"""Megatron-LM's ``.idx`` file: encode it, and parse it without believing it.

Layout (``_IndexWriter`` in Megatron-LM's ``megatron/core/datasets/indexed_dataset.py``), all little-endian::

    byte  0  9 bytes     magic "MMIDIDX\\0\\0"
          9  u64         version, 1
         17  u8          dtype code: 8 = uint16, 4 = int32
         18  u64         n, number of sequences
         26  u64         number of document indices, n + 1
         34  i32 × n     tokens of each sequence
             i64 × n     byte in .bin where each sequence begins
             i64 × n+1   first sequence of each document, and n: with one sequence a document, 0, 1, … n
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lmbatch.errors import ShardError
from lmbatch.shards.dtypes import DtypeName, itemsize_of

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
LONGEST_DOCUMENT = int(np.iinfo(np.int32).max)
HEADER = struct.Struct("<9sQBQQ")

_NAMES: dict[int, DtypeName] = {8: "uint16", 4: "int32"}
_CODES: dict[str, int] = {name: code for code, name in _NAMES.items()}
_VERSION_AT, _CODE_AT, _DOCUMENTS_AT = 9, 17, 26


@dataclass(frozen=True, slots=True, eq=False)
class ShardIndex:
    """Where each document of a shard lies: ``lengths`` in tokens (int32), ``pointers`` in bytes (int64), 1-D."""

    dtype: DtypeName
    lengths: npt.NDArray[np.int32]
    pointers: npt.NDArray[np.int64]

    @property
    def documents(self) -> int:
        """Number of documents."""
        return len(self.lengths)

    @property
    def tokens(self) -> int:
        """Number of tokens, EOD included."""
        return int(self.lengths.sum(dtype=np.int64))

    @property
    def size(self) -> int:
        """Bytes that the ``.bin`` file must have."""
        return self.tokens * itemsize_of(self.dtype)

    def starts(self) -> npt.NDArray[np.int64]:
        """The first token of each document, counted from the beginning of the shard."""
        return self.pointers // itemsize_of(self.dtype)


def encode_index(lengths: npt.ArrayLike, dtype: str) -> bytes:
    """The ``.idx`` file of documents with these many tokens each."""
    counts = np.asarray(lengths, dtype="<i4")
    pointers = _pointers(counts, itemsize_of(dtype))
    header = HEADER.pack(MAGIC, VERSION, _CODES[dtype], len(counts), len(counts) + 1)
    parts = (counts, pointers, np.arange(len(counts) + 1, dtype="<i8"))
    return b"".join([header, *(part.tobytes() for part in parts)])


def parse_index(data: bytes, where: str) -> ShardIndex:
    """The index in ``data``; ``where`` names it in errors. Raises ShardError, with the byte, for anything wrong."""
    if len(data) < HEADER.size:
        raise _wrong(where, len(data), f"the file ends inside its header of {HEADER.size} bytes")
    magic, version, code, sequences, documents = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise _wrong(where, 0, f"begins with {magic!r}, not with {MAGIC!r}")
    if version != VERSION:
        raise _wrong(where, _VERSION_AT, f"version {version}, not {VERSION}")
    if code not in _NAMES:
        raise _wrong(where, _CODE_AT, f"dtype code {code}, not 8 (uint16) or 4 (int32)")
    if documents != sequences + 1:
        raise _wrong(where, _DOCUMENTS_AT, f"{documents} document indices for {sequences} sequences, not one more")
    if len(data) != _size(sequences):
        raise _wrong(where, len(data), f"{len(data)} bytes, but {sequences} sequences take {_size(sequences)}")
    return _parse_arrays(data, where, _NAMES[code], sequences)


def _parse_arrays(data: bytes, where: str, dtype: DtypeName, count: int) -> ShardIndex:
    lengths_at = HEADER.size
    pointers_at = lengths_at + 4 * count
    documents_at = pointers_at + 8 * count
    lengths = np.frombuffer(data, "<i4", count, lengths_at)
    pointers = np.frombuffer(data, "<i8", count, pointers_at)
    documents = np.frombuffer(data, "<i8", count + 1, documents_at)
    _all_right(where, lengths_at, lengths, lengths >= 1, "tokens in document")
    _all_right(where, pointers_at, pointers, pointers == _pointers(lengths, itemsize_of(dtype)), "pointer of document")
    _all_right(where, documents_at, documents, documents == np.arange(count + 1), "document index")
    return ShardIndex(dtype, lengths, pointers)


def _all_right(where: str, at: int, found: npt.NDArray[Any], right: npt.NDArray[np.bool_], what: str) -> None:
    if not right.all():
        first = int(np.argmin(right))
        raise _wrong(where, at + first * found.itemsize, f"{what} {first}: {found[first]} cannot be right")


def _pointers(lengths: npt.NDArray[np.int32], itemsize: int) -> npt.NDArray[np.int64]:
    pointers = np.zeros(len(lengths), dtype="<i8")
    np.cumsum(lengths[:-1], dtype=np.int64, out=pointers[1:])
    pointers *= itemsize
    return pointers


def _size(sequences: int) -> int:
    return HEADER.size + sequences * (4 + 8) + (sequences + 1) * 8


def _wrong(where: str, byte: int, what: str) -> ShardError:
    return ShardError(
        f"{where}: byte {byte}: {what}",
        remedy="this is not an index that lmbatch reads, or it is damaged: run `lmbatch verify` on the store",
    )
