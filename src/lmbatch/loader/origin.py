"""Which documents a sample was made of: from tokens back to the corpus."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lmbatch.errors import ShardError
from lmbatch.loader.stream import Ints, Span
from lmbatch.shards import all_rows, parse_index, read_rows
from lmbatch.store import RECEIPTS_PREFIX, Manifest, ShardEntry, Split, Store, parse_receipt

_TASK = re.compile(r"(?:^|/)(task-\d+)-[^/]*$")


@dataclass(frozen=True, slots=True)
class DocumentOrigin:
    """One document: its file, the byte offset of its record, its own id, and its place in the shards of the split:
    the row of docs.parquet that names it, the first of several."""

    path: str
    position: int
    id: str | None
    shard: int
    document: int


def documents_of(store: Store, manifest: Manifest, split: Split, spans: Iterable[Span]) -> list[DocumentOrigin]:
    """Every document that the spans touch, once each, in the order of shard and document.

    Reads the index, the rows and the receipt of each shard concerned, not its tokens. Where examples hold several
    documents (chunking.mode best_fit), the rows alone tell where each of them begins. Raises ShardError or StoreError
    if one of them is missing or damaged.
    """
    by_shard: dict[int, list[Span]] = {}
    for span in spans:
        by_shard.setdefault(span.shard, []).append(span)
    entries = manifest.of(split)
    found = (_of_shard(store, manifest, shard, entries[shard], by_shard[shard]) for shard in sorted(by_shard))
    return [origin for origins in found for origin in origins]


def task_of(key: str) -> str:
    """The task that wrote the shard stored under ``key``. Raises ShardError for a key of another shape."""
    match = _TASK.search(key)
    if match is None:
        raise ShardError(f"{key}: the name does not begin with its task (task-000000-…)")
    return match[1]


def document_starts(store: Store, manifest: Manifest, entry: ShardEntry) -> Ints:
    """The first token of each row of a shard's docs.parquet, counted from the shard's beginning."""
    packed = manifest.chunking is not None and manifest.chunking.packs
    return _starts_of_rows(store, entry) if packed else _starts_of_documents(store, entry)


def _starts_of_documents(store: Store, entry: ShardEntry) -> Ints:
    return parse_index(store.read(entry.idx.key), store.where(entry.idx.key)).starts()


def _starts_of_rows(store: Store, entry: ShardEntry) -> Ints:
    with store.open(entry.docs.key) as stream:
        tokens = all_rows(stream, store.where(entry.docs.key)).tokens
    return np.cumsum(tokens, dtype=np.int64) - tokens


def _of_shard(
    store: Store, manifest: Manifest, shard: int, entry: ShardEntry, spans: list[Span]
) -> list[DocumentOrigin]:
    starts = document_starts(store, manifest, entry)
    touched: set[int] = set()
    for span in spans:
        first, end = np.searchsorted(starts, [span.start, span.start + span.length - 1], side="right")
        touched.update(range(int(first) - 1, int(end)))
    key = f"{RECEIPTS_PREFIX}{task_of(entry.bin.key)}.json"
    pieces = parse_receipt(store.read(key), store.where(key)).pieces
    with store.open(entry.docs.key) as stream:
        rows = read_rows(stream, sorted(touched), store.where(entry.docs.key))
    # Several rows may be parts of one document; the last one that goes into a mapping stays.
    once = {(row.piece, row.position): row for row in reversed(rows)}
    found = sorted(once.values(), key=lambda row: row.document)
    return [DocumentOrigin(pieces[row.piece].path, row.position, row.id, shard, row.document) for row in found]
