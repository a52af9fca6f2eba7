"""What a plan will cost at a place, from measured rates. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lmbatch.launch.deal import input_bytes
from lmbatch.launch.estimate.dedup import compare_stage, sign_stage
from lmbatch.launch.estimate.dedup_rates import DedupRates
from lmbatch.launch.estimate.dedup_traffic import lists_traffic
from lmbatch.launch.estimate.intervals import LEVELS, added, each_level, largest, scaled
from lmbatch.launch.estimate.makespan import stage_run
from lmbatch.launch.estimate.rates import Rates
from lmbatch.launch.estimate.traffic import Watched, driver_traffic, heartbeats, input_traffic, store_traffic
from lmbatch.launch.place import Place
from lmbatch.preprocess import Plan
from lmbatch.preprocess.estimate import Estimate, Interval, StageEstimate
from lmbatch.shards.dtypes import itemsize_of
from lmbatch.shards.index import HEADER
from lmbatch.store import SPLITS, Traffic
from lmbatch.store.s3 import part_bytes

_PARTS_AT_ONCE = 4
_INDEX_BYTES_PER_DOCUMENT = 4 + 8 + 8
_ROW_BYTES = 150  # of a document in memory until a row group of docs.parquet is written
_ROWS_PER_GROUP = 65_536
_UPLOAD_BYTES_PER_SECOND = 100 * 2**20  # to object storage, which a worker waits for


@dataclass(frozen=True)
class Basis:
    """What the estimate rests on. ``uris`` are of the store and of the input; ``array_limit`` is the cluster's."""

    rates: Rates
    startup_seconds: float
    driver_seconds: float
    source: str
    ranges: int
    measured_bytes: int
    store: str
    raw: str
    array_limit: int | None = None
    dedup: DedupRates | None = None  # where the plan wants duplicates dropped


@dataclass(frozen=True)
class Shards:
    """Payload files: their number by split, and the size of each."""

    by_split: dict[str, int]
    sizes: tuple[int, ...]


def forecast(plan: Plan, place: Place, basis: Basis, *, made: float) -> Estimate:
    """The estimate, without warnings. ``made`` is the time that it is made at, in seconds since the epoch."""
    rates, total = basis.rates, plan.input_bytes
    shards = shards_of(plan, rates, [input_bytes(task) for task in plan.tasks])
    tokenize = tokenize_stage(plan, place, basis, shards)
    stages = (*_stages_before(plan, place, basis), tokenize)
    wall = added((stage.wall_seconds for stage in stages), basis.driver_seconds)
    limit = basis.array_limit
    return Estimate(
        plan=plan.fingerprint,
        made=made,
        source="receipts" if basis.source == "receipts" else "probe",
        executor=place.executor,
        workers=place.workers,
        ranges=basis.ranges,
        measured_bytes=basis.measured_bytes,
        input_bytes=total,
        tasks=len(plan.tasks),
        batches=sum(stage.batches for stage in stages),
        submissions=sum(math.ceil(stage.batches / limit) for stage in stages) if limit else None,
        shards=shards.by_split,
        documents=rates.documents.over(total),
        tokens=rates.tokens.over(total),
        dropped_share=rates.dropped_share,
        quarantined_share=rates.quarantined_share,
        core_seconds=added(stage.core_seconds for stage in stages),
        wall_seconds=wall,
        startup_seconds=basis.startup_seconds,
        task_seconds=largest(stage.unit_seconds for stage in stages if stage.name != "compare"),
        peak_memory_bytes=largest(stage.peak_memory_bytes for stage in stages),
        spool_bytes=largest(stage.spool_bytes for stage in stages),
        stored_bytes=added(stage.stored_bytes for stage in stages),
        traffic=sum((stage.traffic for stage in stages), Traffic()),
        input_traffic=sum((stage.input_traffic for stage in stages), Traffic()),
        driver_traffic=_of_driver(plan, place, basis, stages),
        stages=stages if len(stages) > 1 else (),
    )


