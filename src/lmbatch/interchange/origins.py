"""Columns that say where each row came from: file, byte offset of the record, and the corpus's own identifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from lmbatch.loader import ShardCache, task_of
from lmbatch.shards import ShardIndex, read_table
from lmbatch.store import RECEIPTS_PREFIX, ShardEntry, Store, parse_receipt


class Origins:
    """The origins of the sequences of a split's shards."""

    fields = (
        pa.field("path", pa.string(), nullable=False),
        pa.field("position", pa.int64(), nullable=False),
        pa.field("id", pa.string()),
    )

    def __init__(self, store: Store, cache: ShardCache, entries: Sequence[ShardEntry]) -> None:
        self._store, self._cache, self._entries = store, cache, entries
        self._paths: tuple[int, Any] = (-1, None)

    def columns(self, shard: int, index: ShardIndex, first: int, end: int) -> list[Any]:
        """One Arrow array for each of ``fields``, for sequences ``first`` up to but without ``end``.

        Raises ShardError or StoreError if the shard's documents or its receipt are missing or damaged.
        """
        documents = np.searchsorted(index.firsts, np.arange(first, end), side="right") - 1
        path = self._cache.path(self._entries[shard].docs)
        with path.open("rb") as stream:
            table = read_table(stream, int(documents[0]), int(documents[-1]) + 1, str(path))
        rows = table.take(pa.array(documents - documents[0])).combine_chunks()
        paths = self._paths_of(shard).take(rows.column("piece").combine_chunks())
        return [paths, rows.column("position").combine_chunks(), rows.column("id").combine_chunks()]

    def _paths_of(self, shard: int) -> Any:
        if self._paths[0] != shard:
            key = f"{RECEIPTS_PREFIX}{task_of(self._entries[shard].bin.key)}.json"
            pieces = parse_receipt(self._store.read(key), self._store.where(key)).pieces
            self._paths = shard, pa.array([piece.path for piece in pieces], pa.string())
        return self._paths[1]
