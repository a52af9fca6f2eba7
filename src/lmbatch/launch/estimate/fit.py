"""Where an estimate does not fit the place. Pure; the shell says what the place has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lmbatch.launch.deal import by_bytes, input_bytes
from lmbatch.launch.place import Place
from lmbatch.launch.slurm_submit import minutes_for
from lmbatch.preprocess import Plan
from lmbatch.preprocess.estimate import Estimate

_MIB = 2**20
_UNEVEN = 4  # a task that takes so many times its share keeps the others waiting
_MANY_SHARDS = 4


@dataclass(frozen=True)
class Room:
    """What a place has, in bytes; None where it is not known (a cluster's nodes, object storage)."""

    memory: int | None = None
    spool: int | None = None
    store: int | None = None


def warnings_of(plan: Plan, place: Place, estimate: Estimate, room: Room) -> Iterator[str]:
    """A sentence for everything that will not do, with the key to change."""
    yield from _memory(place, estimate, room)
    yield from _disk(estimate, room)
    if place.executor == "slurm":
        yield from _time_limit(plan, place, estimate)
    yield from _shape(plan, place, estimate)
    yield from _budget(plan, estimate)


def _memory(place: Place, estimate: Estimate, room: Room) -> Iterator[str]:
    peak = estimate.peak_memory_bytes
    if place.executor == "slurm" and place.slurm.memory < peak.high:
        verb = "needs" if place.slurm.memory < peak.likely else "may need"
        yield (
            f"a worker {verb} {_mib(peak.likely)} to {_mib(peak.high)} of memory, the site asks for "
            f"{_mib(place.slurm.memory)}: raise slurm.memory in the site file"
        )
    if place.executor == "local" and room.memory is not None and room.memory < place.workers * peak.likely:
        yield (
            f"{place.workers} workers need {_mib(place.workers * peak.likely)} of memory, {_mib(room.memory)} are "
            f"free: take fewer --workers"
        )


def _disk(estimate: Estimate, room: Room) -> Iterator[str]:
    if room.spool is not None and room.spool < estimate.spool_bytes.high:
        yield (
            f"the spool needs up to {_mib(estimate.spool_bytes.high)} of disk, {_mib(room.spool)} are free: "
            f"set `spool` to a larger disk, or lower shards.max_bytes"
        )
    if room.store is not None and room.store < estimate.stored_bytes.high:
        yield f"the store will take up to {_mib(estimate.stored_bytes.high)}, {_mib(room.store)} are free on its disk"


def _time_limit(plan: Plan, place: Place, estimate: Estimate) -> Iterator[str]:
    batches = by_bytes(plan.tasks, place.slurm.batch_bytes, place.slurm.max_parallel)
    largest = max(sum(map(input_bytes, batch)) for batch in batches)
    limit = 60 * minutes_for(place.slurm, largest)
    longest = max(input_bytes(task) for task in plan.tasks)
    needed = estimate.startup_seconds + estimate.task_seconds.high * largest / max(1, longest)
    if needed > limit:
        yield (
            f"an element may take {needed / 60:.0f} minutes, its time limit will be {limit / 60:.0f}: "
            f"raise slurm.minutes_per_gib in the site file (it goes on after its last receipt, but is requeued)"
        )


def _shape(plan: Plan, place: Place, estimate: Estimate) -> Iterator[str]:
    share = estimate.core_seconds.likely / place.workers
    longest = max(plan.tasks, key=input_bytes)
    files = {plan.files[piece.file].path: plan.files[piece.file].probe.why_not for piece in longest.pieces}
    path, why_not = next(iter(files.items()))
    if len(plan.tasks) > 1 and estimate.task_seconds.likely > _UNEVEN * share and why_not:
        yield (
            f"{longest.id} alone takes {estimate.task_seconds.likely / 60:.0f} minutes, since {path} cannot be cut "
            f"({why_not}): others will wait for it"
        )
    most, parts = plan.config.shards.max_bytes, estimate.shards.get("train", 0) / len(plan.tasks)
    if parts > _MANY_SHARDS:
        yield f"a task fills {parts:.0f} shards of {_mib(most)}, and a failure repeats them all: lower tasks.bytes"
    if estimate.measured_bytes < estimate.input_bytes and estimate.ranges == 1:
        yield f"only the beginning of {path} was measured: the rest may differ"


def _budget(plan: Plan, estimate: Estimate) -> Iterator[str]:
    budget = plan.config.budget
    records = estimate.documents.likely / max(1e-9, 1 - estimate.dropped_share - estimate.quarantined_share)
    allowed = max(budget.max_quarantined_records, budget.max_quarantined_fraction * records)
    if estimate.quarantined_share * records > allowed:
        yield (
            f"{estimate.quarantined_share:.1%} of the probed records cannot be read, about "
            f"{estimate.quarantined_share * records:,.0f} in all, and the budget allows {allowed:,.0f}: the run would "
            f"fail; check corpus.format and corpus.text_fields"
        )
    if estimate.documents.likely == 0:
        yield "no document came out of the probed ranges: check corpus.format, corpus.text_fields and the filters"


def _mib(size: float) -> str:
    return f"{size / _MIB:,.0f} MiB"
