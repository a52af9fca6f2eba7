"""What signing and comparing will cost at a place, from measured rates. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from lmbatch.corpus.duplicates import DROP
from lmbatch.launch.estimate.dedup_rates import DedupRates
from lmbatch.launch.estimate.dedup_traffic import compare_traffic, kinds, shares, sign_traffic
from lmbatch.launch.estimate.intervals import LEVELS, each_level, scaled
from lmbatch.launch.estimate.makespan import stage_run
from lmbatch.launch.estimate.traffic import heartbeats, input_traffic
from lmbatch.launch.place import Place
from lmbatch.preprocess import Plan
from lmbatch.preprocess.dedup import compare_units, sign_units
from lmbatch.preprocess.dedup.signed import ROWS_AT_ONCE
from lmbatch.preprocess.estimate import Interval, StageEstimate
from lmbatch.store import Traffic

_ROW_MEMORY = 130  # of a row while a partition is gathered and sorted, measured on 2^20 of EXACT; 57 of BAND
_DROP_MEMORY = 60  # of a row that goes: order, kept and reason while they are put together
_BLOCK_MEMORY = 72  # of a block in a receipt that is held: two Python integers and their places in tuples
_GET_SECONDS, _READERS = 0.03, 8  # of a small ranged GET from object storage, so many at a time


def sign_stage(plan: Plan, place: Place, rates: DedupRates, *, store_s3: bool, raw_s3: bool) -> StageEstimate:
    """Of one unit for each task."""
    units = sign_units(plan)
    sizes = [unit.input_bytes for unit in units]
    total, most = sum(sizes), max(sizes, default=0)

    def seconds(level: str) -> list[float]:
        one = getattr(rates.sign_cpu_seconds.over(1), level)
        return [(one * size + rates.sign_unit_cpu_seconds) * rates.sign_wait for size in sizes]

    startup = rates.startup_seconds + rates.sign_start_cpu_seconds
    runs = {level: stage_run(units, seconds(level), place, startup) for level in LEVELS}
    likely = runs["likely"]
    fixed = rates.sign_unit_cpu_seconds * len(units) + rates.sign_start_cpu_seconds * len(likely.batches)
    laid_out = rates.payload_bytes.over(most)
    return StageEstimate(
        name="sign",
        units=len(units),
        batches=len(likely.batches),
        core_seconds=scaled(rates.sign_cpu_seconds.over(total), 1, fixed),
        wall_seconds=each_level(lambda level: runs[level].seconds),
        unit_seconds=each_level(lambda level: max(seconds(level), default=0.0)),
        peak_memory_bytes=_sign_memory(plan, rates, most),
        # The rows of each kind, and then the payload that they are laid out in.
        spool_bytes=scaled(laid_out, 2 * (place.workers if place.executor == "local" else 1)),
        stored_bytes=rates.payload_bytes.over(total),
        traffic=sign_traffic(plan, rates, len(likely.batches), s3=store_s3) + _beats(plan, likely.batches),
        input_traffic=input_traffic(plan, s3=raw_s3),
    )


def compare_stage(plan: Plan, place: Place, rates: DedupRates, *, store_s3: bool) -> StageEstimate:
    """Of one unit for each partition."""
    units = compare_units(plan)
    rows = rates.documents.value * plan.input_bytes * kinds(plan) / len(units)
    asked = compare_traffic(plan, rates, 1, s3=store_s3).get / len(units) if store_s3 else 0.0

    def core(level: str) -> float:
        return float(getattr(rates.row_cpu_seconds.over(rows * shares(plan, rates)), level))

    def seconds(level: str) -> list[float]:
        one = (core(level) + rates.partition_cpu_seconds) * rates.compare_wait + asked * _GET_SECONDS / _READERS
        return [one] * len(units)

    startup = rates.startup_seconds + rates.compare_start_cpu_seconds
    runs = {level: stage_run(units, seconds(level), place, startup) for level in LEVELS}
    likely = runs["likely"]
    fixed = rates.partition_cpu_seconds * len(units) + rates.compare_start_cpu_seconds * len(likely.batches)
    documents = rates.documents.value * plan.input_bytes
    # A row stands at most once in a partition, and has no more keys than kinds.
    most = documents * min(len(units), kinds(plan))
    drops = Interval(low=0.0, likely=min(most, rates.drops * documents), high=most)
    at_once = min(len(units), place.workers) if place.executor == "local" else 1
    return StageEstimate(
        name="compare",
        units=len(units),
        batches=len(likely.batches),
        core_seconds=each_level(lambda level: len(units) * core(level) + fixed),
        wall_seconds=each_level(lambda level: runs[level].seconds),
        unit_seconds=each_level(lambda level: max(seconds(level), default=0.0)),
        peak_memory_bytes=_compare_memory(plan, rates),
        spool_bytes=scaled(drops, DROP.itemsize * at_once / len(units)),
        stored_bytes=scaled(drops, DROP.itemsize),
        traffic=compare_traffic(plan, rates, len(likely.batches), s3=store_s3) + _beats(plan, likely.batches),
        input_traffic=Traffic(),
    )


def _sign_memory(plan: Plan, rates: DedupRates, most: int) -> Interval:
    """What was measured, and at most one kind of rows of the largest task with the order they are laid out in."""
    rows = rates.documents.value * most * (20 + 8 + 8 + 4)
    likely = rates.sign_memory_bytes + rows
    return Interval(
        low=rates.sign_memory_bytes, likely=likely, high=likely + 3 * plan.config.corpus.max_record_bytes
    )  # fmt: skip


def _compare_memory(plan: Plan, rates: DedupRates) -> Interval:
    """What was measured, the receipts of all tasks, the rows that are sorted at once, and those that go."""
    partitions = plan.partitions or 1
    rows = rates.documents.value * plan.input_bytes / partitions
    receipts = len(plan.tasks) * kinds(plan) * partitions * _BLOCK_MEMORY
    likely = rates.compare_memory_bytes + receipts + min(rows, ROWS_AT_ONCE) * _ROW_MEMORY
    dropped = rows * _DROP_MEMORY
    return Interval(low=rates.compare_memory_bytes, likely=likely + min(1.0, rates.drops) * dropped,
                    high=likely + dropped)  # fmt: skip


def _beats(plan: Plan, lengths: Sequence[float]) -> Traffic:
    return heartbeats(lengths, plan.config.heartbeat_seconds)
