"""Local files that are whole or not there: temporary file, fsync, rename, fsync of the folder."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lmbatch.errors import ObjectNotFoundError, StoreAccessError, StoreError, StoreFullError

TEMPORARY_PREFIX = ".lmbatch-tmp-"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR}


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the name ``path`` on leaving, durably, and vanishes if the body raises."""
    with temporary_in(path.parent) as (name, file):
        yield file
        sync(file)
        name.replace(path)
        sync_folder(path.parent)


@contextmanager
def temporary_in(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A fresh file in ``folder`` (made if missing), removed on leaving unless it got another name.

    What a killed process leaves behind is never listed and never read.
    """
    make_folders(folder)
    # A name of its own, not derived from the target's, so that long names leave room for it.
    name = folder / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
    try:
        # 0o666 less the umask, as for any new file: tempfile's 0o600 would shut colleagues out of a shared folder.
        with os.fdopen(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            yield name, file
    finally:
        name.unlink(missing_ok=True)


def sync(file: BinaryIO) -> None:
    """Flush the file's bytes to the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable: a rename or link is lost by a power cut until this is done."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folders(folder: Path) -> None:
    """Make ``folder`` and its parents, each durable in the one above it."""
    if folder.is_dir():
        return
    make_folders(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


@contextmanager
def store_errors(action: str, where: str) -> Iterator[None]:
    """Turn an OSError of the body into the StoreError that belongs to it."""
    try:
        yield
    except OSError as error:
        raise _translated(error, action, where) from error


def _translated(error: OSError, action: str, where: str) -> StoreError:
    message = f"could not {action} {where}: {error.strerror or error}"
    if error.errno in _FULL:
        return StoreFullError(message, remedy="make room there (or raise the quota or file size limit) and run again")
    if error.errno in _REFUSED:
        return StoreAccessError(message, remedy="check the owner and permissions of the folder, and run again")
    if action == "read" and error.errno in _MISSING:
        return ObjectNotFoundError(f"{where}: no such object", remedy="check the name and the store's URI")
    return StoreError(message)
