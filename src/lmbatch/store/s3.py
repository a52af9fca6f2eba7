"""Object storage that speaks S3, through obstore."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from lmbatch.errors import ObjectNotFoundError, StoreError
from lmbatch.store.arrived import etag_of, etag_of_file, is_tag, same_bytes
from lmbatch.store.base import ObjectInfo, Store
from lmbatch.store.client import DEFAULT_LIMITS, Limits, import_obstore, new_client, refuse_after_fork
from lmbatch.store.connection import Connection, connection_from
from lmbatch.store.failure import ChangedBodyError, Failure, TruncatedBodyError, classify, from_request, store_error
from lmbatch.store.files import store_errors
from lmbatch.store.keys import check_key, check_range
from lmbatch.store.retry import retry
from lmbatch.store.stream import buffered
from lmbatch.store.traffic import Meter

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta
    from obstore.store import S3Store as Client

T = TypeVar("T")
_PART_BYTES = 16 * 2**20
_MOST_PARTS = 10_000  # S3's limit for one multipart upload
_PAGE_NAMES = 1000  # in one answer to a listing
_PARTS_AT_ONCE = 4  # bounds the memory of an upload to 64 MiB as long as parts have their usual size


class S3Store(Store):
    """Objects below ``s3://bucket/prefix``; connection and credentials come from the environment if not given."""

    def __init__(
        self, bucket: str, prefix: str = "", *, connection: Connection | None = None, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._connection = connection or connection_from(os.environ)
        self._limits = limits
        self._bucket_seen = False
        self.traffic = Meter()
        self._obstore = import_obstore()
        self._made = new_client(bucket, self._connection, limits)

    def read(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """See Store.read."""
        check_range(key, start, end)
        if end is not None and end <= start:
            self.info(key)
            return b""
        options: GetOptions = {}
        if start or end is not None:
            options["range"] = {"offset": start} if end is None else (start, end)
        return self._get(key, options)

    def open(self, key: str) -> BinaryIO:
        """See Store.open. Raises StoreError on reading if the object is replaced meanwhile."""
        info = self.info(key)

        def fetch(start: int, end: int) -> bytes:
            data = self._get(key, {"range": (start, end), "if_match": info.etag})
            if len(data) != end - start:
                raise StoreError(f"{self.where(key)}: {len(data)} bytes came for bytes {start} to {end}")
            return data

        return buffered(info.size, fetch)

    def info(self, key: str) -> ObjectInfo:
        """See Store.info."""
        path = self._path(key)

        def attempt() -> ObjectInfo:
            self.traffic.request("head")
            return self._object(self._obstore.head(self._client, path))

        return self._call("look up", key, attempt)

    def _list(self, folder: str) -> Iterable[ObjectInfo]:
        prefix = (self._prefix + folder).rstrip("/") or None

        def pages() -> list[ObjectInfo]:
            listing = self._obstore.list(self._client, prefix)
            found = [self._object(meta) for page in listing for meta in page]
            self.traffic.request("list", 1 + len(found) // _PAGE_NAMES)
            return found

        # The zero-byte "folders" that web consoles make are listed as if they were objects, but cannot be read.
        return (o for o in self._call("list", folder, pages) if o.size or self.exists(o.key))

    def put(self, key: str, data: bytes) -> None:
        """See Store.put."""
        path = self._path(key)

        def attempt() -> None:
            self.traffic.request("put", up=len(data))
            done = self._obstore.put(self._client, path, data, use_multipart=False)
            if not is_tag(done["e_tag"], etag_of(data)) and self.read(key) != data:
                raise ChangedBodyError("other bytes arrived than were sent")

        self._call("write", key, attempt)

    def put_file(self, key: str, path: Path) -> None:
        """See Store.put_file; big files go up in parts, and become visible when the last one has arrived."""
        with store_errors("read", str(path)):
            size = path.stat().st_size
            part = part_bytes(size)
            tag = etag_of_file(path, part)

        def attempt() -> None:
            self.traffic.request("put", parts_of(size), up=size)
            if size > part:
                self.traffic.request("post", 2)
            done = self._obstore.put(self._client, self._path(key), path, use_multipart=size > part, chunk_size=part,
                                     max_concurrency=_PARTS_AT_ONCE)  # fmt: skip
            if not is_tag(done["e_tag"], tag) and not self._holds(key, path):
                raise ChangedBodyError(f"other bytes arrived than were sent from {path}")

        self._call("write", key, attempt)
        if (stored := self.info(key).size) != size:
            raise StoreError(f"{self.where(key)}: {size} bytes were sent from {path}, {stored} are there")

    def publish(self, key: str, data: bytes) -> bool:
        """See Store.publish; the condition is ``If-None-Match: *``."""
        path = self._path(key)

        def attempt() -> bool:
            # An attempt whose answer is lost may have won. The next one is then refused, and the bytes decide.
            self.traffic.request("put", up=len(data))
            try:
                done = self._obstore.put(self._client, path, data, mode="create", use_multipart=False)
            except Exception as error:
                if classify(error).kind not in ("exists", "changed"):
                    raise
                return self._stands(key, data)
            if not is_tag(done["e_tag"], etag_of(data)) and not self._stands(key, data):
                # It is this attempt that made the object, so nobody else's is removed.
                self.delete(key)
                raise ChangedBodyError("other bytes arrived than were sent")
            return True

        return self._call("publish", key, attempt)

    def delete(self, key: str) -> None:
        """See Store.delete."""
        path = self._path(key)

        def attempt() -> None:
            self.traffic.request("delete")
            self._obstore.delete(self._client, path)

        try:
            self._call("delete", key, attempt)
        except ObjectNotFoundError:
            return

    def _holds(self, key: str, path: Path) -> bool:
        with self.open(key) as stream, store_errors("read", str(path)):
            return same_bytes(stream, path)

    def _stands(self, key: str, data: bytes) -> bool:
        return self.read(key, 0, len(data) + 1) == data

    def _get(self, key: str, options: GetOptions) -> bytes:
        path = self._path(key)

        def attempt() -> bytes:
            self.traffic.request("get")
            try:
                result = self._obstore.get(self._client, path, options=options)
            except Exception as error:
                if classify(error).kind == "range":  # the object is there, and ends before the range begins
                    return b""
                raise
            first, last = result.range
            data: bytes = result.bytes().to_bytes()
            self.traffic.came(len(data))
            if len(data) != last - first:
                raise TruncatedBodyError(f"the body ended after {len(data)} of {last - first} bytes")
            return data

        return self._call("read", key, attempt)

    @property
    def _client(self) -> Client:
        refuse_after_fork(self.uri)
        return self._made

    def _path(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _object(self, meta: ObjectMeta) -> ObjectInfo:
        key = meta["path"].removeprefix(self._prefix)
        return ObjectInfo(key, meta["size"], meta["e_tag"], meta["last_modified"].timestamp())

    def _call(self, action: str, key: str, operation: Callable[[], T]) -> T:
        number = count()

        def attempt() -> T:
            if next(number):
                self.traffic.retried()
            return operation()

        try:
            result = retry(
                attempt,
                what=f"{action} {self.where(key)}",
                again=lambda error: from_request(error) and classify(error).passing,
                reason=lambda error: self._hidden(classify(error).reason),
                backoff=self._limits.backoff,
            )
        except Exception as error:
            if not from_request(error):
                raise
            # Without its cause: obstore's text is long, and nobody has checked it for secrets.
            raise self._error(classify(error), action, key) from None
        self._bucket_seen = True
        return result

    def _error(self, failure: Failure, action: str, key: str) -> StoreError:
        if failure.kind == "bucket" or (failure.kind == "missing" and self._bucket_is_missing()):
            return StoreError(
                f"there is no bucket {self._bucket!r} at {self._connection.endpoint or 'AWS'}",
                remedy="make it, or correct the store's URI or AWS_ENDPOINT_URL",
            )
        return store_error(failure, action, self.where(key), self._hidden(failure.reason))

    def _bucket_is_missing(self) -> bool:
        # The answer to a HEAD request has no body, so that a missing bucket looks like a missing object.
        if self._bucket_seen:
            return False
        self.traffic.request("list")
        try:
            next(iter(self._obstore.list(self._client, ".lmbatch-none")), None)
        except Exception as error:
            return classify(error).kind in ("bucket", "missing")
        self._bucket_seen = True
        return False

    def _hidden(self, text: str) -> str:
        return self._connection.keys.hide(text) if self._connection.keys else text


def part_bytes(size: int) -> int:
    """The size of a part for an upload of ``size`` bytes: whole MiB, and at most 10,000 parts."""
    mebibyte = 2**20
    needed = -(-size // _MOST_PARTS)
    return max(_PART_BYTES, -(-needed // mebibyte) * mebibyte)


def parts_of(size: int) -> int:
    """How many requests carry the bytes of an upload of ``size`` bytes."""
    return max(1, -(-size // part_bytes(size)))
