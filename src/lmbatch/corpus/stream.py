"""Reading a file of any size through a window of bounded size, decompressing on the way."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, Protocol, cast

from lmbatch.errors import CorpusError

if TYPE_CHECKING:
    from lmbatch.store import Store

CHUNK_BYTES = 4 * 2**20
BOM = b"\xef\xbb\xbf"
Compression = Literal["none", "gzip", "zstd"]

_ZSTD_READ_BYTES = 64 * 2**10  # what precedes the damage within one read is lost with it, so reads are small
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class Readable(Protocol):
    """All that a window needs of a file."""

    def read(self, size: int, /) -> bytes: ...


class Window:
    """The part of a stream that is in memory, addressed by positions in the stream.

    ``base`` is the position of ``data[0]``. A compressed stream that breaks off ends there, and ``damage`` says why.
    """

    def __init__(self, file: Readable, base: int = 0) -> None:
        self._file = file
        self.data = bytearray()
        self.base = base
        self.ended = False
        self.damage = ""

    @property
    def end(self) -> int:
        """Position behind the last byte in memory."""
        return self.base + len(self.data)

    def more(self, size: int | None = None) -> bool:
        """Read ``size`` bytes (a chunk) more behind ``end``, fewer at the stream's end. False if it had ended."""
        size, got = size or CHUNK_BYTES, 0
        while got < size and not self.ended:
            part = self._read(size - got)
            self.data += part
            got += len(part)
            self.ended = not part
        return got > 0

    def drop(self, position: int) -> None:
        """Forget what lies before ``position``."""
        del self.data[: max(0, position - self.base)]
        self.base = max(self.base, position)

    def cut(self, start: int, end: int) -> bytes:
        """The bytes from ``start`` to ``end``; both must be in memory."""
        with memoryview(self.data) as view:
            return bytes(view[start - self.base : end - self.base])

    def _read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except _Damage as error:
            self.damage = str(error)
            return b""


class _Damage(Exception):  # noqa: N818  (becomes an attribute of the window, never leaves this module)
    """A compressed stream is truncated or damaged."""


class _Gzip:
    def __init__(self, file: gzip.GzipFile) -> None:
        self._file = file

    def read(self, size: int, /) -> bytes:
        try:
            return self._file.read1(size)  # read() would throw away what precedes the damage
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _Damage(str(error)) from error


class _Zstd:
    def __init__(self, file: Readable) -> None:
        self._file = file

    def read(self, size: int, /) -> bytes:
        try:
            return self._file.read(min(size, _ZSTD_READ_BYTES))
        except OSError as error:
            if error.errno is not None:  # the system's own error: the disk, not the data
                raise
            raise _Damage(str(error)) from error


def compression_of(path: str) -> Compression:
    """By the name's ending: ``.gz``, ``.zst``, or none."""
    return "gzip" if path.endswith(".gz") else "zstd" if path.endswith((".zst", ".zstd")) else "none"


@contextlib.contextmanager
def open_window(store: Store, path: str, start: int = 0) -> Iterator[Window]:
    """A window on ``path`` that begins at ``start`` (0 for compressed files), decompressed by the name's ending."""
    with store.open(path) as raw:
        match compression_of(path):
            case "none":
                raw.seek(start)
                yield Window(raw, start)
            case "gzip":
                with gzip.GzipFile(fileobj=raw) as unzipped:
                    yield Window(_Gzip(unzipped))
            case "zstd":
                import pyarrow as pa  # slow to import, and rarely needed here

                yield Window(_Zstd(cast(Readable, pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd"))))


def byte_order_mark(window: Window, where: str) -> int:
    """Bytes of the UTF-8 byte order mark at the beginning of ``window``, if any. Raises CorpusError for UTF-16."""
    if bytes(window.data[:2]) in _UTF16_MARKS:
        raise CorpusError(
            f"{where}: byte 0: the byte order mark of UTF-16; a corpus must be UTF-8",
            remedy="convert it: iconv -f UTF-16 -t UTF-8 old-file > new-file",
        )
    return len(BOM) if window.data.startswith(BOM) else 0
