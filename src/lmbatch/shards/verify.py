"""Re-read a shard in its store and believe nothing: bytes, index, tokens, origins."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from lmbatch.config import ChunkingConfig
from lmbatch.errors import ObjectNotFoundError, ShardError
from lmbatch.shards.docs import all_rows, token_counts
from lmbatch.shards.dtypes import DTYPES, itemsize_of
from lmbatch.shards.index import ShardIndex, parse_index
from lmbatch.store import FileEntry, ShardEntry, Store

CHUNK_BYTES = 8 * 2**20


def verify_shard(
    store: Store,
    entry: ShardEntry,
    *,
    dtype: str,
    largest_id: int,
    eod_id: int,
    chunking: ChunkingConfig | None = None,
) -> list[str]:
    """What is wrong with a stored shard; an empty list if nothing is. ``chunking`` is how its documents were cut.

    Each sentence names the key and, where there is one, the byte. The payload is streamed: memory is a few chunks
    and the index. Raises StoreError if the store itself fails (a missing object is a finding, not an error).
    """
    packed = chunking is not None and chunking.packs
    index, problems = _verify_index(store, entry, dtype, packed=packed)
    if index is not None:
        problems += sequence_problems(entry, index, chunking)
    ended = _ended(index, chunking)
    problems += _verify_payload(store, entry, ended, dtype, largest_id, eod_id)
    problems += _verify_docs(store, entry, index, _compare_parts if packed else _compare_rows)
    return problems


def _verify_index(store: Store, entry: ShardEntry, dtype: str, *, packed: bool) -> tuple[ShardIndex | None, list[str]]:
    key = entry.idx.key
    try:
        data = b"".join(_chunks(store, key))
    except ObjectNotFoundError:
        return None, [f"{key}: is missing"]
    problems = _bytes_problems(entry.idx, len(data), hashlib.sha256(data).hexdigest())
    try:
        index = parse_index(data, key)
    except ShardError as error:
        return None, [*problems, error.message]
    if index.dtype != dtype:
        problems.append(f"{key}: byte 17: dtype {index.dtype}, the manifest says {dtype}")
    documents = entry.sequences if packed else entry.documents  # a packed example stands for a document there
    if index.documents != documents:
        problems.append(f"{key}: byte 18: {index.documents} documents, the manifest says {documents}")
    if index.tokens != entry.tokens:
        problems.append(f"{key}: its lengths sum to {index.tokens} tokens, the manifest says {entry.tokens}")
    return index, problems


def sequence_problems(entry: ShardEntry, index: ShardIndex, chunking: ChunkingConfig | None) -> list[str]:
    """What contradicts the way of cutting: the number of sequences, and the tokens of each."""
    key = entry.idx.key
    expected = entry.documents if chunking is None else entry.sequences
    if index.sequences != expected:
        return [f"{key}: byte 18: {index.sequences} sequences, should be {expected}"]
    if chunking is None:
        return []
    # EOD alone would teach nothing; but a document that best_fit cuts may leave it for an example of its own.
    least = {"drop_short": chunking.most, "best_fit": 1}.get(chunking.mode, 2)
    wrong = np.flatnonzero((index.lengths < least) | (index.lengths > chunking.most))
    if not len(wrong):
        return []
    first = int(wrong[0])
    what = f"sequence {first} has {index.lengths[first]} tokens, {chunking.mode} gives {least} to {chunking.most}"
    return [f"{key}: {what} ({len(wrong)} such sequences)"]


@dataclass(frozen=True, slots=True, eq=False)
class _Ended:
    """Sequences that must end with EOD: their numbers, and the last token of each, counted from the beginning."""

    sequences: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]


def _ended(index: ShardIndex | None, chunking: ChunkingConfig | None) -> _Ended:
    if index is None:
        return _Ended(np.empty(0, np.int64), np.empty(0, np.int64))
    right = np.ones(index.sequences, np.bool_)
    if chunking is not None:
        kinds, kind_of = np.unique(index.lengths, return_inverse=True)
        right = np.array([chunking.ends_with_eod(length) for length in kinds.tolist()], np.bool_)[kind_of]
    return _Ended(np.flatnonzero(right), (np.cumsum(index.lengths, dtype=np.int64) - 1)[right])


def _verify_payload(
    store: Store, entry: ShardEntry, ended: _Ended, dtype: str, largest_id: int, eod_id: int
) -> list[str]:
    key = entry.bin.key
    scan = _TokenScan(key, dtype, largest_id, eod_id, ended)
    sha256, size = hashlib.sha256(), 0
    try:
        for chunk in _chunks(store, key):
            sha256.update(chunk)
            size += len(chunk)
            scan.feed(chunk)
    except ObjectNotFoundError:
        return [f"{key}: is missing"]
    problems = _bytes_problems(entry.bin, size, sha256.hexdigest())
    if size != entry.tokens * itemsize_of(dtype):
        problems.append(f"{key}: {size} bytes, but {entry.tokens} tokens of dtype {dtype} are not that long")
    return problems + scan.problems()


class _TokenScan:
    """Looks at every token in passing; remembers how often each rule is broken, and where first."""

    def __init__(self, key: str, dtype: str, largest_id: int, eod_id: int, ended: _Ended) -> None:
        self._key = key
        self._dtype = DTYPES[dtype]
        self._largest_id = largest_id
        self._eod_id = eod_id
        self._sequences, self._ends = ended.sequences, ended.ends
        self._seen = 0
        self._outside: list[str] = []
        self._unended: list[str] = []
        self._outside_count = self._unended_count = 0

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the payload; every chunk but the last holds whole tokens."""
        tokens = np.frombuffer(chunk, self._dtype, len(chunk) // self._dtype.itemsize)
        self._look_at_ids(tokens)
        self._look_at_ends(tokens)
        self._seen += len(tokens)

    def problems(self) -> list[str]:
        """One sentence for each kind of finding."""
        found = [f"{first} ({self._outside_count} such tokens)" for first in self._outside]
        found += [f"{first} ({self._unended_count} such sequences)" for first in self._unended]
        return found

    def _look_at_ids(self, tokens: npt.NDArray[Any]) -> None:
        wrong = np.flatnonzero((tokens < 0) | (tokens > self._largest_id))
        if len(wrong) and not self._outside:
            at = int(wrong[0])
            what = f"token {tokens[at]} is outside 0…{self._largest_id}"
            self._outside.append(f"{self._key}: byte {self._byte(at)}: {what}")
        self._outside_count += len(wrong)

    def _look_at_ends(self, tokens: npt.NDArray[Any]) -> None:
        first, end = np.searchsorted(self._ends, [self._seen, self._seen + len(tokens)])
        last_tokens = tokens[self._ends[first:end] - self._seen]
        wrong = np.flatnonzero(last_tokens != self._eod_id)
        if len(wrong) and not self._unended:
            place = int(first + wrong[0])
            sequence, at = int(self._sequences[place]), int(self._ends[place]) - self._seen
            what = f"sequence {sequence} ends with token {tokens[at]}, not with EOD ({self._eod_id})"
            self._unended.append(f"{self._key}: byte {self._byte(at)}: {what}")
        self._unended_count += len(wrong)

    def _byte(self, at: int) -> int:
        return (self._seen + at) * self._dtype.itemsize


def _verify_docs(
    store: Store,
    entry: ShardEntry,
    index: ShardIndex | None,
    compare: Callable[[BinaryIO, ShardEntry, ShardIndex], list[str]],
) -> list[str]:
    key = entry.docs.key
    sha256, size = hashlib.sha256(), 0
    try:
        for chunk in _chunks(store, key):
            sha256.update(chunk)
            size += len(chunk)
        problems = _bytes_problems(entry.docs, size, sha256.hexdigest())
        if problems or index is None:
            return problems  # a Parquet reader is not to be trusted with damaged bytes
        with store.open(key) as stream:
            return compare(stream, entry, index)
    except ObjectNotFoundError:
        return [f"{key}: is missing"]
    except ShardError as error:
        return [error.message]


def _compare_rows(stream: BinaryIO, entry: ShardEntry, index: ShardIndex) -> list[str]:
    key, tokens, rows = entry.docs.key, index.document_tokens(), 0
    for counts in token_counts(stream, key):
        expected = tokens[rows : rows + len(counts)]
        common = min(len(counts), len(expected))
        wrong = np.flatnonzero(counts[:common] != expected[:common])
        if len(wrong):
            at = int(wrong[0])
            return [f"{key}: row {rows + at}: {counts[at]} tokens, the index says {expected[at]}"]
        rows += len(counts)
    return [] if rows == index.documents else [f"{key}: {rows} rows for {index.documents} documents"]


def _compare_parts(stream: BinaryIO, entry: ShardEntry, index: ShardIndex) -> list[str]:
    """Rows are parts of documents, which fill examples; those of one document name the same record."""
    key, rows = entry.docs.key, all_rows(stream, entry.docs.key)
    ends, example_ends = np.cumsum(rows.tokens, dtype=np.int64), np.cumsum(index.lengths, dtype=np.int64)
    problems = []
    if len(ends) and int(ends[-1]) != index.tokens:
        problems.append(f"{key}: its rows sum to {ends[-1]} tokens, the index says {index.tokens}")
    torn = np.flatnonzero(~np.isin(example_ends, ends))
    if len(torn):
        problems.append(f"{key}: no document ends where example {torn[0]} does ({len(torn)} such examples)")
    if rows.documents != entry.documents:
        problems.append(f"{key}: parts of {rows.documents} documents, the manifest says {entry.documents}")
    return problems


def _bytes_problems(entry: FileEntry, size: int, sha256: str) -> list[str]:
    problems = []
    if size != entry.size:
        problems.append(f"{entry.key}: {size} bytes, the manifest says {entry.size}")
    if sha256 != entry.sha256:
        problems.append(f"{entry.key}: sha256 is {sha256}, the manifest says {entry.sha256}")
    return problems


def _chunks(store: Store, key: str) -> Iterator[bytes]:
    with store.open(key) as stream:
        while chunk := _read_full(stream, CHUNK_BYTES):
            yield chunk


def _read_full(stream: BinaryIO, size: int) -> bytes:
    """``size`` bytes, fewer only at the end: a token must not be cut by a short read."""
    parts: list[bytes] = []
    while size and (part := stream.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
