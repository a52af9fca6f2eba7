"""The requests and bytes of a job, from how its parts use a store. Pure.

What each part asks for: `TaskBatch.run`, `run_task`, `Pipeline` and the readers for workers; `run_preprocess` for the
driver. A folder counts as S3 would, but for what the S3 store looks up before it opens and after it uploads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lmbatch.corpus.stream import CHUNK_BYTES
from lmbatch.preprocess import Plan, PlannedPiece
from lmbatch.store import PROBE_TRAFFIC, Traffic
from lmbatch.store.s3 import part_bytes, parts_of

_FIRST_BEAT_SECONDS, _BEAT_BYTES = 1.0, 600
_POLL_SECONDS, _LONGEST_POLL_SECONDS, _POLL_GROWTH = 0.1, 2.0, 1.5


def store_traffic(plan: Plan, batches: int, shards: Sequence[int], other_files: int, *, s3: bool) -> Traffic:
    """What the workers exchange with the store for their shards, and to begin.

    ``shards`` are the sizes of the payload files, ``other_files`` the bytes of all .idx and .docs.parquet files.
    """
    names, tokenizer_bytes = len(plan.tokenizer.files), sum(file.size for file in plan.tokenizer.files)
    uploads = 3 * len(shards)
    in_parts = [size for size in shards if size > part_bytes(size)]
    return Traffic(
        get=batches * (1 + names),
        put=sum(map(parts_of, shards)) + 2 * len(shards),
        post=2 * len(in_parts) if s3 else 0,
        head=len(plan.tasks) + (uploads + batches * names if s3 else 0),
        bytes_down=batches * (plan_bytes(plan) + tokenizer_bytes),
        bytes_up=sum(shards) + other_files,
    )  # fmt: skip


def heartbeats(batches: Sequence[float], every: float) -> Traffic:
    """What workers write of how far they are, in batches of these lengths in seconds; see `preprocess.Pulse`."""
    if every <= 0:
        return Traffic()
    first = min(every, _FIRST_BEAT_SECONDS)
    beating = [length for length in batches if length > first]
    beats = sum(1 + int((length - first) / every) for length in beating)
    return Traffic(put=beats, bytes_up=beats * _BEAT_BYTES, delete=len(beating))


def plan_bytes(plan: Plan) -> int:
    """About how large the stored plan is; writing it out to know would take long for a large one."""
    pieces = sum(len(task.pieces) for task in plan.tasks)
    return 6000 + 360 * len(plan.files) + 65 * len(plan.tasks) + 80 * pieces


def input_traffic(plan: Plan, *, s3: bool) -> Traffic:
    """What the workers read of the input: whole chunks, so that small pieces of large files cost more than they are."""
    pieces = [piece for task in plan.tasks for piece in task.pieces]
    sizes = [bytes_read(plan, piece) for piece in pieces]
    looks = 2 * sum(len({piece.file for piece in task.pieces}) for task in plan.tasks)
    return Traffic(
        head=looks + (len(pieces) if s3 else 0),
        get=sum(max(1, math.ceil(size / CHUNK_BYTES)) for size in sizes) if s3 else len(pieces),
        bytes_down=sum(sizes),
    )


def bytes_read(plan: Plan, piece: PlannedPiece) -> int:
    """What a reader fetches for a piece: chunks until the end is passed, and never beyond the end of the file."""
    file = plan.files[piece.file]
    if file.probe.row_group_bytes:
        whole = sum(file.probe.row_group_bytes)
        return file.size * piece.bytes // whole if whole else file.size
    if not file.probe.splittable:
        return file.size
    wanted = math.ceil((piece.bytes + 1) / CHUNK_BYTES) * CHUNK_BYTES
    return min(file.size - piece.start, wanted)


@dataclass(frozen=True)
class Watched:
    """A stage that the driver watches: ``at_work`` batches at a time until all ``units`` have a receipt."""

    units: int
    seconds: float
    at_work: int


def driver_traffic(plan: Plan, stages: Sequence[Watched], *, s3: bool) -> Traffic:
    """What the driver exchanges with the store: it asks for the next receipt of each batch, and for heartbeats.

    Each receipt is read when it is there, and those of the tasks again for the manifest. It begins with a test of
    publishing once, and ends with a look for a data card before it writes one.
    """
    names, tasks = len(plan.tokenizer.files), len(plan.tasks)
    tokenizer_bytes = sum(file.size for file in plan.tokenizer.files)
    watching = sum((_watching(stage, plan.config.heartbeat_seconds) for stage in stages), Traffic())
    return watching + Traffic(
        list=2,  # of estimates at the beginning, of heartbeats at the end
        get=tasks + names + 1 + PROBE_TRAFFIC.get,
        head=names if s3 else 0,
        put=4 + names + PROBE_TRAFFIC.put,  # plan, tokenizer, estimate, card, manifest
        delete=PROBE_TRAFFIC.delete,
        bytes_up=plan_bytes(plan) + tokenizer_bytes,
        bytes_down=tokenizer_bytes,
    )


def _watching(stage: Watched, every: float) -> Traffic:
    looks = int(stage.seconds / every) if every > 0 else 0
    asked = round(stage.units * polls(stage.seconds / max(1, stage.units)) * stage.at_work)
    return Traffic(list=1 + looks, get=stage.units + asked + looks * stage.at_work)


def polls(gap: float) -> int:
    """How often the driver looks until something happens after ``gap`` seconds: ever more rarely."""
    number, pause = 1, _POLL_SECONDS
    while gap > pause:
        if pause >= _LONGEST_POLL_SECONDS:
            return number + int(gap / pause)
        gap, pause, number = gap - pause, min(pause * _POLL_GROWTH, _LONGEST_POLL_SECONDS), number + 1
    return number
