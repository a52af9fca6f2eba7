"""How long batches take on so many places, the last wave included. Pure; times in seconds."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from lmbatch.launch.deal import by_bytes, guided
from lmbatch.launch.place import Place
from lmbatch.preprocess import Unit

# From sbatch to the first element on an idle cluster; waiting for others is not foreseen.
_QUEUE_SECONDS = 5.0


@dataclass(frozen=True)
class Run:
    """A simulated run: its length, and the length of each of its batches without the start."""

    seconds: float
    batches: tuple[float, ...]


def local_run(tasks: Sequence[float], workers: int, startup: float) -> Run:
    """Tasks of these lengths, dealt as the local backend does: a place that is free takes the next batch."""
    places = [0.0] * workers
    left = list(tasks)
    lengths: list[float] = []
    while left:
        now = places[0]
        free = sum(place <= now for place in places)
        dealt = guided(left, free)
        left = left[sum(map(len, dealt)) :]
        lengths += map(sum, dealt)
        for batch in dealt:
            heapq.heapreplace(places, now + startup + sum(batch))
    return Run(max(places), tuple(lengths))


def array_run(batches: Sequence[float], parallel: int, startup: float) -> Run:
    """Batches of these lengths in the order of their elements, ``parallel`` at a time."""
    places = [0.0] * parallel
    for batch in batches:
        heapq.heapreplace(places, places[0] + startup + batch)
    return Run(max(places), tuple(batches))


def stage_run(units: Sequence[Unit], seconds: Sequence[float], place: Place, startup: float) -> Run:
    """Units of these lengths at a place, dealt as its backend does."""
    if place.executor == "local":
        return local_run(seconds, place.workers, startup)
    each = iter(seconds)
    batches = by_bytes(units, place.slurm.batch_bytes, place.slurm.max_parallel)
    run = array_run([sum(islice(each, len(batch))) for batch in batches], place.slurm.max_parallel, startup)
    return Run(_QUEUE_SECONDS + run.seconds + place.slurm.poll_seconds / 2, run.batches)
