"""What the two stages leave besides their payload: receipts, and where the blocks of a payload lie."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from pydantic import Field

from lmbatch.config.base import Section
from lmbatch.store import FORMAT_VERSION, FileEntry, PieceReceipt, Traffic, parse_stored


class Region(Section):
    """All records of one ``kind`` in a payload, from byte ``offset`` on: blocks one after the other, without gaps.

    ``counts`` and ``crc32`` are of the blocks, in records.
    """

    kind: str
    offset: int = Field(ge=0)
    counts: tuple[int, ...]
    crc32: tuple[int, ...]


class _StageReceipt(Section):
    """What every receipt says of the work itself."""

    format_version: int = FORMAT_VERSION
    task: str
    plan: str  # fingerprint of the plan
    attempt: str  # unique to one attempt; no part of the result
    payload: FileEntry
    seconds: float = Field(ge=0)
    cpu_seconds: float = Field(ge=0)
    peak_memory_bytes: int = Field(ge=0)
    input_bytes: int = Field(ge=0)
    traffic: Traffic | None = None
    input_traffic: Traffic | None = None


class SignReceipt(_StageReceipt):
    """The signs of a task's documents.

    Regions: ``places`` (one block, by row), then ``exact`` and ``band-00`` … with one block per partition. ``pieces``
    are what was read, ``documents`` the rows.
    """

    pieces: tuple[PieceReceipt, ...]
    documents: int = Field(ge=0)
    regions: tuple[Region, ...]

    def region(self, kind: str) -> Region:
        """The region of a kind. Raises StopIteration for one that is not there."""
        return next(region for region in self.regions if region.kind == kind)


class Origin(Section):
    """One document: ``row`` of ``task``, which came from ``position`` of ``path``."""

    task: str
    row: int
    path: str
    position: int


class ClusterEntry(Section):
    """One of the largest clusters: who stands for it, and some of those that were dropped."""

    size: int
    kept: Origin
    dropped: tuple[Origin, ...]


class ClusterReport(Section):
    """Clusters of one reason: how many of each size, and the largest.

    Of exact duplicates each cluster is counted once. Near-duplicates are counted by bucket: a pair that shares three
    bands counts three times, in the partitions of these bands.
    """

    sizes: dict[int, int]
    largest: tuple[ClusterEntry, ...]


class CompareReceipt(_StageReceipt):
    """The rows to drop that one partition knows of: ``drops`` has one block for each of ``tasks`` (by number).

    ``signed`` is the digest of the payloads that were compared. A row may stand in several partitions.
    """

    signed: str
    tasks: tuple[int, ...]
    drops: Region
    dropped: dict[str, int]  # rows by reason, as far as this partition knows
    clusters: dict[str, ClusterReport]  # by reason


def digest_of(receipts: Iterable[SignReceipt | CompareReceipt]) -> str:
    """One hash for the payloads of a whole stage, in order."""
    lines = (f"{receipt.task} {receipt.payload.sha256}\n" for receipt in receipts)
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def parse_sign(data: bytes, where: str) -> SignReceipt:
    """Raises StoreError for bytes that are no such receipt."""
    return parse_stored(SignReceipt, data, where)


def parse_compare(data: bytes, where: str) -> CompareReceipt:
    """Raises StoreError for bytes that are no such receipt."""
    return parse_stored(CompareReceipt, data, where)
