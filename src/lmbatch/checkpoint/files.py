"""Hashing and fsync of local files and folders."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lmbatch.errors import CheckpointError, LmbatchError, StoreFullError

# Large, so that a thread that writes in the background asks for the interpreter seldom.
_CHUNK = 16 * 2**20
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file, read in bounded memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class Digest:
    """Size in bytes and hex sha256 of a file, by whoever wrote it."""

    size: int
    sha256: str


Digests = Mapping[str, Digest]  # by the file's name within its payload


class HashedFile:
    """A new file whose bytes are hashed on their way to it, so that nobody has to read them again."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._hash = hashlib.sha256()

    def write(self, data: bytes | memoryview) -> None:
        """Append. Raises OSError."""
        view = memoryview(data)
        for start in range(0, view.nbytes, _CHUNK):
            piece = view[start : start + _CHUNK]
            self._file.write(piece)
            self._hash.update(piece)

    def close(self) -> Digest:
        """What was written. Raises OSError if the rest of it does not fit on the disk."""
        size = self._file.tell()
        self._file.close()
        return Digest(size, self._hash.hexdigest())

    def __enter__(self) -> HashedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def sync(path: Path) -> None:
    """fsync a file, or a folder's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def files_under(folder: Path) -> list[Path]:
    """Every file below a folder, in order of its path."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def sync_folders(folder: Path) -> None:
    """fsync a folder and all folders below it; the files themselves are the caller's."""
    for path in folder.rglob("*"):
        if path.is_dir():
            sync(path)
    sync(folder)


def remove_tree(folder: Path) -> None:
    """Delete a folder; one that is not there any more is no error."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


@contextlib.contextmanager
def disk_errors(path: Path, doing: str) -> Iterator[None]:
    """Turn a failing disk into an error of ours that names the path: StoreFullError if it is full."""
    try:
        yield
    except LmbatchError:
        raise
    except Exception as error:
        if not is_full(error) and not isinstance(error, OSError):
            raise
        kind = StoreFullError if is_full(error) else CheckpointError
        remedy = "free space there; the checkpoints saved before are untouched" if is_full(error) else None
        raise kind(f"{path}: {doing} failed: {error}", remedy=remedy) from error


def is_full(error: BaseException) -> bool:
    """Does this error mean that the disk or the quota is full? safetensors hides the errno in its text."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    return any(f"os error {number})" in str(error) for number in _FULL)
