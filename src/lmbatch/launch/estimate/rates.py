"""From the receipts of a few ranges to rates with their spread. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from lmbatch.preprocess.estimate import Interval
from lmbatch.store import Receipt

_UNKNOWN = 0.5  # relative uncertainty where one range is all there is
_ALMOST_ALL = 2.0  # standard errors to either side


@dataclass(frozen=True)
class Rate:
    """A ratio to input bytes; ``spread`` is relative, two standard errors."""

    value: float
    spread: float

    def over(self, size: float) -> Interval:
        """What it gives for so many bytes."""
        likely = self.value * size
        return Interval(low=max(0.0, likely * (1 - self.spread)), likely=likely, high=likely * (1 + self.spread))


@dataclass(frozen=True)
class Rates:
    """What a byte of input gives and costs. Seconds are of one core; ``task_*`` come once for every task."""

    documents: Rate
    tokens: Rate
    docs_bytes: Rate  # of docs.parquet
    cpu_seconds: Rate
    task_cpu_seconds: float
    task_docs_bytes: float
    wait: float  # wall time of a task for each second of CPU, at least 1
    dropped_share: float
    quarantined_share: float
    peak_memory_bytes: int
    task_puts: float  # objects that a task writes beside its shards: its receipt, what it reports
    task_put_bytes: float


def rates_of(receipts: Sequence[Receipt], first: Receipt | None, input_bytes: int) -> Rates:
    """Rates from receipts of ranges of the ``input_bytes``; ``first`` is of a much smaller range.

    What a task costs whatever its size is told by the small one: of cpu = a + b·bytes for it and for the others.
    """
    sizes = [receipt.input_bytes for receipt in receipts]
    fraction = min(1.0, sum(sizes) / max(1, input_bytes))
    fixed_cpu = _fixed(receipts, first, lambda receipt: receipt.cpu_seconds)
    fixed_docs = _fixed(receipts, first, _docs_bytes)

    def rate(of: Callable[[Receipt], float], fixed: float = 0.0) -> Rate:
        return ratio([max(0.0, of(receipt) - fixed) for receipt in receipts], sizes, fraction)

    records = max(1, sum(receipt.ledger.records for receipt in receipts))
    cpu = sum(receipt.cpu_seconds for receipt in receipts)
    return Rates(
        documents=rate(lambda receipt: receipt.ledger.documents_out),
        tokens=rate(_tokens),
        docs_bytes=rate(_docs_bytes, fixed_docs),
        cpu_seconds=rate(lambda receipt: receipt.cpu_seconds, fixed_cpu),
        task_cpu_seconds=fixed_cpu,
        task_docs_bytes=fixed_docs,
        wait=max(1.0, sum(receipt.seconds for receipt in receipts) / cpu) if cpu else 1.0,
        dropped_share=sum(receipt.ledger.records_dropped for receipt in receipts) / records,
        quarantined_share=sum(receipt.ledger.records_quarantined for receipt in receipts) / records,
        peak_memory_bytes=max(receipt.peak_memory_bytes for receipt in receipts),
        task_puts=max(1.0, median(map(_other_puts, receipts))),
        task_put_bytes=max(0.0, median(map(_other_bytes, receipts))),
    )


def ratio(values: Sequence[float], sizes: Sequence[int], fraction: float) -> Rate:
    """The ratio of two sums and its spread (Cochran, Sampling Techniques, 3rd ed., section 6.4).

    ``fraction`` of all bytes was looked at: the spread is 0 where that is all of them.
    """
    total, count = sum(sizes), len(sizes)
    if not total or not sum(values):
        return Rate(0.0, 0.0)
    value = sum(values) / total
    left = math.sqrt(max(0.0, 1 - fraction))
    if count < 2:
        return Rate(value, _UNKNOWN * left)
    residuals = sum((one - value * size) ** 2 for one, size in zip(values, sizes, strict=True))
    error = math.sqrt(residuals / (count - 1) / count) / (total / count)
    return Rate(value, min(1.0, _ALMOST_ALL * error * left / value))


def fixed_part(values: Sequence[float], sizes: Sequence[float], first: float, first_size: float) -> float:
    """``a`` of a + b·size, from the small one and the mean of the others; never negative, never all of it."""
    size, mean = sum(sizes) / len(sizes), sum(values) / len(values)
    if size <= first_size:
        return 0.0
    slope = max(0.0, (mean - first) / (size - first_size))
    return min(max(0.0, first - slope * first_size), 0.9 * min(values))


def _fixed(receipts: Sequence[Receipt], first: Receipt | None, of: Callable[[Receipt], float]) -> float:
    if first is None:
        return 0.0
    sizes = [receipt.input_bytes for receipt in receipts]
    return fixed_part(list(map(of, receipts)), sizes, of(first), first.input_bytes)


def _tokens(receipt: Receipt) -> float:
    return sum(shard.tokens for shard in receipt.shards)


def _other_puts(receipt: Receipt) -> int:
    return receipt.traffic.put - 3 * len(receipt.shards) if receipt.traffic is not None else 1


def _other_bytes(receipt: Receipt) -> int:
    shards = sum(shard.bin.size + shard.idx.size + shard.docs.size for shard in receipt.shards)
    return receipt.traffic.bytes_up - shards if receipt.traffic is not None else 0


def _docs_bytes(receipt: Receipt) -> float:
    return sum(shard.docs.size for shard in receipt.shards)
