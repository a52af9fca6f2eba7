"""Which records are shown, and which part of them: chosen by a hash of their place, so that no timing plays a part."""

from __future__ import annotations

import hashlib
from bisect import insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt

from lmbatch.preprocess.profile.schema import Sample, SampleKind

Bucket = tuple[SampleKind, str]  # kind and reason

_CONTEXT = 40  # characters shown before the first one that cleaning changed


def draw_of(path: str, position: int) -> int:
    """64 bits that depend on the place of a record alone."""
    message = f"{path}\0{position}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(message, digest_size=8).digest(), "big")


def draws_of(places: Iterable[tuple[str, int]]) -> npt.NDArray[np.uint64]:
    """`draw_of` for many paths and positions."""
    digests = []
    for path, position in places:
        hashed = _hash_of(path).copy()
        hashed.update(b"%d" % position)
        digests.append(hashed.digest())
    return np.frombuffer(b"".join(digests), ">u8").astype(np.uint64)


@lru_cache(maxsize=64)
def _hash_of(path: str) -> hashlib.blake2b:
    return hashlib.blake2b(f"{path}\0".encode("utf-8", "surrogatepass"), digest_size=8)


@cache
def _salt(bucket: Bucket) -> int:
    return int.from_bytes(hashlib.blake2b("\0".join(bucket).encode(), digest_size=8).digest(), "big")


@dataclass
class Reservoir:
    """For each kind and reason the ``limit`` samples with the smallest draws, whatever order they come in."""

    limit: int
    _kept: dict[Bucket, list[tuple[int, str, int, Sample]]] = field(default_factory=dict)

    def draw(self, bucket: Bucket, place: int) -> int | None:
        """The draw of a record whose place has the hash ``place``; None if it would not be kept."""
        # One hash for a record and one for a bucket, mixed: as good as one for each pair, and cheaper.
        draw = place ^ _salt(bucket)
        kept = self._kept.get(bucket, ())
        return draw if len(kept) < self.limit or (kept and draw <= kept[-1][0]) else None

    def candidates(self, bucket: Bucket, places: npt.NDArray[np.uint64]) -> list[int]:
        """The numbers of those ``places`` that `draw` may want: all of them until the bucket is full."""
        kept = self._kept.get(bucket, ())
        if len(kept) < self.limit:
            return list(range(len(places)))
        limit = kept[-1][0] if kept else -1
        draws = places ^ np.uint64(_salt(bucket))
        return [] if limit < 0 else np.flatnonzero(draws <= np.uint64(limit)).tolist()

    def add(self, sample: Sample) -> None:
        """Keep the sample while it is among the smallest."""
        kept = self._kept.setdefault((sample.kind, sample.reason), [])
        insort(kept, (sample.draw, sample.path, sample.position, sample), key=lambda row: row[:3])
        del kept[self.limit :]

    def __iter__(self) -> Iterator[Sample]:
        """All that are kept, by kind, reason and draw."""
        for bucket in sorted(self._kept):
            yield from (row[3] for row in self._kept[bucket])


def excerpt(text: str, size: int, start: int = 0) -> str:
    """``size`` characters of a text, with … where something is left out; what is no Unicode text becomes ``?``."""
    part = text[start : start + size]
    shown = ("…" if start else "") + part + ("…" if start + size < len(text) else "")
    return shown.encode("utf-8", "replace").decode()


def first_difference(one: str, other: str) -> int:
    """The number of characters that two texts have in common at their beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def excerpts(before: str, after: str, size: int) -> tuple[str | None, str]:
    """The same part of a text before and after cleaning, from a little before the first change; None if equal."""
    if before == after:
        return None, excerpt(after, size)
    start = _start(first_difference(before, after), size)
    return excerpt(before, size, start), excerpt(after, size, start)


def excerpt_at(text: str, place: int, size: int) -> str:
    """An excerpt with the character at ``place`` in it, and a little before it."""
    return excerpt(text, size, _start(place, size))


def _start(place: int, size: int) -> int:
    return max(place - min(_CONTEXT, size // 2), 0) if place > size - _CONTEXT else 0
