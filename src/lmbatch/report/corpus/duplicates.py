"""Clusters of duplicates, from the receipts of the comparing stage."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lmbatch.preprocess import Plan
from lmbatch.preprocess.dedup import ClusterEntry, CompareReceipt, compare_units, parse_compare
from lmbatch.preprocess.merge import read_all
from lmbatch.store import Store

_LARGEST = 10


@dataclass(frozen=True)
class DuplicateClusters:
    """Clusters of one reason: how many of each size (2 and more documents), and the largest, largest first.

    A cluster of near-duplicates is counted once for each bucket of signatures that it shares.
    """

    reason: str
    sizes: dict[int, int]
    largest: tuple[ClusterEntry, ...]

    @property
    def clusters(self) -> int:
        """How many there are."""
        return sum(self.sizes.values())


def duplicate_clusters(store: Store, plan: Plan) -> tuple[DuplicateClusters, ...]:
    """By reason; empty where no duplicates were looked for, or no comparison is done yet."""
    if plan.partitions is None:
        return ()
    receipts = read_all(store, [unit.id for unit in compare_units(plan)], parse_compare)
    return merge_clusters(receipts.values())


def merge_clusters(receipts: Iterable[CompareReceipt]) -> tuple[DuplicateClusters, ...]:
    """The sums over all partitions, and the largest clusters of all."""
    sizes: dict[str, dict[int, int]] = {}
    largest: dict[str, dict[tuple[str, int], ClusterEntry]] = {}
    for receipt in receipts:
        for reason, found in receipt.clusters.items():
            counts, best = sizes.setdefault(reason, {}), largest.setdefault(reason, {})
            for size, number in found.sizes.items():
                counts[size] = counts.get(size, 0) + number
            for entry in found.largest:  # of the buckets that one document stands for, the largest
                place = (entry.kept.path, entry.kept.position)
                if place not in best or best[place].size < entry.size:
                    best[place] = entry
    return tuple(
        DuplicateClusters(reason, dict(sorted(sizes[reason].items())), _largest(largest[reason].values()))
        for reason in sorted(sizes)
    )


def _largest(entries: Iterable[ClusterEntry]) -> tuple[ClusterEntry, ...]:
    ranked = sorted(entries, key=lambda entry: (-entry.size, entry.kept.path, entry.kept.position))
    return tuple(ranked[:_LARGEST])
