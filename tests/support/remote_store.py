"""A store without local paths that needs no server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lmbatch.store import LocalStore, Store


class RemoteStore(Store):
    """A folder that behaves like object storage: nothing in it has a local path. Counts what is fetched."""

    def __init__(self, root: Path, before: Callable[[str, Path], None] = lambda key, path: None) -> None:
        self.folder = LocalStore(root)
        self.uri = "s3://bucket"
        self.fetched: list[str] = []
        self.before = before

    def read(self, key, start=0, end=None):
        return self.folder.read(key, start, end)

    def open(self, key):
        return self.folder.open(key)

    def info(self, key):
        return self.folder.info(key)

    def _list(self, folder):
        return self.folder._list(folder)

    def put(self, key, data):
        self.folder.put(key, data)

    def put_file(self, key, path):
        self.folder.put_file(key, path)

    def publish(self, key, data):
        return self.folder.publish(key, data)

    def delete(self, key):
        self.folder.delete(key)

    def get_file(self, key, path):
        self.fetched.append(key)
        self.before(key, path)
        super().get_file(key, path)
