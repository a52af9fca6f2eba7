"""The sha256 of local files, and a memory of the ones that were right."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from lmbatch.errors import ShardError
from lmbatch.loader.locks import locked
from lmbatch.store import FileEntry
from lmbatch.store.files import replacing, store_errors


def check_file(path: Path, entry: FileEntry, where: str) -> None:
    """Raises ShardError, naming ``where`` and both hashes, unless the file holds the bytes that ``entry`` says."""
    with store_errors("read", where), path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != entry.sha256:
        raise ShardError(
            f"{where}: sha256 is {found}, the manifest says {entry.sha256}",
            remedy="the shard is damaged: run `lmbatch verify` and then `lmbatch repair` on the store",
        )


class Stamps:
    """Remembers in a folder which files were checked, by path, size and time of modification."""

    def __init__(self, folder: Path, locks: Path) -> None:
        self._folder = folder
        self._locks = locks

    def check_once(self, path: Path, entry: FileEntry, where: str) -> None:
        """check_file(), unless this very file passed it before; of several processes one does the work."""
        name = hashlib.sha256(str(path).encode()).hexdigest()
        stamp = self._folder / f"{name}.json"
        if self._holds(stamp, path, entry, where):
            return
        with locked(self._locks / f"{name}.lock"):
            if self._holds(stamp, path, entry, where):
                return
            facts = _facts(path, entry, where)
            check_file(path, entry, where)
            with replacing(stamp) as file:
                file.write(json.dumps(facts).encode())

    def _holds(self, stamp: Path, path: Path, entry: FileEntry, where: str) -> bool:
        try:
            remembered = json.loads(stamp.read_bytes())
        except (FileNotFoundError, ValueError):
            return False
        return bool(remembered == _facts(path, entry, where))


def _facts(path: Path, entry: FileEntry, where: str) -> dict[str, str | int]:
    with store_errors("read", where):
        status = path.stat()
    return {"path": str(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": entry.sha256}