def tokenize_stage(plan: Plan, place: Place, basis: Basis, shards: Shards) -> StageEstimate:
    """Of the tasks themselves."""
    rates, sizes = basis.rates, [input_bytes(task) for task in plan.tasks]
    s3, total = basis.store.startswith("s3://"), plan.input_bytes
    other = (
        len(shards.sizes) * (HEADER.size + 8)  # and the last document index
        + rates.documents.over(total).likely * _INDEX_BYTES_PER_DOCUMENT
        + rates.docs_bytes.over(total).likely
        + rates.task_docs_bytes * len(sizes)
    )
    runs = {
        level: stage_run(plan.tasks, task_seconds(basis, sizes, level), place, basis.startup_seconds)
        for level in LEVELS
    }
    lengths = runs["likely"].batches
    traffic = (
        store_traffic(plan, len(lengths), shards.sizes, round(other), s3=s3)
        + Traffic(put=round(rates.task_puts * len(sizes)), bytes_up=round(rates.task_put_bytes * len(sizes)))
        + heartbeats(lengths, plan.config.heartbeat_seconds)
    )
    if basis.dedup is not None:
        traffic += lists_traffic(plan, basis.dedup, len(lengths))
    return StageEstimate(
        name="tokenize",
        units=len(sizes),
        batches=len(lengths),
        core_seconds=scaled(rates.cpu_seconds.over(total), 1, rates.task_cpu_seconds * len(sizes)),
        wall_seconds=each_level(lambda level: runs[level].seconds),
        unit_seconds=each_level(lambda level: max(task_seconds(basis, sizes, level), default=0.0)),
        peak_memory_bytes=memory_of(plan, rates, shards, sizes, s3=s3),
        spool_bytes=spool_of_workers(plan, rates, sizes, place.workers if place.executor == "local" else 1),
        stored_bytes=scaled(rates.tokens.over(total), itemsize_of(plan.dtype), other),
        traffic=traffic,
        input_traffic=input_traffic(plan, s3=basis.raw.startswith("s3://")),
    )


def _stages_before(plan: Plan, place: Place, basis: Basis) -> tuple[StageEstimate, ...]:
    if basis.dedup is None:
        return ()
    store_s3, raw_s3 = basis.store.startswith("s3://"), basis.raw.startswith("s3://")
    return (
        sign_stage(plan, place, basis.dedup, store_s3=store_s3, raw_s3=raw_s3),
        compare_stage(plan, place, basis.dedup, store_s3=store_s3),
    )


def _of_driver(plan: Plan, place: Place, basis: Basis, stages: Sequence[StageEstimate]) -> Traffic:
    watched = [Watched(one.units, one.wall_seconds.likely, min(place.workers, one.batches)) for one in stages]
    return driver_traffic(plan, watched, s3=basis.store.startswith("s3://"))


def shards_of(plan: Plan, rates: Rates, sizes: Sequence[int]) -> Shards:
    """How many shards tasks of these sizes write: each task its own for every split that it has a document of."""
    itemsize, most = itemsize_of(plan.dtype), plan.config.shards.max_bytes
    fraction = plan.config.split.validation_fraction
    found: list[int] = []
    expected: dict[str, int] = {}
    for split, share in zip(SPLITS, (1 - fraction, fraction), strict=True):
        likely = 0.0
        for size in sizes:
            payload = rates.tokens.value * size * itemsize * share
            parts = max(1, math.ceil(payload / most))
            # The chance that one of the task's documents is of this split.
            likely += parts * (1 - (1 - share) ** (rates.documents.value * size))
        expected[split] = round(likely)
        whole = rates.tokens.value * sum(sizes) * itemsize * share
        found += [math.ceil(whole / expected[split])] * expected[split] if expected[split] else []
    return Shards(expected, tuple(found))


def task_seconds(basis: Basis, sizes: Sequence[int], level: str) -> list[float]:
    """Wall time of tasks of these sizes."""
    rates = basis.rates
    one = getattr(rates.cpu_seconds.over(1), level)
    sent = rates.tokens.value * 4 / _UPLOAD_BYTES_PER_SECOND if basis.store.startswith("s3://") else 0.0
    return [(one * size + rates.task_cpu_seconds) * rates.wait + sent * size for size in sizes]


def memory_of(plan: Plan, rates: Rates, shards: Shards, sizes: Sequence[int], *, s3: bool) -> Interval:
    """A worker's peak: what was measured, what a whole shard adds, and at most three records of the longest kind."""
    largest = max(shards.sizes, default=0)
    per_shard = rates.documents.value * max(sizes, default=0)
    rows = per_shard * (2 * _INDEX_BYTES_PER_DOCUMENT) + min(per_shard, _ROWS_PER_GROUP) * _ROW_BYTES
    part = part_bytes(largest)
    upload = min(largest, _PARTS_AT_ONCE * part) if s3 and largest > part else 0
    likely = rates.peak_memory_bytes + rows + upload
    return Interval(
        low=rates.peak_memory_bytes, likely=likely, high=likely + 3 * plan.config.corpus.max_record_bytes
    )  # fmt: skip


def spool_of_workers(plan: Plan, rates: Rates, sizes: Sequence[int], workers: int) -> Interval:
    """Disk for the shards that are being written: one per split for each worker."""
    itemsize, most = itemsize_of(plan.dtype), plan.config.shards.max_bytes
    largest = max(sizes, default=0)
    fraction = plan.config.split.validation_fraction
    tokens = rates.tokens.over(largest)
    other = (rates.documents.value * _INDEX_BYTES_PER_DOCUMENT + rates.docs_bytes.value) * largest

    def one(level: str) -> float:
        payload = getattr(tokens, level) * itemsize
        return float(sum(min(most, payload * share) for share in (1 - fraction, fraction)) + other)

    return Interval(**{level: workers * one(level) for level in ("low", "likely", "high")})
