"""One task: its input is unchanged, its payload is uploaded, its receipt is published last."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from lmbatch.errors import InputChangedError, ObjectNotFoundError
from lmbatch.preprocess.live import LiveTask
from lmbatch.preprocess.pipeline import Pipeline
from lmbatch.preprocess.plan import Plan, PlannedFile, Task, check_libraries
from lmbatch.preprocess.reading import files_of
from lmbatch.store import RECEIPTS_PREFIX, Receipt, Store, Traffic, to_json
from lmbatch.tokens import Encoder, EngineDroppedError

if TYPE_CHECKING:
    from lmbatch.preprocess.dedup import DropLists


def receipt_key(task_id: str) -> str:
    """Where the receipt of a task lies in the store."""
    return f"{RECEIPTS_PREFIX}{task_id}.json"


def run_task(
    store: Store,
    raw: Store,
    plan: Plan,
    task: Task,
    encoder: Encoder,
    spool: Path,
    live: LiveTask | None = None,
    lists: DropLists | None = None,
) -> Receipt | None:
    """Do one task, unless its receipt is there already (then None).

    Payload is uploaded first under names that carry its hash, the receipt is published last and once: of two
    attempts at one task one wins, and nothing refers to the other's bytes. Shards are built in ``spool``, a local
    folder, one per split at a time. ``live`` is told how far it is; ``lists`` tells which rows are duplicates, where
    the plan wants them dropped.

    Raises InputChangedError if an input is not the one that was planned, PlanError if cleaning would come out
    differently here, and any store, corpus or shard error.
    """
    if store.exists(receipt_key(task.id)):
        return None
    live = live or LiveTask()
    live.begin(task.id, task.input_bytes)
    try:
        return _attempt(store, raw, plan, task, encoder, spool, live, lists)
    except EngineDroppedError:  # what the first attempt uploaded is referred to by nothing
        live.begin(task.id, task.input_bytes, attempt=2)
        return _attempt(store, raw, plan, task, encoder, spool, live, lists)


def _attempt(
    store: Store, raw: Store, plan: Plan, task: Task, encoder: Encoder, spool: Path, live: LiveTask,
    lists: DropLists | None,
) -> Receipt:  # fmt: skip
    assert (lists is None) == (plan.partitions is None), "a plan with de-duplication is carried out with its lists"
    clock, cpu = time.monotonic(), time.process_time()
    check_libraries(plan)
    for file in files_of(plan, task):
        check_unchanged(raw, file)
    encoder.begin(task.id)
    spool.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f"{task.id}-", dir=spool) as folder:
        sieve = lists.sieve(task) if lists else None
        pipeline = Pipeline(store, raw, plan, task, encoder, Path(folder), live, sieve)
        pipeline.run()
        for file in files_of(plan, task):
            check_unchanged(raw, file)
        receipt = Receipt(
            task=task.id,
            plan=plan.fingerprint,
            attempt=uuid.uuid4().hex,
            engine=encoder.engine,
            pieces=tuple(pipeline.seen),
            shards=tuple(sorted(pipeline.shards, key=lambda shard: shard.split)),
            quarantine=pipeline.store_quarantine(),
            profile=pipeline.store_profile(),
            ledger=pipeline.ledger(),
            seconds=time.monotonic() - clock,
            cpu_seconds=time.process_time() - cpu,
            peak_memory_bytes=peak_memory(),
            input_bytes=task.input_bytes,
            traffic=store.traffic.take() + Traffic(put=1),  # its own publishing, whose bytes nobody can know yet
            input_traffic=raw.traffic.take(),
            duplicates=lists.digest if lists else None,
        ).sealed()
    store.publish(receipt_key(task.id), to_json(receipt))
    store.traffic.take()
    return receipt


def check_unchanged(raw: Store, file: PlannedFile) -> None:
    """Raises InputChangedError if a file's size, e-tag or modification time is not the planned one."""
    try:
        now = raw.info(file.path)
    except ObjectNotFoundError as error:
        raise InputChangedError(
            f"{raw.uri}/{file.path}: was there when the plan was made, and is gone",
            remedy="put it back, or plan anew into another store",
        ) from error
    before = (file.size, file.etag, file.modified)
    if (now.size, now.etag, now.modified) != before:
        raise InputChangedError(
            f"{raw.uri}/{file.path}: has changed since the plan was made "
            f"(size {file.size} → {now.size}, modified {file.modified} → {now.modified})",
            remedy="put the old file back, or plan anew into another store",
        )


def peak_memory() -> int:
    """Most memory this process has held, in bytes (0 where /proc does not tell).

    getrusage would not do: a child's ru_maxrss begins at its parent's peak.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
