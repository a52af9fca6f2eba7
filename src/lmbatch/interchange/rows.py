"""What a row of an export is, and how a run of rows is read in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from lmbatch.interchange.origins import Origins
from lmbatch.loader import TokenReader
from lmbatch.loader.order import samples_in
from lmbatch.loader.stream import TokenStream
from lmbatch.shards import ShardIndex
from lmbatch.store import ShardEntry

_MOST_TOKENS = 1 << 22  # in one batch, unless a single row has more
_MOST_ROWS = 1 << 16
INPUT_IDS = pa.field("input_ids", pa.list_(pa.int32()), nullable=False)


class Rows(Protocol):
    """The rows of a split; ``len()`` is their number. ``schema`` holds for every batch."""

    schema: Any

    def __len__(self) -> int:
        """Rows in all."""

    def batches(self, first: int, end: int) -> Iterator[Any]:
        """Rows ``first`` up to but without ``end``, in order, as Arrow record batches of bounded size."""


class SequenceRows:
    """One row for each sequence of the shards: a document, or an example where documents were cut."""

    def __init__(self, reader: TokenReader, entries: Sequence[ShardEntry], origins: Origins | None = None) -> None:
        counts = [entry.documents if entry.sequences is None else entry.sequences for entry in entries]
        self._offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self._reader, self._origins = reader, origins
        self.schema = pa.schema([INPUT_IDS, *([] if origins is None else origins.fields)])

    def __len__(self) -> int:
        return int(self._offsets[-1])

    def batches(self, first: int, end: int) -> Iterator[Any]:
        """See ``Rows``. Raises what the cache and the store raise, ShardError for bytes that are not the manifest's."""
        while first < end:
            # "right": of several shards that begin at the same row, only the last one has any.
            shard = int(np.searchsorted(self._offsets, first, side="right")) - 1
            start = int(self._offsets[shard])
            stop = min(end, int(self._offsets[shard + 1]))
            self._reader.hold([shard], [])
            yield from self._of_shard(shard, first - start, stop - start)
            first = stop

    def _of_shard(self, shard: int, first: int, end: int) -> Iterator[Any]:
        index, tokens = self._reader.index(shard), self._reader.tokens(shard)
        for start, stop in bounded_runs(index, first, end):
            offsets = np.concatenate([[0], np.cumsum(index.lengths[start:stop], dtype=np.int64)])
            begin = index.place(start)[0]
            columns = [_lists(offsets, tokens[begin : begin + int(offsets[-1])])]
            if self._origins is not None:
                columns += self._origins.columns(shard, index, start, stop)
            yield pa.record_batch(columns, schema=self.schema)


def bounded_runs(index: ShardIndex, first: int, end: int) -> Iterator[tuple[int, int]]:
    """Sequences ``first`` to ``end`` in runs of at most _MOST_TOKENS tokens (or one sequence) and _MOST_ROWS."""
    while first < end:
        tokens = np.cumsum(index.lengths[first : min(end, first + _MOST_ROWS)], dtype=np.int64)
        stop = first + max(1, int(np.searchsorted(tokens, _MOST_TOKENS, side="right")))
        yield first, stop
        first = stop


class SampleRows:
    """One row for each sample of a packed corpus: its ``length`` input tokens, in the manifest's order, unshuffled.

    The target of a row's last token is the first of the next row. What is left at the end is less than a row.
    """

    schema = pa.schema([INPUT_IDS])

    def __init__(self, reader: TokenReader, entries: Sequence[ShardEntry], length: int) -> None:
        counts = np.array([entry.tokens for entry in entries], dtype=np.int64)
        self._stream = TokenStream.of(np.arange(len(counts)), counts)
        self._count = samples_in(int(counts.sum()), length, 1)
        self._reader, self._length = reader, length

    def __len__(self) -> int:
        return self._count

    def batches(self, first: int, end: int) -> Iterator[Any]:
        """See ``Rows``."""
        size = max(1, min(_MOST_ROWS, _MOST_TOKENS // self._length))
        for start in range(first, end, size):
            rows = min(size, end - start)
            spans = self._stream.spans(start * self._length, rows * self._length)
            self._reader.hold([span.shard for span in spans], [])
            pieces = [self._reader.tokens(span.shard)[span.start : span.start + span.length] for span in spans]
            offsets = np.arange(rows + 1, dtype=np.int64) * self._length
            yield pa.record_batch([_lists(offsets, np.concatenate(pieces))], schema=self.schema)


def _lists(offsets: np.ndarray[Any, Any], tokens: np.ndarray[Any, Any]) -> Any:
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(tokens.astype(np.int32)))
