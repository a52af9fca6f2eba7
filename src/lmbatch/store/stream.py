"""A seekable stream over ranged reads, for objects that are too big to be held whole."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, BinaryIO, cast

PIECE_BYTES = 32 * 2**20  # the most that one request asks for: large enough that the round trip does not show
BUFFER_BYTES = 4 * 2**20  # read ahead for callers that read little at a time


def buffered(size: int, fetch: Callable[[int, int], bytes]) -> BinaryIO:
    """An object of ``size`` bytes as a stream; ``fetch(start, end)`` gives exactly those bytes, or raises."""
    return cast(BinaryIO, io.BufferedReader(RangedReader(size, fetch), BUFFER_BYTES))


class RangedReader(io.RawIOBase):
    """A seekable stream over ranged reads. ``fetch(start, end)`` gives exactly those bytes, or raises."""

    def __init__(self, size: int, fetch: Callable[[int, int], bytes]) -> None:
        super().__init__()
        self._size = size
        self._fetch = fetch
        self._position = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The next byte to be read."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go there; beyond the end is allowed, before the beginning is a ValueError as for files."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative position {base + offset}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` with one ranged read of at most PIECE_BYTES; 0 at the end."""
        end = min(self._position + min(len(buffer), PIECE_BYTES), self._size)
        if end <= self._position:
            return 0
        data = self._fetch(self._position, end)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def readall(self) -> bytes:
        """All the rest; without this, io would ask for 8 KiB at a time."""
        pieces = []
        while piece := self.read(PIECE_BYTES):
            pieces.append(piece)
        return b"".join(pieces)
