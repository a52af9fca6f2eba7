"""Which rows of one partition are dropped, and what clusters they made."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from lmbatch.corpus.duplicates.records import DROP, Records

Orders = npt.NDArray[np.uint64]

_ROW = np.uint64(0xFFFF_FFFF)
LARGEST = 20
SHOWN = 5


@dataclass(frozen=True)
class Cluster:
    """Rows that go for one: ``kept`` is the first of them, ``dropped`` shows the next few; both as `row_order`."""

    size: int
    kept: int
    dropped: tuple[int, ...]


@dataclass
class Clusters:
    """Statistics of clusters: how many there are of each size (from 2), and the largest of them."""

    sizes: Counter[int] = field(default_factory=Counter)
    largest: list[Cluster] = field(default_factory=list)

    def add(self, other: Clusters) -> None:
        """Take in another's; of two that keep the same row only the larger is shown."""
        self.sizes += other.sizes
        best: dict[int, Cluster] = {}
        for cluster in (*self.largest, *other.largest):
            standing = best.get(cluster.kept)
            if standing is None or cluster.size > standing.size:
                best[cluster.kept] = cluster
        self.largest = sorted(best.values(), key=lambda cluster: (-cluster.size, cluster.kept))[:LARGEST]


@dataclass(frozen=True)
class Decision:
    """``dropped`` (ascending) and ``kept`` are (drops,) uint64 as of `row_order`; ``clusters`` tells of them."""

    dropped: Orders
    kept: Orders
    clusters: Clusters


def exact_drops(high: Orders, low: Orders, order: Orders) -> Decision:
    """All but the first of the rows with the same content hash. ``order`` is ascending; all are (rows,) uint64."""
    sorting = np.lexsort((low, high))  # stable: within a cluster the order stays ascending
    high, low = high[sorting], low[sorting]
    return _all_but_first(order[sorting], (high[1:] != high[:-1]) | (low[1:] != low[:-1]))


def near_drops(key: Orders, content: npt.NDArray[np.uint32] | None, order: Orders) -> Decision:
    """All but the first of the rows that share a band's key. ``order`` is ascending; all are (rows,).

    ``content`` (part of the content hash) leaves out copies: all copies of a text have its keys, so the first of
    them in a bucket is the first of all, and the others are dropped as exact duplicates elsewhere. None: a copy
    counts like any other near-duplicate.
    """
    sorting = np.argsort(key, kind="stable")
    sorting = sorting[_in_company(key[sorting])]
    if content is not None:
        by_content = sorting[np.lexsort((content[sorting], key[sorting]))]
        keys, contents = key[by_content], content[by_content]
        first = np.ones(len(by_content), dtype=bool)
        first[1:] = (keys[1:] != keys[:-1]) | (contents[1:] != contents[:-1])
        sorting = np.sort(by_content[first])
        sorting = sorting[np.argsort(key[sorting], kind="stable")]
    keys = key[sorting]
    return _all_but_first(order[sorting], keys[1:] != keys[:-1])


def one_per_row(order: Orders, kept: Orders, reason: npt.NDArray[np.uint32]) -> npt.NDArray[np.intp]:
    """Of several drops of a row the one that counts: the first reason in REASONS, then the earliest kept.

    Indices into the (drops,) arrays, ascending by ``order``.
    """
    sorting = np.lexsort((kept, reason, order))
    rows = order[sorting]
    first = np.ones(len(sorting), dtype=bool)
    first[1:] = rows[1:] != rows[:-1]
    return sorting[first]


def drop_records(order: Orders, kept: Orders, reason: npt.NDArray[np.uint32]) -> Records:
    """(drops,) arrays as DROP records; the task goes, since records are laid out by it."""
    records = np.empty(len(order), dtype=DROP)
    records["row"] = order & _ROW
    records["kept_task"] = kept >> np.uint64(32)
    records["kept_row"] = kept & _ROW
    records["reason"] = reason
    return records


def _in_company(keys: Orders) -> npt.NDArray[np.bool_]:
    """Which of the sorted keys have an equal neighbour: few, so that what follows is cheap."""
    same = np.zeros(len(keys), dtype=bool)
    equal = keys[1:] == keys[:-1]
    same[1:] |= equal
    same[:-1] |= equal
    return same


def _all_but_first(order: Orders, begins: npt.NDArray[np.bool_]) -> Decision:
    """``order`` by clusters; ``begins`` (rows - 1,) says where the next one begins."""
    if not len(order):
        return Decision(order, order, Clusters())
    starts = np.concatenate([[0], np.flatnonzero(begins) + 1])
    sizes = np.diff(np.append(starts, len(order)))
    first = np.zeros(len(order), dtype=bool)
    first[starts] = True
    dropped, kept = order[~first], np.repeat(order[starts], sizes - 1)
    sorting = np.argsort(dropped)
    return Decision(dropped[sorting], kept[sorting], _clusters(order, starts, sizes))


def _clusters(order: Orders, starts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]) -> Clusters:
    several = sizes > 1
    starts, sizes = starts[several], sizes[several]
    counts = dict(zip(*(values.tolist() for values in np.unique(sizes, return_counts=True)), strict=True))
    top = np.lexsort((order[starts], -sizes))[:LARGEST]
    largest = [
        Cluster(size, int(order[start]), tuple(order[start + 1 : start + min(size, 1 + SHOWN)].tolist()))
        for start, size in zip(starts[top].tolist(), sizes[top].tolist(), strict=True)
    ]
    return Clusters(Counter(counts), largest)
