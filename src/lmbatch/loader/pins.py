"""Which cached files are in use by a live process, so that no other process evicts them."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from lmbatch.loader.locks import if_free, try_lock


class Pins:
    """One process's list of names in use: a file in ``folder``, locked for as long as the list is valid.

    Reading and writing happen under the cache's own lock (the caller's duty), so that nobody sees half a list.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"{os.getpid()}-{secrets.token_hex(4)}.json"
        self._descriptor = try_lock(self._path)

    def set(self, names: Iterable[str]) -> None:
        """Replaces the list."""
        assert self._descriptor is not None
        data = json.dumps(sorted(names)).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, data, 0)

    def close(self) -> None:
        """Nothing is in use any more. May be called twice."""
        if self._descriptor is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None


def pinned(folder: Path) -> set[str]:
    """The names that live processes use. Lists of processes that died are removed."""
    return {name for path in folder.glob("*.json") for name in _names(path)}


def _names(path: Path) -> Iterator[str]:
    with if_free(path) as dead:
        if dead:
            path.unlink(missing_ok=True)
        else:
            yield from json.loads(path.read_bytes() or b"[]")
