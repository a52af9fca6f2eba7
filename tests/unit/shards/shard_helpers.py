"""Shards for tests: documents in, files and a verified entry out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from lmbatch.shards import ShardWriter, WrittenShard
from lmbatch.store import FileEntry, LocalStore, ShardEntry

EOD = 3
Documents = Sequence[Sequence[int]]
STEM = "shards/train/task-000000-00-abc"


def write_shard(folder: Path, documents: Documents, *, dtype: str = "uint16", stem: str = "s") -> WrittenShard:
    folder.mkdir(parents=True, exist_ok=True)
    writer = ShardWriter(folder, stem, dtype)
    for number, ids in enumerate(documents):
        writer.append(ids, piece=number % 3, position=number * 100, id=f"文-{number}", text_bytes=len(ids) * 2)
    return writer.close()


def stored_shard(folder: Path, documents: Documents, *, dtype: str = "uint16") -> tuple[LocalStore, ShardEntry]:
    written = write_shard(folder / "spool", documents, dtype=dtype)
    store = LocalStore(folder / "store")
    entry = written.entry("train", STEM)
    for file, path in ((entry.bin, written.bin), (entry.idx, written.idx), (entry.docs, written.docs)):
        store.put_file(file.key, path)
    return store, entry


def with_bytes(store: LocalStore, entry: ShardEntry, part: str, data: bytes) -> ShardEntry:
    """Puts other bytes in place of one file, and an entry that vouches for them: only deeper checks can object."""
    file: FileEntry = getattr(entry, part)
    store.put(file.key, data)
    changed = FileEntry(key=file.key, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    return entry.model_copy(update={part: changed})
