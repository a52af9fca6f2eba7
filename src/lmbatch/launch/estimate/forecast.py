"""What a plan will cost at a place, from measured rates. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from lmbatch.launch.deal import by_bytes, input_bytes
from lmbatch.launch.estimate.makespan import Run, array_run, local_run
from lmbatch.launch.estimate.rates import Rates
from lmbatch.launch.estimate.traffic import driver_traffic, heartbeats, input_traffic, store_traffic
from lmbatch.launch.place import Place
from lmbatch.preprocess import Plan
from lmbatch.preprocess.estimate import Estimate, Interval
from lmbatch.shards.dtypes import itemsize_of
from lmbatch.shards.index import HEADER
from lmbatch.store import SPLITS, Traffic
from lmbatch.store.s3 import part_bytes

_PARTS_AT_ONCE = 4
_INDEX_BYTES_PER_DOCUMENT = 4 + 8 + 8
_ROW_BYTES = 150  # of a document in memory until a row group of docs.parquet is written
_ROWS_PER_GROUP = 65_536
_UPLOAD_BYTES_PER_SECOND = 100 * 2**20  # to object storage, which a worker waits for
_QUEUE_SECONDS = 5.0  # from sbatch to the first element on an idle cluster; waiting for others is not foreseen


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


@dataclass(frozen=True)
class Shards:
    """Payload files: their number by split, and the size of each."""

    by_split: dict[str, int]
    sizes: tuple[int, ...]


def forecast(plan: Plan, place: Place, basis: Basis, *, made: float) -> Estimate:
    """The estimate, without warnings. ``made`` is the time that it is made at, in seconds since the epoch."""
    rates, total = basis.rates, plan.input_bytes
    sizes = [input_bytes(task) for task in plan.tasks]
    shards = shards_of(plan, rates, sizes)
    documents, tokens = rates.documents.over(total), rates.tokens.over(total)
    s3 = basis.store.startswith("s3://")
    index = HEADER.size + 8  # and the last document index
    other = (
        len(shards.sizes) * index
        + documents.likely * _INDEX_BYTES_PER_DOCUMENT
        + rates.docs_bytes.over(total).likely
        + rates.task_docs_bytes * len(sizes)
    )
    runs = {level: _run(plan, place, basis, level) for level in ("low", "likely", "high")}
    wall = Interval(**{level: basis.driver_seconds + run.seconds for level, run in runs.items()})
    lengths = runs["likely"].batches
    batches = len(lengths)
    stored = _scaled(tokens, itemsize_of(plan.dtype), other)
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
        batches=batches,
        submissions=math.ceil(batches / basis.array_limit) if basis.array_limit else None,
        shards=shards.by_split,
        documents=documents,
        tokens=tokens,
        dropped_share=rates.dropped_share,
        quarantined_share=rates.quarantined_share,
        core_seconds=_scaled(rates.cpu_seconds.over(total), 1, rates.task_cpu_seconds * len(sizes)),
        wall_seconds=wall,
        startup_seconds=basis.startup_seconds,
        task_seconds=Interval(
            **{level: max(task_seconds(basis, sizes, level), default=0.0) for level in ("low", "likely", "high")}
        ),
        peak_memory_bytes=memory_of(plan, rates, shards, sizes, s3=s3),
        spool_bytes=spool_of_workers(plan, rates, sizes, place.workers if place.executor == "local" else 1),
        stored_bytes=stored,
        traffic=store_traffic(plan, batches, shards.sizes, round(other), s3=s3)
        + Traffic(put=round(rates.task_puts * len(sizes)), bytes_up=round(rates.task_put_bytes * len(sizes)))
        + heartbeats(lengths, plan.config.heartbeat_seconds),
        input_traffic=input_traffic(plan, s3=basis.raw.startswith("s3://")),
        driver_traffic=driver_traffic(plan, wall.likely, min(place.workers, batches), s3=s3),
    )


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


def _run(plan: Plan, place: Place, basis: Basis, level: str) -> Run:
    if place.executor == "local":
        seconds = task_seconds(basis, [input_bytes(task) for task in plan.tasks], level)
        return local_run(seconds, place.workers, basis.startup_seconds)
    batches = by_bytes(plan.tasks, place.slurm.batch_bytes, place.slurm.max_parallel)
    seconds = task_seconds(basis, [input_bytes(task) for batch in batches for task in batch], level)
    each = iter(seconds)
    lengths = [sum(islice(each, len(batch))) for batch in batches]
    run = array_run(lengths, place.slurm.max_parallel, basis.startup_seconds)
    return Run(_QUEUE_SECONDS + run.seconds + place.slurm.poll_seconds / 2, run.batches)


def _scaled(interval: Interval, factor: float, constant: float) -> Interval:
    return Interval(**{name: value * factor + constant for name, value in interval})
