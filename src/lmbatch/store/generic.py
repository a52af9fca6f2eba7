"""Any other fsspec file system, for reading."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, BinaryIO

from lmbatch.errors import LmbatchError, ObjectNotFoundError, StoreAccessError, StoreError
from lmbatch.store.base import ObjectInfo, ReadOnlyStore
from lmbatch.store.keys import check_key, check_range
from lmbatch.store.retry import DEFAULT_BACKOFF, Backoff, retry
from lmbatch.store.stream import buffered
from lmbatch.store.traffic import Kind, Meter


class GenericStore(ReadOnlyStore):
    """Objects below an fsspec URL such as ``memory://corpus`` or ``https://host/folder``."""

    def __init__(self, uri: str, *, backoff: Backoff = DEFAULT_BACKOFF) -> None:
        self.uri = uri.rstrip("/") if not uri.endswith("://") else uri
        self._backoff = backoff
        self.traffic = Meter()
        self._filesystem, self._root = _resolve(self.uri)

    def read(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """See Store.read."""
        check_range(key, start, end)
        size = self.info(key).size
        return self._fetch(key, start, size if end is None else min(end, size))

    def open(self, key: str) -> BinaryIO:
        """See Store.open."""
        return buffered(self.info(key).size, lambda start, end: self._fetch(key, start, end))

    def info(self, key: str) -> ObjectInfo:
        """See Store.info."""
        found = self._call("look up", "head", key, lambda: self._filesystem.info(self._path(key)))
        if found.get("type") == "directory":
            raise ObjectNotFoundError(f"{self.where(key)}: a folder, not an object")
        return self._object(key, found)

    def _list(self, folder: str) -> Iterable[ObjectInfo]:
        top = self._path(folder) if folder else self._root
        try:
            found = self._call("list", "list", folder, lambda: self._filesystem.find(top, detail=True))
        except ObjectNotFoundError:
            return []
        root = self._root.rstrip("/") + "/"
        return [self._object(path.removeprefix(root).lstrip("/"), entry) for path, entry in found.items()]

    def _fetch(self, key: str, start: int, end: int) -> bytes:
        if end <= start:
            return b""
        path = self._path(key)
        data: bytes = self._call("read", "get", key, lambda: self._filesystem.cat_file(path, start=start, end=end))
        self.traffic.came(len(data))
        if len(data) != end - start:
            raise StoreError(f"{self.where(key)}: {len(data)} bytes came for bytes {start} to {end}")
        return data

    def _path(self, key: str) -> str:
        return f"{self._root.rstrip('/')}/{check_key(key)}"

    def _object(self, key: str, entry: dict[str, Any]) -> ObjectInfo:
        if entry.get("size") is None:
            raise StoreError(f"{self.where(key)}: the server does not say how large it is", remedy="copy it first")
        return ObjectInfo(key, int(entry["size"]), entry.get("ETag") or entry.get("etag"), _modified(entry))

    def _call(self, action: str, kind: Kind, key: str, operation: Any) -> Any:
        def attempt() -> Any:
            self.traffic.request(kind)
            return operation()

        with _translated(action, self.where(key)):
            return retry(attempt, what=f"{action} {self.where(key)}", again=_again, backoff=self._backoff)


def _again(error: Exception) -> bool:
    lasting = FileNotFoundError | PermissionError | NotADirectoryError | IsADirectoryError
    return isinstance(error, OSError | TimeoutError) and not isinstance(error, lasting)


@contextmanager
def _translated(action: str, where: str) -> Iterator[None]:
    try:
        yield
    except LmbatchError:
        raise
    except FileNotFoundError:
        raise ObjectNotFoundError(f"{where}: no such object", remedy="check the name and the store's URI") from None
    except PermissionError as error:
        raise StoreAccessError(f"could not {action} {where}: {error}") from error
    except Exception as error:  # every file system of fsspec has exceptions of its own
        raise StoreError(f"could not {action} {where}: {type(error).__name__}: {error}") from error


def _modified(entry: dict[str, Any]) -> float | None:
    for name in ("mtime", "LastModified", "last_modified", "created"):
        value = entry.get(name)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return None


def _resolve(uri: str) -> tuple[Any, str]:
    import fsspec

    try:
        filesystem, root = fsspec.core.url_to_fs(uri, use_listings_cache=False)  # type: ignore[no-untyped-call]
    except ImportError as error:
        raise StoreError(f"{uri}: {error}", remedy="install the package that it names") from error
    except ValueError as error:
        raise StoreError(
            f"{uri}: {error}", remedy="use a folder, s3://bucket/prefix, or a scheme that fsspec knows"
        ) from error
    return filesystem, str(root)
