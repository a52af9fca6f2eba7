"""The requests of de-duplication, from how its stages use a store. Pure.

What each part asks for: `run_sign`, `SignedTasks` and `run_compare`, `DropLists`. How many duplicates there are decides
some of it (`origins`, and blocks of drop lists): while that is not known, as many are counted as there can be.
"""

from __future__ import annotations

import math

from lmbatch.corpus.duplicates import BAND, DROP, EXACT, PLACE
from lmbatch.corpus.duplicates.deciding import LARGEST, SHOWN
from lmbatch.launch.estimate.dedup_rates import BLOCK_JSON_BYTES, DedupRates
from lmbatch.launch.estimate.traffic import plan_bytes
from lmbatch.preprocess import Plan
from lmbatch.preprocess.dedup.signed import ROWS_AT_ONCE
from lmbatch.store import Traffic
from lmbatch.store.s3 import part_bytes, parts_of

_COMPARE_RECEIPT_BYTES, _ORIGIN_JSON_BYTES = 1200, 250


def kinds(plan: Plan) -> int:
    """How many keys a document is compared by."""
    dedup = plan.config.dedup
    assert dedup is not None
    return dedup.exact + (dedup.near.bands if dedup.near else 0)


def reasons(plan: Plan) -> int:
    """How many reports of clusters a partition makes."""
    dedup = plan.config.dedup
    assert dedup is not None
    return dedup.exact + (dedup.near is not None)


def row_bytes(plan: Plan) -> int:
    """Of the keys of one document, without its place."""
    dedup = plan.config.dedup
    assert dedup is not None
    return dedup.exact * EXACT.itemsize + (dedup.near.bands if dedup.near else 0) * BAND.itemsize


def documents_of(plan: Plan, rates: DedupRates) -> list[float]:
    """Of each task."""
    return [rates.documents.value * task.input_bytes for task in plan.tasks]


def filled(documents: float, partitions: int) -> float:
    """How many of the partitions get one of so many documents; an empty block is not asked for."""
    return float(partitions * (1 - (1 - 1 / partitions) ** documents))


def shares(plan: Plan, rates: DedupRates) -> int:
    """How often the blocks of a partition are read, since not all of its rows are held at once."""
    rows = rates.documents.value * plan.input_bytes / (plan.partitions or 1)
    return max(1, math.ceil(rows / ROWS_AT_ONCE))


def sign_receipt_bytes(plan: Plan, rates: DedupRates) -> float:
    """Of one task's receipt, which carries the size and checksum of each block."""
    return rates.receipt_bytes + BLOCK_JSON_BYTES * (1 + kinds(plan) * (plan.partitions or 1))


def sign_traffic(plan: Plan, rates: DedupRates, batches: int, *, s3: bool) -> Traffic:
    """The plan for each batch, and of each task a look for its receipt, its payload and its receipt."""
    payloads = [round(rates.payload_bytes.value * task.input_bytes) for task in plan.tasks]
    in_parts = [size for size in payloads if size > part_bytes(size)]
    return Traffic(
        get=batches,
        head=len(payloads) * (2 if s3 else 1),
        put=sum(map(parts_of, payloads)) + len(payloads),
        post=2 * len(in_parts) if s3 else 0,
        bytes_down=batches * plan_bytes(plan),
        bytes_up=sum(payloads),
    )


def compare_traffic(plan: Plan, rates: DedupRates, batches: int, *, s3: bool) -> Traffic:
    """The receipts of all tasks for each batch, and of each partition its blocks of every task and kind."""
    partitions, tasks = plan.partitions or 1, len(plan.tasks)
    documents = documents_of(plan, rates)
    blocks = sum(filled(one, partitions) for one in documents) * kinds(plan) * shares(plan, rates)
    places = origins(plan, rates)
    return Traffic(
        get=round(batches * (1 + tasks) + blocks + places),
        head=partitions * (2 if s3 else 1),
        put=2 * partitions,
        bytes_down=round(
            batches * (plan_bytes(plan) + tasks * sign_receipt_bytes(plan, rates))
            + sum(documents) * row_bytes(plan) * shares(plan, rates)
            + places * PLACE.itemsize
        ),
        bytes_up=round(rates.drops * sum(documents) * DROP.itemsize),
    )  # fmt: skip


def origins(plan: Plan, rates: DedupRates) -> float:
    """Lookups of where the documents of the largest clusters came from: one that is kept, and some that are dropped."""
    partitions, clusters = plan.partitions or 1, reasons(plan) * LARGEST
    drops = rates.most_drops * rates.documents.value * plan.input_bytes / partitions
    return partitions * (min(clusters, drops) + min(clusters * SHOWN, drops))


def lists_traffic(plan: Plan, rates: DedupRates, batches: int) -> Traffic:
    """What tasks read besides, to know their duplicates: receipts, and a block of each partition that has any."""
    partitions, documents = plan.partitions or 1, documents_of(plan, rates)
    receipt = _COMPARE_RECEIPT_BYTES + origins(plan, rates) / partitions * _ORIGIN_JSON_BYTES
    return Traffic(
        get=round(batches * partitions + len(documents)
                  + sum(filled(rates.most_drops * one, partitions) for one in documents)),
        bytes_down=round(
            batches * partitions * receipt + len(documents) * sign_receipt_bytes(plan, rates)
            + rates.drops * sum(documents) * DROP.itemsize
        ),
    )  # fmt: skip
