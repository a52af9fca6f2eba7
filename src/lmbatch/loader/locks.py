"""Locks between the processes of one machine: flock on a file, released by the kernel whatever becomes of its owner."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lmbatch.store.files import store_errors


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Waits until nobody else holds the lock. Raises StoreError where the file system has no locks."""
    with store_errors("lock", str(path)):
        descriptor = _open(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            os.close(descriptor)
            raise
    try:
        yield
    finally:
        os.close(descriptor)


def try_lock(path: Path) -> int | None:
    """A descriptor that holds the lock until it is closed, or None if somebody else holds it."""
    with store_errors("lock", str(path)):
        descriptor = _open(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
        return descriptor


@contextmanager
def if_free(path: Path) -> Iterator[bool]:
    """Whether the lock could be had; if so, it is held inside the block."""
    descriptor = try_lock(path)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _open(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
