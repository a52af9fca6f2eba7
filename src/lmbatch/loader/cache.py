"""Local copies of shards: bounded, checked once, shared by the processes of one machine.

::

    DIR/shards/SHA256        a copy whose sha256 was right; its mtime is the time of its last use
    DIR/incoming/SHA256/     a download under way, with a sparse file `reserved` as large as the shard
    DIR/locks/SHA256.lock    held while this shard is downloaded or checked
    DIR/pins/PID-….json      what a live process is using: never evicted
    DIR/verified/….json      files of a local store that were checked where they are
    DIR/lock                 held while room is made

Locks are taken in the order shard, then DIR/lock. A killed process leaves nothing that counts: its locks are gone,
and so the next one removes its half-finished download and its pins.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from lmbatch.errors import ConfigError, StoreFullError
from lmbatch.loader.check import Stamps, check_file
from lmbatch.loader.locks import if_free, locked
from lmbatch.loader.pins import Pins, pinned
from lmbatch.store import MANIFEST_KEY, FileEntry, Store
from lmbatch.store.files import make_folders, store_errors, sync_folder

log = logging.getLogger(__name__)


class ShardCache:
    """Gives a local path for a stored file. Files of a local store are checked and used where they are."""

    def __init__(self, store: Store, directory: Path, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._store = store
        self._in_place = store.local_path(MANIFEST_KEY) is not None
        self._shards, self._incoming, self._locks, self._pins_folder, verified = (
            directory / name for name in ("shards", "incoming", "locks", "pins", "verified")
        )
        with store_errors("write", str(directory)):
            for folder in (self._shards, self._incoming, self._locks, self._pins_folder, verified):
                make_folders(folder)
        self._lock = directory / "lock"
        self._stamps = Stamps(verified, self._locks)
        with locked(self._lock):
            self._pins = Pins(self._pins_folder)
            self._remove_remains()

    def path(self, entry: FileEntry) -> Path:
        """A local file with the bytes of ``entry``; it is fetched if need be.

        The file stays while it is held (see hold()). Raises ShardError if the store's bytes have another sha256 than
        the entry, StoreFullError if no room can be made, and what the store raises.
        """
        where = self._store.where(entry.key)
        local = self._store.local_path(entry.key)
        if local is not None:
            self._stamps.check_once(local, entry, where)
            return local
        path = self._shards / entry.sha256
        if not _touched(path):
            with locked(self._locks / f"{entry.sha256}.lock"):
                if not _touched(path):  # another process was quicker
                    self._download(entry, path, where)
        return path

    def hold(self, needed: Sequence[FileEntry], upcoming: Sequence[FileEntry] = ()) -> list[FileEntry]:
        """Keeps these files, and no others, from eviction by anyone until the next call.

        Of ``upcoming`` as many as fit beside ``needed``; these are returned. Raises ConfigError if ``needed`` alone
        is larger than the cache.
        """
        if self._in_place:
            return list(upcoming)
        kept = {entry.sha256: entry.size for entry in needed}
        if sum(kept.values()) > self.max_bytes:
            raise ConfigError(
                f"{len(kept)} shards of {sum(kept.values())} bytes are needed at once, but data.cache.max_bytes is "
                f"{self.max_bytes}",
                remedy="raise data.cache.max_bytes, or set data.shuffle=windowed with a smaller data.window_shards",
            )
        fitting = []
        for entry in upcoming:
            if sum(kept.values()) + entry.size <= self.max_bytes:
                kept[entry.sha256] = entry.size
                fitting.append(entry)
        with locked(self._lock):
            self._pins.set(kept)
        return fitting

    def close(self) -> None:
        """Lets go of what was held. The files stay for the next run."""
        with locked(self._lock):
            self._pins.close()

    def _download(self, entry: FileEntry, path: Path, where: str) -> None:
        folder = self._incoming / entry.sha256
        self._reserve(entry, folder)
        try:
            self._store.get_file(entry.key, folder / "file")
            check_file(folder / "file", entry, where)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        # Under the lock, so that nobody counts the copy and its reservation both.
        with locked(self._lock), store_errors("write", str(path)):
            (folder / "file").replace(path)
            sync_folder(path.parent)
            shutil.rmtree(folder)

    def _reserve(self, entry: FileEntry, folder: Path) -> None:
        """Makes room and keeps it. Whoever waits here has reserved nothing, so two can never wait for each other."""
        while True:
            with locked(self._lock), store_errors("write", str(folder)):
                self._remove_remains()
                shutil.rmtree(folder, ignore_errors=True)
                missing = self._make_room(entry)
                if missing <= 0:
                    folder.mkdir()
                    with (folder / "reserved").open("wb") as file:
                        file.truncate(entry.size)
                    return
                coming = next(self._incoming.iterdir(), None)
            if coming is None:
                raise StoreFullError(
                    f"{self._shards}: no room for {entry.key} ({entry.size} bytes): data.cache.max_bytes is "
                    f"{self.max_bytes}, and all but {entry.size - missing} bytes are in use",
                    remedy="raise data.cache.max_bytes to two windows or more for each training run on this machine",
                )
            with locked(self._locks / f"{coming.name}.lock"):
                pass  # a download has ended; unless somebody is using it, it can be evicted now

    def _make_room(self, entry: FileEntry) -> int:
        """Evicts until the entry fits, and tells by how many bytes it does not."""
        copies = {path: path.stat() for path in self._shards.iterdir()}
        coming = sum(path.stat().st_size for path in self._incoming.glob("*/reserved"))
        missing = sum(status.st_size for status in copies.values()) + coming + entry.size - self.max_bytes
        in_use = pinned(self._pins_folder)
        for path in sorted(copies, key=lambda path: copies[path].st_mtime_ns):
            if missing <= 0:
                break
            if path.name not in in_use:
                log.info("evicting %s", path)
                path.unlink()
                missing -= copies[path].st_size
        return missing

    def _remove_remains(self) -> None:
        for folder in self._incoming.iterdir():
            with if_free(self._locks / f"{folder.name}.lock") as abandoned:
                if abandoned:
                    shutil.rmtree(folder, ignore_errors=True)


def total_bytes(entries: Iterable[FileEntry]) -> int:
    """Bytes that these files take in a cache; the same content counts once."""
    return sum({entry.sha256: entry.size for entry in entries}.values())


def _touched(path: Path) -> bool:
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True
