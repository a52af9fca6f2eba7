"""A local file that is hashed while it is written, and names itself when the disk is full."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path

from lmbatch.store.files import store_errors, sync

_BUFFER = 1 << 20


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A finished file: ``size`` in bytes, ``sha256`` in hex."""

    path: Path
    size: int
    sha256: str


class HashingFile:
    """A binary file for writing, from beginning to end. It has what pyarrow asks of a sink."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._hash = hashlib.sha256()
        self._discarded = False
        self._waiting = bytearray()
        with store_errors("write", str(path)):
            self._file = path.open("wb", buffering=0)

    @property
    def closed(self) -> bool:
        """True after commit() or discard()."""
        return self._file.closed

    def write(self, data: bytes | memoryview) -> int:
        """Appends ``data``, or forgets it after discard(). Raises StoreFullError, or another StoreError.

        An error may be about what was written before, which had waited for its neighbours.
        """
        if not self._discarded:
            self._waiting += data
            if len(self._waiting) >= _BUFFER:
                self._pass_on()
        return len(data)

    def flush(self) -> None:
        """Nothing: commit() flushes, and nobody reads before."""

    def _pass_on(self) -> None:
        """Hash and write what waits, many documents in one call."""
        data, self._waiting = self._waiting, bytearray()
        self._hash.update(data)
        self.size += len(data)
        with store_errors("write", str(self.path)), memoryview(data) as rest:
            written = 0
            while written < len(rest):
                written += self._file.write(rest[written:])

    def commit(self) -> FileFacts:
        """Closes the file after its bytes have reached the disk."""
        self._pass_on()
        with store_errors("write", str(self.path)):
            sync(self._file)
            self._file.close()
        return FileFacts(self.path, self.size, self._hash.hexdigest())

    def discard(self) -> None:
        """Closes and removes the file; no error if that was done before."""
        self._discarded = True
        with contextlib.suppress(OSError):
            self._file.close()
        self.path.unlink(missing_ok=True)
