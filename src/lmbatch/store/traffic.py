"""What goes to and from a store: requests by kind, and bytes. Every store counts its own."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from lmbatch.config.base import Section

Kind = Literal["get", "put", "post", "head", "list", "delete"]
KINDS: tuple[Kind, ...] = ("get", "put", "post", "head", "list", "delete")


class Traffic(Section):
    """Requests by kind, and the bytes of bodies. For a folder they are what the same calls would be to S3.

    ``put`` counts each part of a multipart upload, ``post`` its beginning and end, ``list`` pages of a thousand names.
    ``retries`` tells how many of the requests were repetitions; those that the S3 client makes by itself are not seen.
    """

    get: int = Field(0, ge=0)
    put: int = Field(0, ge=0)
    post: int = Field(0, ge=0)
    head: int = Field(0, ge=0)
    list: int = Field(0, ge=0)
    delete: int = Field(0, ge=0)
    retries: int = Field(0, ge=0)
    bytes_down: int = Field(0, ge=0)
    bytes_up: int = Field(0, ge=0)

    @property
    def requests(self) -> int:
        """Requests of every kind."""
        return sum(getattr(self, kind) for kind in KINDS)

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(**{name: count + getattr(other, name) for name, count in self})

    def __sub__(self, earlier: Traffic) -> Traffic:
        """What came after ``earlier``, a count of the same meter."""
        return Traffic(**{name: count - getattr(earlier, name) for name, count in self})


class Meter:
    """Counts the traffic of one store; several threads may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(Traffic.model_fields, 0)
        self._taken = Traffic()

    def request(self, kind: Kind, number: int = 1, *, down: int = 0, up: int = 0) -> None:
        """``number`` requests were sent, with ``up`` bytes; ``down`` bytes came back."""
        self._add(bytes_down=down, bytes_up=up, **{kind: number})

    def retried(self) -> None:
        """A request was one that had failed before."""
        self._add(retries=1)

    def came(self, down: int) -> None:
        """The body of a request that is counted already has arrived."""
        self._add(bytes_down=down)

    def total(self) -> Traffic:
        """Everything since the store was opened."""
        with self._lock:
            return Traffic(**self._counts)

    def take(self) -> Traffic:
        """Everything since the last call: so each byte stands in one receipt only."""
        with self._lock:
            now = Traffic(**self._counts)
            fresh, self._taken = now - self._taken, now
        return fresh

    def _add(self, **counts: int) -> None:
        with self._lock:
            for name, count in counts.items():
                self._counts[name] += count


class CountingFile(io.FileIO):
    """A local file for reading that tells a meter how many bytes were read of it."""

    def __init__(self, path: Path, meter: Meter) -> None:
        super().__init__(path, "r")
        self._meter = meter

    def readinto(self, buffer: Any) -> int | None:
        """See io.RawIOBase."""
        size = super().readinto(buffer)
        self._meter.came(size or 0)
        return size

    def readall(self) -> bytes:
        """See io.RawIOBase."""
        data = super().readall()
        self._meter.came(len(data))
        return data
