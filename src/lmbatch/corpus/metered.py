"""How far a reader is, in bytes of the file as it is stored."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any, BinaryIO, cast

from lmbatch.corpus.source import Seen
from lmbatch.corpus.splitting import FileProbe, Piece, piece_bytes
from lmbatch.store import ObjectInfo, Store
from lmbatch.store.base import ReadOnlyStore


def bytes_behind(piece: Piece, probe: FileProbe, seen: Seen) -> int:
    """How many of the bytes that a piece stands for lie behind its reader; may be asked from another thread.

    Rows are counted as if those of a piece were of one size. Where positions are of a decompressed stream, or rows of
    a file that does not tell how many it has, what was read of the stored file is counted (see `metered`).
    """
    size = piece_bytes(piece, probe)
    if seen.stored_bytes is not None:
        return min(seen.stored_bytes, size)
    position = max(seen.position, seen.end_position)
    if probe.row_group_rows:
        first, rows = sum(probe.row_group_rows[: piece.start]), sum(probe.row_group_rows[piece.start : piece.end])
        return size * min(max(0, position - first), rows) // max(1, rows)
    return min(max(0, position - piece.start), size)


def metered(store: Store, seen: Seen) -> Store:
    """The store, noting in ``seen`` how much is read of a file that is opened."""
    seen.stored_bytes = 0
    return _MeteredStore(store, seen)


class _MeteredStore(ReadOnlyStore):
    def __init__(self, inner: Store, seen: Seen) -> None:
        self.uri, self.traffic, self._inner, self._seen = inner.uri, inner.traffic, inner, seen

    def read(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        return self._inner.read(key, start, end)

    def open(self, key: str) -> BinaryIO:
        return cast(BinaryIO, _MeteredFile(self._inner.open(key), self._seen))

    def info(self, key: str) -> ObjectInfo:
        return self._inner.info(key)

    def _list(self, folder: str) -> Iterable[ObjectInfo]:
        return self._inner.list(f"{folder}/" if folder else "")


class _MeteredFile(io.RawIOBase):
    def __init__(self, inner: BinaryIO, seen: Seen) -> None:
        super().__init__()
        self._inner, self._seen = inner, seen

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._inner.seek(offset, whence)

    def tell(self) -> int:
        return self._inner.tell()

    def readinto(self, buffer: Any) -> int:
        got = int(self._inner.readinto(buffer))  # type: ignore[attr-defined]
        self._seen.stored_bytes = (self._seen.stored_bytes or 0) + got
        return got

    def close(self) -> None:
        self._inner.close()
        super().close()
