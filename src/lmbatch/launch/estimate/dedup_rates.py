"""From the receipts of signing and comparing a few ranges to what the two stages cost. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lmbatch.launch.estimate.rates import Rate, fixed_part, ratio
from lmbatch.preprocess import Plan
from lmbatch.preprocess.dedup import CompareReceipt, SignReceipt
from lmbatch.store import to_json

# Of a block in a receipt: its number of records and its CRC-32, each on a line of its own.
BLOCK_JSON_BYTES = 28
_COMPARED_SPREAD = 0.5  # relative; one comparison is all that there is to go by


@dataclass(frozen=True)
class Compared:
    """The receipt of one partition, and how many rows of all kinds were compared in it."""

    receipt: CompareReceipt
    rows: float


@dataclass(frozen=True)
class DedupRates:
    """What a byte of input costs to sign, and a row to compare. Seconds are of one core, ``wait`` as in `Rates`."""

    documents: Rate
    payload_bytes: Rate  # of signatures, in the store
    sign_cpu_seconds: Rate
    sign_unit_cpu_seconds: float  # come once for every unit
    sign_wait: float
    sign_memory_bytes: int
    receipt_bytes: float  # of a signed task, but for its blocks
    row_cpu_seconds: Rate
    partition_cpu_seconds: float
    compare_wait: float
    compare_memory_bytes: int
    drops: float  # for each document, among those that were looked at: a lower bound
    most_drops: float  # for each document: as many as it has keys, unless all were looked at
    startup_seconds: float
    sign_start_cpu_seconds: float = 0.0  # that the first unit of a worker takes longer: it loads what it needs
    compare_start_cpu_seconds: float = 0.0


def dedup_rates_of(
    signs: Sequence[SignReceipt],
    first_sign: SignReceipt | None,
    compared: Sequence[Compared],
    first_compared: Compared | None,
    input_bytes: int,
    startup_seconds: float,
    *,
    all_compared: bool = False,
    starts: tuple[float, float] = (0.0, 0.0),
) -> DedupRates:
    """Rates from ranges of the ``input_bytes``; the first ones are of a much smaller range, as in `rates_of`.

    ``all_compared``: the partitions are those of the run, and so have the duplicates of all the input. ``starts`` is
    what a worker's first unit takes longer, of signing and of comparing.
    """
    sizes = [receipt.input_bytes for receipt in signs]
    fraction = min(1.0, sum(sizes) / max(1, input_bytes))
    cpu = [receipt.cpu_seconds for receipt in signs]
    fixed = 0.0
    if first_sign is not None:
        fixed = fixed_part(cpu, sizes, first_sign.cpu_seconds, first_sign.input_bytes)
    rows, seconds = [one.rows for one in compared], [one.receipt.cpu_seconds for one in compared]
    fixed_compare = 0.0
    if first_compared is not None:
        fixed_compare = fixed_part(seconds, rows, first_compared.receipt.cpu_seconds, first_compared.rows)
    documents = [receipt.documents for receipt in signs]
    keys = _keys(signs[0])
    drops = sum(sum(one.receipt.drops.counts) for one in compared) * keys / max(1, sum(rows))
    return DedupRates(
        documents=ratio(documents, sizes, fraction),
        payload_bytes=ratio([receipt.payload.size for receipt in signs], sizes, fraction),
        sign_cpu_seconds=ratio([max(0.0, one - fixed) for one in cpu], sizes, fraction),
        sign_unit_cpu_seconds=fixed,
        sign_wait=_wait(signs),
        sign_memory_bytes=max(receipt.peak_memory_bytes for receipt in signs),
        receipt_bytes=sum(map(_bytes_without_blocks, signs)) / len(signs),
        row_cpu_seconds=Rate(sum(max(0.0, one - fixed_compare) for one in seconds) / max(1, sum(rows)),
                             _COMPARED_SPREAD),
        partition_cpu_seconds=fixed_compare,
        compare_wait=_wait([one.receipt for one in compared]),
        compare_memory_bytes=max(one.receipt.peak_memory_bytes for one in compared),
        drops=drops,
        most_drops=drops if all_compared or fraction >= 1 else float(keys),
        startup_seconds=startup_seconds,
        sign_start_cpu_seconds=starts[0],
        compare_start_cpu_seconds=starts[1],
    )  # fmt: skip


def dedup_rates_from_run(
    plan: Plan, signs: Sequence[SignReceipt], compares: Sequence[CompareReceipt], startup_seconds: float
) -> DedupRates:
    """The same from the first receipts of a run: its partitions have about the same number of rows."""
    one = sum(receipt.documents for receipt in signs) / max(1, sum(receipt.input_bytes for receipt in signs))
    rows = one * plan.input_bytes * _keys(signs[0]) / (plan.partitions or 1)
    compared = [Compared(receipt, rows) for receipt in compares]
    return dedup_rates_of(signs, None, compared, None, plan.input_bytes, startup_seconds, all_compared=True)


def _keys(receipt: SignReceipt) -> int:
    """What a document is compared by: every region besides the places."""
    return len(receipt.regions) - 1


def _bytes_without_blocks(receipt: SignReceipt) -> int:
    return len(to_json(receipt)) - BLOCK_JSON_BYTES * sum(len(region.counts) for region in receipt.regions)


def _wait(receipts: Sequence[SignReceipt] | Sequence[CompareReceipt]) -> float:
    cpu = sum(receipt.cpu_seconds for receipt in receipts)
    return max(1.0, sum(receipt.seconds for receipt in receipts) / cpu) if cpu else 1.0
