"""The driver of preprocessing: plan, submit what has no receipt, watch, merge. It may be closed and run again."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lmbatch.config import PreprocessConfig, fingerprint
from lmbatch.errors import TaskError
from lmbatch.launch.backend import Backend, BatchEnd, TaskBatch, TaskFailure
from lmbatch.launch.deal import input_bytes
from lmbatch.preprocess import (
    Plan,
    Task,
    load_tokenizer_of,
    make_plan,
    merge,
    read_receipts,
    receipt_key,
    store_plan,
)
from lmbatch.store import Manifest, Receipt, Store, check_publish_once, open_store

_POLL_SECONDS = 0.1
_LONGEST_POLL_SECONDS = 2.0


@dataclass(frozen=True)
class Progress:
    """How far a run is: ``bytes`` are of input, counted by receipts."""

    tasks_done: int
    tasks: int
    bytes_done: int
    bytes: int
    documents: int
    tokens: int
    running: int


@dataclass(frozen=True)
class PreprocessResult:
    """What a run gave. ``tasks_done`` counts what this run did, ``peak_memory_bytes`` is of its largest worker."""

    store: str
    manifest: Manifest
    tasks: int
    tasks_done: int
    seconds: float
    input_bytes: int
    peak_memory_bytes: int
    cpu_seconds: float


def open_target(config: PreprocessConfig, patience: float = 0.0) -> Store:
    """The store that a corpus is preprocessed into: the config's, or a local folder named after the corpus.

    ``patience`` as in `open_store`.
    """
    return open_store(config.store or f"data/shards/{config.corpus.name}", patience=patience)


def run_preprocess(
    config: PreprocessConfig,
    backend: Callable[[Path], Backend],
    *,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> PreprocessResult:
    """Bring the store to a manifest, doing only what has no receipt yet.

    ``backend`` makes the place to run from a folder for logs. Raises what planning and merging raise, and TaskError
    with the reason of each task that failed for good (after all others were done).
    """
    clock = time.monotonic()
    plan, tokenizer = make_plan(config)
    store = open_target(config)
    check_publish_once(store)
    store = open_target(config, config.patience)  # one that has answered is waited for; a wrong address is told at once
    store_plan(store, plan, tokenizer)
    # The stored copy is what the workers use: a damaged one must show before they start.
    spool = spool_of(config, plan)
    load_tokenizer_of(store, plan, spool / f"{socket.gethostname()}-{os.getpid()}" / "tokenizer")
    try:
        run = _Run(store, plan, backend(Path(config.jobs) / config.corpus.name), spool, on_progress)
        run.drive()
        manifest = merge(store, plan)
        receipts = read_receipts(store, plan.tasks)
    finally:
        sweep_spool(spool)
    return PreprocessResult(
        store=store.uri,
        manifest=manifest,
        tasks=len(plan.tasks),
        tasks_done=run.done_here,
        seconds=time.monotonic() - clock,
        input_bytes=plan.input_bytes,
        peak_memory_bytes=max(receipt.peak_memory_bytes for receipt in receipts.values()),
        cpu_seconds=sum(receipt.cpu_seconds for receipt in receipts.values()),
    )


@dataclass
class _Run:
    """One run of the driver."""

    store: Store
    plan: Plan
    backend: Backend
    spool: Path
    on_progress: Callable[[Progress], None]
    done_here: int = 0
    _receipts: dict[str, Receipt] = field(default_factory=dict)
    _queue: list[Task] = field(default_factory=list)
    _attempts: Counter[str] = field(default_factory=Counter)
    _failed: dict[str, str] = field(default_factory=dict)
    _by_id: dict[str, Task] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._by_id = {task.id: task for task in self.plan.tasks}

    def drive(self) -> None:
        """Submit and watch until every task has a receipt or has failed for good."""
        self._receipts = read_receipts(self.store, self.plan.tasks)
        before = len(self._receipts)
        pause = _POLL_SECONDS
        try:
            self.backend.adopt(run_name(self.store, self.plan))
            taken = {task_id for batch in self.backend.running() for task_id in batch.tasks} | self._receipts.keys()
            self._queue = [task for task in self.plan.tasks if task.id not in taken]
            self._report()
            while self._queue or self.backend.running():
                self._fill()
                ended = self.backend.poll(self._receipts)
                seen = self._look_at_running()
                for end in ended:
                    self._settle(end)
                if ended or seen:
                    self._report()
                    pause = _POLL_SECONDS
                else:
                    time.sleep(pause)
                    pause = min(pause * 1.5, _LONGEST_POLL_SECONDS)
        except BaseException:
            self.backend.cancel()
            raise
        self.done_here = len(self._receipts) - before
        if self._failed:
            raise self._error()

    def _fill(self) -> None:
        groups = self.backend.deal(self._queue)
        self._queue = self._queue[sum(map(len, groups)) :]
        if groups:
            self.backend.submit([self._batch(group) for group in groups])

    def _batch(self, group: Sequence[Task]) -> TaskBatch:
        task_ids = tuple(task.id for task in group)
        config = self.plan.config
        return TaskBatch(self.store.uri, task_ids, str(self.spool), sum(map(input_bytes, group)),
                         config.tokenizer.engine, config.heartbeat_seconds, config.patience)  # fmt: skip

    def _look_at_running(self) -> bool:
        """Pick up receipts of batches at work: each does its tasks in order, so only its next one need be asked for."""
        found = False
        for batch in self.backend.at_work():
            waiting = [task_id for task_id in batch.tasks if task_id not in self._receipts]
            if waiting and self.store.exists(receipt_key(waiting[0])):
                found |= self._take([waiting[0]])
        return found

    def _take(self, task_ids: list[str]) -> bool:
        fresh = read_receipts(self.store, [self._by_id[task_id] for task_id in task_ids])
        self._receipts |= fresh
        return bool(fresh)

    def _settle(self, end: BatchEnd) -> None:
        """A batch has ended: what has a receipt is done, the rest is tried again or has failed.

        Of a batch whose process died, the first task without a receipt was the one at work; the others were never
        reached, and a death that is not theirs does not count as an attempt at them.
        """
        self._take([task_id for task_id in end.batch.tasks if task_id not in self._receipts])
        left = [task_id for task_id in end.batch.tasks if task_id not in self._receipts]
        for task_id in left:
            failure = end.failures.get(task_id)
            if failure is None and end.error is not None and task_id != left[0]:
                self._queue.append(self._by_id[task_id])
                continue
            failure = failure or TaskFailure(end.error or "no receipt, and no reason given", False)
            self._attempts[task_id] += 1
            if failure.final or self._attempts[task_id] > self.plan.config.retries:
                self._failed[task_id] = failure.message
            else:
                self._queue.append(self._by_id[task_id])

    def _report(self) -> None:
        done = self._receipts.values()
        self.on_progress(
            Progress(
                tasks_done=len(self._receipts),
                tasks=len(self.plan.tasks),
                bytes_done=sum(receipt.input_bytes for receipt in done),
                bytes=self.plan.input_bytes,
                documents=sum(receipt.ledger.documents_out for receipt in done),
                tokens=sum(shard.tokens for receipt in done for shard in receipt.shards),
                running=len(self.backend.running()),
            )
        )

    def _error(self) -> TaskError:
        lines = [f"\n    {task_id}: {reason}" for task_id, reason in sorted(self._failed.items())[:5]]
        more = f"\n    … and {len(self._failed) - 5} more" if len(self._failed) > 5 else ""
        return TaskError(
            f"{len(self._failed)} of {len(self.plan.tasks)} tasks failed:{''.join(lines)}{more}",
            remedy="mend the cause and run the same command again: it does only what is missing",
        )


def run_name(store: Store, plan: Plan) -> str:
    """What the jobs of a run are known by: the plan, and the store that it is carried out in."""
    return f"{plan.fingerprint[7:19]}-{fingerprint(store.uri)[7:13]}"


def spool_of(config: PreprocessConfig, plan: Plan) -> Path:
    """The folder for shards on their way; one per plan, so that a later run finds what a killed one left."""
    base = Path(config.spool) if config.spool else Path(tempfile.gettempdir())
    return (base / f"lmbatch-{os.getuid()}-{plan.fingerprint[7:19]}").absolute()


def sweep_spool(spool: Path) -> None:
    """Remove what processes of this machine that no longer run have left, and our own."""
    prefix = f"{socket.gethostname()}-"
    for folder in spool.glob(f"{prefix}*"):
        pid = folder.name.removeprefix(prefix)
        if pid == str(os.getpid()) or not (pid.isdigit() and Path(f"/proc/{pid}").exists()):
            shutil.rmtree(folder, ignore_errors=True)
    if spool.is_dir() and not any(spool.iterdir()):
        spool.rmdir()
