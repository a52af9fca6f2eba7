"""A folder as a store."""

from __future__ import annotations

import errno
import io
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO, cast

from lmbatch.errors import ObjectNotFoundError, StoreError, UnsafeStoreError
from lmbatch.store.base import ObjectInfo, Store
from lmbatch.store.files import TEMPORARY_PREFIX, replacing, store_errors, sync, sync_folder, temporary_in
from lmbatch.store.keys import check_key, check_range
from lmbatch.store.traffic import CountingFile, Meter

log = logging.getLogger(__name__)
_COPY_BYTES = 1 << 20
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class LocalStore(Store):
    """Objects are the files below ``root``; a folder is made when something is first written into it."""

    def __init__(self, root: Path) -> None:
        # Links are left alone (a mount may be named differently on another node), unless ".." has to be worked out.
        self.root = root.resolve() if ".." in root.parts else root.absolute()
        self.uri = f"file://{self.root}"
        self.traffic = Meter()

    def local_path(self, key: str) -> Path:
        """The file that is the object, whether it is there or not."""
        return self.root / check_key(key)

    def read(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """See Store.read."""
        check_range(key, start, end)
        with self.open(key) as file, store_errors("read", self.where(key)):
            size = os.fstat(file.fileno()).st_size
            want = max(0, min(size, size if end is None else end) - start)
            file.seek(start)
            data = file.read(want)
        if len(data) != want:
            raise StoreError(f"{self.where(key)}: {len(data)} bytes came from byte {start} on, {want} were there")
        return data

    def read_many(self, keys: Sequence[str]) -> Iterator[bytes | None]:
        """See Store.read_many; one after the other, as threads gain nothing where all is near."""
        root = str(self.root)
        return (self._read_whole(key, f"{root}/{check_key(key)}") for key in keys)

    def _read_whole(self, key: str, name: str) -> bytes | None:
        try:
            with open(name, "rb", buffering=0) as file:  # noqa: PTH123  (a Path costs as much as the reading)
                data = file.read()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            data = None
        except OSError as error:
            with store_errors("read", self.where(key)):
                raise error
        self.traffic.request("get", down=len(data or b""))
        return data

    def open(self, key: str) -> BinaryIO:
        """See Store.open."""
        self.traffic.request("get")
        with store_errors("read", self.where(key)):
            return cast(BinaryIO, io.BufferedReader(CountingFile(self.local_path(key), self.traffic)))

    def info(self, key: str) -> ObjectInfo:
        """See Store.info; files have no etag."""
        self.traffic.request("head")
        with store_errors("read", self.where(key)):
            status = self.local_path(key).stat()
        if not S_ISREG(status.st_mode):
            raise ObjectNotFoundError(f"{self.where(key)}: not a file")
        return ObjectInfo(key, status.st_size, None, status.st_mtime)

    def _list(self, folder: str) -> Iterable[ObjectInfo]:
        self.traffic.request("list")
        if self.root.exists() and not self.root.is_dir():
            raise StoreError(f"{self.uri} is a file, not a folder", remedy=f"name its folder: {self.root.parent}")
        with store_errors("list", self.where(folder)):
            yield from self._walk(folder, ())

    def _walk(self, folder: str, above: tuple[Path, ...]) -> Iterator[ObjectInfo]:
        path = (self.root / folder).resolve()
        if path in above or not path.is_dir():  # a symbolic link to a folder above would never end
            return
        for entry in _entries(path):
            key = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir():
                yield from self._walk(key, (*above, path))
            elif not entry.name.startswith(TEMPORARY_PREFIX):
                yield from self._listed(key, entry)

    def _listed(self, key: str, entry: os.DirEntry[str]) -> Iterator[ObjectInfo]:
        try:
            status = entry.stat()
        except FileNotFoundError:  # replaced or removed while we look, or a link that leads nowhere
            if entry.is_symlink():
                log.warning("%s leads nowhere and is left out", self.where(key))
            return
        if S_ISREG(status.st_mode):
            yield ObjectInfo(_sound(key), status.st_size, None, status.st_mtime)

    def put(self, key: str, data: bytes) -> None:
        """See Store.put."""
        self.traffic.request("put", up=len(data))
        with store_errors("write", self.where(key)), replacing(self.local_path(key)) as file:
            file.write(data)

    def put_file(self, key: str, path: Path) -> None:
        """See Store.put_file."""
        with store_errors("read", str(path)):
            source = path.open("rb")
        with source, store_errors("write", self.where(key)), replacing(self.local_path(key)) as file:
            shutil.copyfileobj(source, file, _COPY_BYTES)
            self.traffic.request("put", up=file.tell())

    def publish(self, key: str, data: bytes) -> bool:
        """See Store.publish; a hard link is what the file system refuses to make twice."""
        target = self.local_path(key)
        self.traffic.request("put", up=len(data))
        with store_errors("write", self.where(key)), temporary_in(target.parent) as (name, file):
            file.write(data)
            sync(file)
            try:
                target.hardlink_to(name)
            except FileExistsError:
                if self.read(key) != data:
                    return False
            except OSError as error:
                if error.errno in _NO_LINKS:
                    raise UnsafeStoreError(
                        f"{self.where(key)}: this file system makes no hard links, which publish-once needs",
                        remedy="put the store on a file system that does (ext4, XFS, NFS, Lustre), or use s3://",
                    ) from error
                raise
            sync_folder(target.parent)
        return True

    def delete(self, key: str) -> None:
        """See Store.delete."""
        path = self.local_path(key)
        self.traffic.request("delete")
        with store_errors("delete", self.where(key)):
            try:
                path.unlink()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):  # a folder is no object
                return
            sync_folder(path.parent)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:  # removed while we look
        return []


def _sound(key: str) -> str:
    try:
        key.encode()
    except UnicodeEncodeError:
        shown = key.encode(errors="surrogateescape").decode(errors="backslashreplace")
        raise StoreError(
            f"the file name {shown} is not UTF-8",
            remedy="rename it, for example with `convmv -f gbk -t utf-8 --notest`",
        ) from None
    return key
