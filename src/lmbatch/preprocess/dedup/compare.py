"""Second stage: the keys of one partition, from all tasks; which rows go, and what clusters there are."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from lmbatch.corpus.duplicates import (
    BAND,
    EXACT,
    REASONS,
    Clusters,
    Decision,
    drop_records,
    exact_drops,
    near_drops,
    one_per_row,
    row_order,
)
from lmbatch.corpus.duplicates.deciding import Orders
from lmbatch.corpus.duplicates.records import Records
from lmbatch.preprocess.dedup.blocks import store_payload, write_region
from lmbatch.preprocess.dedup.receipts import ClusterEntry, ClusterReport, CompareReceipt
from lmbatch.preprocess.dedup.signed import SignedTasks
from lmbatch.preprocess.dedup.units import ComparePartition
from lmbatch.preprocess.live import LiveTask
from lmbatch.preprocess.plan import Plan
from lmbatch.preprocess.task import peak_memory, receipt_key
from lmbatch.store import Store, Traffic, to_json


def run_compare(
    store: Store,
    plan: Plan,
    unit: ComparePartition,
    signed: SignedTasks,
    spool: Path,
    live: LiveTask,
) -> CompareReceipt | None:
    """Compare one partition, unless the receipt is there already (then None).

    Memory: the rows that ``signed`` gives at once (more only where one key alone has more), and those that go.
    Raises StoreError if a block is not what its receipt says.
    """
    if store.exists(receipt_key(unit.id)):
        return None
    live.begin(unit.id, unit.input_bytes)
    clock, cpu = time.monotonic(), time.process_time()
    found = _Found()
    for kind in _kinds(plan):
        for decision in _decisions(plan, unit, signed, kind):
            found.add(decision, REASONS.index("duplicate" if kind == "exact" else "near_duplicate"))
    tasks, blocks = found.by_task()
    spool.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f"{unit.id}-", dir=spool) as folder:
        path = Path(folder) / "payload"
        with path.open("wb") as out:
            region = write_region(out, "drops", blocks)
        entry = store_payload(store, unit.id, path)
    receipt = CompareReceipt(
        task=unit.id,
        plan=plan.fingerprint,
        attempt=uuid.uuid4().hex,
        payload=entry,
        signed=signed.digest,
        tasks=tasks,
        drops=region,
        dropped=found.counts(),
        clusters={reason: _report(clusters, signed) for reason, clusters in found.clusters.items()},
        seconds=time.monotonic() - clock,
        cpu_seconds=time.process_time() - cpu,
        peak_memory_bytes=peak_memory(),
        input_bytes=unit.input_bytes,
        traffic=store.traffic.take() + Traffic(put=1),  # its own publishing, as in the receipt of a task
    )
    store.publish(receipt_key(unit.id), to_json(receipt))
    store.traffic.take()
    return receipt


def _kinds(plan: Plan) -> list[str]:
    assert plan.config.dedup is not None
    near = plan.config.dedup.near
    bands = [f"band-{number:02d}" for number in range(near.bands if near else 0)]
    return [*(["exact"] if plan.config.dedup.exact else []), *bands]


def _decisions(plan: Plan, unit: ComparePartition, signed: SignedTasks, kind: str) -> Iterator[Decision]:
    assert plan.config.dedup is not None
    if kind == "exact":
        for records, tasks in signed.gather(kind, unit.number, EXACT, "high"):
            yield exact_drops(records["high"], records["low"], row_order(tasks, records["row"]))
        return
    for records, tasks in signed.gather(kind, unit.number, BAND, "key"):
        content = records["content"] if plan.config.dedup.exact else None
        yield near_drops(records["key"], content, row_order(tasks, records["row"]))


class _Found:
    """What was decided so far: one drop per row, and the clusters by reason."""

    def __init__(self) -> None:
        self.clusters: dict[str, Clusters] = {}
        self._order: Orders = np.empty(0, dtype=np.uint64)
        self._kept: Orders = np.empty(0, dtype=np.uint64)
        self._reason: npt.NDArray[np.uint32] = np.empty(0, dtype=np.uint32)

    def add(self, decision: Decision, reason: int) -> None:
        """Take in a decision; a row that is dropped already keeps the better reason and the earlier ``kept``."""
        self.clusters.setdefault(REASONS[reason], Clusters()).add(decision.clusters)
        order = np.concatenate([self._order, decision.dropped])
        kept = np.concatenate([self._kept, decision.kept])
        reasons = np.concatenate([self._reason, np.full(len(decision.dropped), reason, dtype=np.uint32)])
        chosen = one_per_row(order, kept, reasons)
        self._order, self._kept, self._reason = order[chosen], kept[chosen], reasons[chosen]

    def by_task(self) -> tuple[tuple[int, ...], Iterator[Records]]:
        """The numbers of the tasks that lose rows, and the DROP records of each."""
        records = drop_records(self._order, self._kept, self._reason)
        tasks, starts = np.unique(self._order >> np.uint64(32), return_index=True)
        return tuple(tasks.tolist()), iter(np.split(records, starts[1:]) if len(tasks) else [])

    def counts(self) -> dict[str, int]:
        """Rows that go, by reason."""
        return {reason: int((self._reason == REASONS.index(reason)).sum()) for reason in self.clusters}


def _report(clusters: Clusters, signed: SignedTasks) -> ClusterReport:
    return ClusterReport(
        sizes=dict(sorted(clusters.sizes.items())),
        largest=tuple(
            ClusterEntry(
                size=cluster.size,
                kept=signed.origin(cluster.kept),
                dropped=tuple(signed.origin(order) for order in cluster.dropped),
            )
            for cluster in clusters.largest
        ),
    )
