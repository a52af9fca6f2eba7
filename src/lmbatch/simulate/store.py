"""A store in memory, whose answers take simulated time where a driver waits for them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from lmbatch.errors import ObjectNotFoundError
from lmbatch.simulate.world import World
from lmbatch.store import Store
from lmbatch.store.base import ObjectInfo
from lmbatch.store.keys import check_key, check_range
from lmbatch.store.traffic import Kind, Meter

_PAGE = 1000  # names that S3 lists at once
_SIDE_BY_SIDE = 32  # requests of `read_many`


class SimulatedStore(Store):
    """``objects`` may be shared by several of these, each with a meter of its own.

    ``latency``: seconds that a request takes of the time of whoever waits for it; None for work whose time is counted
    as a whole, and for threads, which cannot wait in a simulation.
    """

    def __init__(
        self, objects: dict[str, bytes], world: World | None = None, latency: float = 0.0, uri: str = "memory://store"
    ) -> None:
        self.uri, self.traffic = uri, Meter()
        self._objects, self._world, self._latency = objects, world, latency

    def read(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """See Store.read."""
        check_range(key, start, end)
        data = self._get(key)[start:end]
        self.traffic.request("get", down=len(data))
        return data

    def read_many(self, keys: Sequence[str]) -> Iterator[bytes | None]:
        """See Store.read_many."""
        self._wait(-(-len(keys) // _SIDE_BY_SIDE))
        found = [self._objects.get(key) for key in keys]
        for data in found:
            self.traffic.request("get", down=len(data or b""))
        return iter(found)

    def open(self, key: str) -> BinaryIO:
        """See Store.open."""
        return io.BytesIO(self.read(key))

    def info(self, key: str) -> ObjectInfo:
        """See Store.info."""
        self._ask("head")
        return self._info(key, self._get(key))

    def _list(self, folder: str) -> Iterable[ObjectInfo]:
        found = [self._info(key, data) for key, data in self._objects.items() if key.startswith(folder)]
        pages = max(1, -(-len(found) // _PAGE))
        self.traffic.request("list", pages)
        self._wait(pages)
        return found

    def put(self, key: str, data: bytes) -> None:
        """See Store.put."""
        self._ask("put", up=len(data))
        self._objects[check_key(key)] = data

    def put_file(self, key: str, path: Path) -> None:
        """See Store.put_file."""
        self.put(key, path.read_bytes())

    def publish(self, key: str, data: bytes) -> bool:
        """See Store.publish."""
        self._ask("put", up=len(data))
        return self._objects.setdefault(check_key(key), data) == data

    def delete(self, key: str) -> None:
        """See Store.delete."""
        self._ask("delete")
        self._objects.pop(key, None)

    def _get(self, key: str) -> bytes:
        try:
            return self._objects[key]
        except KeyError:
            raise ObjectNotFoundError(f"{self.where(key)}: there is no such object") from None

    def _info(self, key: str, data: bytes) -> ObjectInfo:
        return ObjectInfo(key, len(data), None, None)

    def _ask(self, kind: Kind, up: int = 0) -> None:
        self.traffic.request(kind, up=up)
        self._wait(1)

    def _wait(self, requests: int) -> None:
        if self._world is not None:
            self._world.sleep(requests * self._latency)
