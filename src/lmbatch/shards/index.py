"""Megatron-LM's ``.idx`` file: encode it, and parse it without believing it.

Layout (``_IndexWriter`` in Megatron-LM's ``megatron/core/datasets/indexed_dataset.py``), all little-endian::

    byte  0  9 bytes     magic "MMIDIDX\\0\\0"
          9  u64         version, 1
         17  u8          dtype code: 8 = uint16, 4 = int32
         18  u64         n, number of sequences
         26  u64         d + 1, one more than documents
         34  i32 × n     tokens of each sequence
             i64 × n     byte in .bin where each sequence begins
             i64 × d+1   first sequence of each document, and n: with one sequence a document, 0, 1, … n
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
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
    """Where each sequence of a shard lies: ``lengths`` in tokens (int32), ``pointers`` in bytes (int64), 1-D.

    ``firsts`` (int64) has the first sequence of each document, and at its end the number of sequences. A document is
    one sequence unless the corpus was cut into examples; then it has one or more.
    """

    dtype: DtypeName
    lengths: npt.NDArray[np.int32]
    pointers: npt.NDArray[np.int64]
    firsts: npt.NDArray[np.int64]

    @property
    def documents(self) -> int:
        """Number of documents."""
        return len(self.firsts) - 1

    @property
    def sequences(self) -> int:
        """Number of sequences, at least one for each document."""
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
        return self.pointers[self.firsts[:-1]] // itemsize_of(self.dtype)

    def place(self, sequence: int) -> tuple[int, int]:
        """The first token of a sequence, counted from the beginning of the shard, and its number of tokens."""
        return int(self.pointers[sequence]) // itemsize_of(self.dtype), int(self.lengths[sequence])

    def document_tokens(self) -> npt.NDArray[np.int64]:
        """The tokens of each document, over all its sequences."""
        return np.diff(np.append(self.starts(), self.tokens))


def encode_index(lengths: npt.ArrayLike, dtype: str, firsts: npt.ArrayLike | None = None) -> bytes:
    """The ``.idx`` file of sequences with these many tokens each.

    ``firsts`` is the first sequence of each document; without it each sequence is a document.
    """
    counts = np.asarray(lengths, dtype="<i4")
    begins = np.arange(len(counts), dtype="<i8") if firsts is None else np.asarray(firsts, dtype="<i8")
    documents = np.append(begins, len(counts)).astype("<i8")
    header = HEADER.pack(MAGIC, VERSION, _CODES[dtype], len(counts), len(documents))
    parts = (counts, _pointers(counts, itemsize_of(dtype)), documents)
    return b"".join([header, *(part.tobytes() for part in parts)])


def parse_index(data: bytes, where: str) -> ShardIndex:
    """The index in ``data``; ``where`` names it in errors. Raises ShardError, with the byte, for anything wrong."""
    index = _arrays(np.frombuffer(data, np.uint8), where)
    lengths_at = HEADER.size
    pointers_at = lengths_at + index.lengths.nbytes
    pointers = _pointers(index.lengths, itemsize_of(index.dtype))
    _all_right(where, lengths_at, index.lengths, index.lengths >= 1, "tokens in sequence")
    _all_right(where, pointers_at, index.pointers, index.pointers == pointers, "pointer of sequence")
    right = _right_firsts(index)
    _all_right(where, pointers_at + index.pointers.nbytes, index.firsts, right, "document index")
    return index


def map_index(path: Path) -> ShardIndex:
    """The index in a local file whose bytes were checked before: mapped, not read.

    Raises ShardError for a header that is wrong, or that does not fit the file's size.
    """
    return _arrays(np.memmap(path, np.uint8, mode="r").view(np.ndarray), str(path))


def _arrays(data: npt.NDArray[np.uint8], where: str) -> ShardIndex:
    dtype, sequences = _header(data[: HEADER.size].tobytes(), len(data), where)
    pointers_at = HEADER.size + 4 * sequences
    documents_at = pointers_at + 8 * sequences
    return ShardIndex(
        dtype,
        data[HEADER.size : pointers_at].view("<i4"),
        data[pointers_at:documents_at].view("<i8"),
        data[documents_at:].view("<i8"),
    )


def _header(head: bytes, size: int, where: str) -> tuple[DtypeName, int]:
    if len(head) < HEADER.size:
        raise _wrong(where, len(head), f"the file ends inside its header of {HEADER.size} bytes")
    magic, version, code, sequences, documents = HEADER.unpack(head)
    if magic != MAGIC:
        raise _wrong(where, 0, f"begins with {magic!r}, not with {MAGIC!r}")
    if version != VERSION:
        raise _wrong(where, _VERSION_AT, f"version {version}, not {VERSION}")
    if code not in _NAMES:
        raise _wrong(where, _CODE_AT, f"dtype code {code}, not 8 (uint16) or 4 (int32)")
    if not 1 <= documents <= sequences + 1:
        raise _wrong(where, _DOCUMENTS_AT, f"{documents} document indices for {sequences} sequences")
    if size != _size(sequences, documents):
        raise _wrong(where, size, f"{size} bytes, but {sequences} sequences take {_size(sequences, documents)}")
    return _NAMES[code], sequences


def _right_firsts(index: ShardIndex) -> npt.NDArray[np.bool_]:
    """Does each document begin after the one before it, the first at 0, and is the end the number of sequences?"""
    firsts = index.firsts
    right = np.diff(firsts, prepend=-1) > 0
    right[0] &= firsts[0] == 0
    right[-1] &= firsts[-1] == index.sequences
    return right


def _all_right(where: str, at: int, found: npt.NDArray[Any], right: npt.NDArray[np.bool_], what: str) -> None:
    if not right.all():
        first = int(np.argmin(right))
        raise _wrong(where, at + first * found.itemsize, f"{what} {first}: {found[first]} cannot be right")


def _pointers(lengths: npt.NDArray[np.int32], itemsize: int) -> npt.NDArray[np.int64]:
    pointers = np.zeros(len(lengths), dtype="<i8")
    np.cumsum(lengths[:-1], dtype=np.int64, out=pointers[1:])
    pointers *= itemsize
    return pointers


def _size(sequences: int, documents: int) -> int:
    return HEADER.size + sequences * (4 + 8) + documents * 8


def _wrong(where: str, byte: int, what: str) -> ShardError:
    return ShardError(
        f"{where}: byte {byte}: {what}",
        remedy="this is not an index that lmbatch reads, or it is damaged: run `lmbatch verify` on the store",
    )
