"""What the second stage found, over all partitions: for reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from lmbatch.preprocess.dedup.receipts import ClusterEntry, ClusterReport, parse_compare
from lmbatch.preprocess.dedup.stored import read_stage
from lmbatch.preprocess.dedup.units import compare_units
from lmbatch.preprocess.plan import Plan
from lmbatch.store import Store

_LARGEST = 20


def duplicate_clusters(store: Store, plan: Plan) -> dict[str, ClusterReport]:
    """Clusters by reason (see `ClusterReport` for what they count); empty without de-duplication.

    Raises PlanError if the stage is not done, StoreError for a receipt that cannot be trusted.
    """
    receipts = read_stage(store, plan, [unit.id for unit in compare_units(plan)], parse_compare)
    reasons = sorted({reason for receipt in receipts for reason in receipt.clusters})
    return {
        reason: _together(receipt.clusters[reason] for receipt in receipts if reason in receipt.clusters)
        for reason in reasons
    }


def _together(reports: Iterable[ClusterReport]) -> ClusterReport:
    sizes: Counter[int] = Counter()
    largest: dict[tuple[str, int], ClusterEntry] = {}
    for report in reports:
        sizes.update(report.sizes)
        for entry in report.largest:
            place = (entry.kept.task, entry.kept.row)
            if place not in largest or entry.size > largest[place].size:
                largest[place] = entry
    best = sorted(largest.items(), key=lambda item: (-item[1].size, item[0]))[:_LARGEST]
    return ClusterReport(sizes=dict(sorted(sizes.items())), largest=tuple(entry for _, entry in best))
