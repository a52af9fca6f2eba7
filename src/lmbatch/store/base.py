"""What a store is: named objects under one root, whatever lies beneath."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lmbatch.errors import ObjectNotFoundError, StoreError
from lmbatch.store.files import replacing, store_errors
from lmbatch.store.keys import check_key, check_prefix
from lmbatch.store.stream import PIECE_BYTES
from lmbatch.store.traffic import Meter

_READERS = 32
_READ_AHEAD = 4096


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object. ``size`` is in bytes, ``modified`` in seconds since the epoch; what a store cannot tell is None."""

    key: str
    size: int
    etag: str | None
    modified: float | None


class Store(ABC):
    """Objects by key. Keys are relative to the root, separated by ``/``, with no leading slash.

    ``uri`` is the canonical root, without credentials and without a slash at its end. Every method raises
    StoreError or one of its subclasses, and nothing else. A store can be pickled: it is opened again from its URI,
    so that no credential ever travels.
    """

    uri: str
    traffic: Meter  # what has gone to and from it through this object

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.uri!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        from lmbatch.store.location import open_store

        return open_store, (self.uri,)

    def where(self, key: str) -> str:
        """The full name of an object, for messages."""
        return f"{self.uri.rstrip('/')}/{key}"

    @abstractmethod
    def read(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """The bytes from ``start`` up to but without ``end``; what lies beyond the object is left out.

        Raises ObjectNotFoundError, and StoreError when fewer bytes arrive than the object has.
        """

    def read_many(self, keys: Sequence[str]) -> Iterator[bytes | None]:
        """Small objects whole, in the order of their keys; None for one that is not there.

        Requests go out side by side: latency, not bandwidth, is what is waited for.
        """

        def one(key: str) -> bytes | None:
            try:
                return self.read(key)
            except ObjectNotFoundError:
                return None

        if not keys:
            return
        with ThreadPoolExecutor(min(_READERS, len(keys))) as pool:
            for start in range(0, len(keys), _READ_AHEAD):  # so that what nobody has taken yet stays bounded
                yield from pool.map(one, keys[start : start + _READ_AHEAD])

    @abstractmethod
    def open(self, key: str) -> BinaryIO:
        """The object as a seekable, buffered stream in bounded memory. Raises ObjectNotFoundError."""

    @abstractmethod
    def info(self, key: str) -> ObjectInfo:
        """Raises ObjectNotFoundError."""

    def exists(self, key: str) -> bool:
        """Whether there is an object of that key."""
        try:
            self.info(key)
        except ObjectNotFoundError:
            return False
        return True

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object whose key begins with ``prefix`` (any string), at any depth, in the order of the keys."""
        check_prefix(prefix)
        folder = prefix.rpartition("/")[0]
        return iter(sorted((o for o in self._list(folder) if o.key.startswith(prefix)), key=lambda o: o.key))

    @abstractmethod
    def _list(self, folder: str) -> Iterable[ObjectInfo]:
        """Every object below ``folder`` (no slash at its end; empty is the root), in any order."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Write the object, or replace it; a reader sees the old bytes or the new ones, never a mixture."""

    @abstractmethod
    def put_file(self, key: str, path: Path) -> None:
        """The same as ``put`` for the content of a local file, in bounded memory."""

    def get_file(self, key: str, path: Path) -> None:
        """Copy the object to a local file, which appears under its name only when it is whole and on the disk."""
        with self.open(key) as source, store_errors("write", str(path)), replacing(path) as target:
            shutil.copyfileobj(source, target, PIECE_BYTES)

    @abstractmethod
    def publish(self, key: str, data: bytes) -> bool:
        """Write the object unless one stands there: True if ``data`` stands there afterwards, False for other bytes.

        True as well when an earlier attempt with the same bytes won, or its answer was lost: asking again is safe.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove the object; no error if there is none."""

    def local_path(self, key: str) -> Path | None:
        """The real file of the object where there is one, otherwise None."""
        check_key(key)
        return None


class ReadOnlyStore(Store):
    """The writing half of a store that is only read."""

    def put(self, key: str, data: bytes) -> None:
        """Raises StoreError."""
        raise self._refusal(key)

    def put_file(self, key: str, path: Path) -> None:
        """Raises StoreError."""
        raise self._refusal(key)

    def publish(self, key: str, data: bytes) -> bool:
        """Raises StoreError."""
        raise self._refusal(key)

    def delete(self, key: str) -> None:
        """Raises StoreError."""
        raise self._refusal(key)

    def _refusal(self, key: str) -> StoreError:
        return StoreError(
            f"{self.where(key)}: stores of this kind are only read",
            remedy="write to a folder (file://…) or to object storage (s3://bucket/prefix)",
        )
