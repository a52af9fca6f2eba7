"""Payloads of records: regions written one after the other, and single blocks read back by a ranged read."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lmbatch.corpus.duplicates.records import Records
from lmbatch.errors import StoreError
from lmbatch.preprocess.dedup.receipts import Region
from lmbatch.store import FileEntry, Store


def write_region(out: BinaryIO, kind: str, blocks: Iterable[Records]) -> Region:
    """Append the blocks of one kind."""
    offset, counts, sums = out.tell(), [], []
    for block in blocks:
        data = block.tobytes()
        out.write(data)
        counts.append(len(block))
        sums.append(zlib.crc32(data))
    return Region(kind=kind, offset=offset, counts=tuple(counts), crc32=tuple(sums))


def store_payload(store: Store, unit: str, path: Path) -> FileEntry:
    """Upload a payload under a name that carries its hash."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    entry = FileEntry(key=f"dedup/{unit}-{digest[:12]}.bin", size=path.stat().st_size, sha256=digest)
    store.put_file(entry.key, path)
    return entry


def read_block(store: Store, payload: FileEntry, region: Region, block: int, dtype: np.dtype) -> Records:
    """One block as (records,) of ``dtype``. Raises StoreError if its bytes are not those of the receipt."""
    count = region.counts[block]
    if not count:
        return np.empty(0, dtype=dtype)
    start = region.offset + sum(region.counts[:block]) * dtype.itemsize
    data = store.read(payload.key, start, start + count * dtype.itemsize)
    if len(data) != count * dtype.itemsize or zlib.crc32(data) != region.crc32[block]:
        raise StoreError(
            f"{store.where(payload.key)}: bytes {start} to {start + count * dtype.itemsize} ({region.kind}, block "
            f"{block}) are not those of the receipt",
            remedy="run `lmbatch repair` on the store",
        )
    return np.frombuffer(data, dtype=dtype)
