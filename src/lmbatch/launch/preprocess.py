"""The driver of preprocessing: plan, submit what has no receipt, watch, merge. It may be closed and run again."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lmbatch.config import PreprocessConfig, fingerprint
from lmbatch.errors import TaskError
from lmbatch.launch.backend import Backend, BatchEnd, TaskBatch, TaskFailure
from lmbatch.launch.clock import REAL, Clock
from lmbatch.launch.deal import input_bytes
from lmbatch.launch.estimate.keeping import Keeper
from lmbatch.launch.place import Place
from lmbatch.launch.watch import Progress, Watch
from lmbatch.preprocess import (
    Plan,
    Stage,
    Tally,
    Unit,
    list_finished,
    load_tokenizer_of,
    make_plan,
    merge,
    read_facts,
    remove_heartbeats,
    stages_of,
    store_plan,
)
from lmbatch.preprocess.estimate import Row
from lmbatch.store import PROBE_TRAFFIC, Manifest, Store, Traffic, check_publish_once, open_store

_POLL_SECONDS = 0.1
_LONGEST_POLL_SECONDS = 2.0
_SHARE_OF_TIME = 0.1  # of the driver's, at most, for asking after receipts of batches at work


@dataclass(frozen=True)
class PreprocessResult:
    """What a run gave. ``tasks_done`` counts what this run did, ``peak_memory_bytes`` is of its largest worker.

    ``traffic`` is the driver's own with the store; that of the tasks stands in their receipts. ``estimate`` compares
    what was expected, if it was, with what happened.
    """

    store: str
    manifest: Manifest
    tasks: int
    tasks_done: int
    seconds: float
    input_bytes: int
    peak_memory_bytes: int
    cpu_seconds: float
    traffic: Traffic
    estimate: tuple[Row, ...] = ()


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
    place: Place | None = None,
) -> PreprocessResult:
    """Bring the store to a manifest, doing only what has no receipt yet.

    ``backend`` makes the place to run from a folder for logs; with a ``place`` the store gets an estimate of what the
    run will cost there, and what became of it. Raises what planning and merging raise, and TaskError
    with the reason of each task that failed for good (after all others were done); with a place whose container cannot
    do the work, ContainerError before anything is stored or queued.
    """
    clock = time.monotonic()
    plan, tokenizer = make_plan(config)
    store = open_target(config)
    jobs, spool = (Path(config.jobs) / config.corpus.name).absolute(), spool_of(config, plan)
    if place is not None:
        place.check(store.uri, plan.raw, jobs, spool)
    check_publish_once(store)
    store = open_target(config, config.patience)  # one that has answered is waited for; a wrong address is told at once
    plan = store_plan(store, plan, tokenizer)
    # The stored copy is what the workers use: a damaged one must show before they start.
    load_tokenizer_of(store, plan, spool / f"{socket.gethostname()}-{os.getpid()}" / "tokenizer")
    try:
        at = backend(jobs)
        runs = [StageRun(store, plan, stage, at, spool, on_progress) for stage in stages_of(plan)]
        keeper = Keeper(store, plan, place, tokenizer, clock) if place is not None else None
        for run in runs:
            run.keeper = keeper
            run.drive()
        manifest = merge(store, plan)
        remove_heartbeats(store)
        done_here, tallies = sum(run.done_here for run in runs), {run.stage.name: run.tally for run in runs}
        compared = keeper.end(tallies, done_here) if keeper is not None else ()
    finally:
        sweep_spool(spool)
    return PreprocessResult(
        store=store.uri,
        manifest=manifest,
        tasks=sum(len(run.stage.units) for run in runs),
        tasks_done=done_here,
        seconds=time.monotonic() - clock,
        input_bytes=plan.input_bytes,
        peak_memory_bytes=max(run.tally.memory_bytes for run in runs),
        cpu_seconds=sum(run.tally.cpu_seconds for run in runs),
        traffic=store.traffic.total() + PROBE_TRAFFIC,
        estimate=tuple(compared),
    )


@dataclass
class StageRun:
    """One stage of a run of the driver: hands its units to a backend until each has a receipt."""

    store: Store
    plan: Plan
    stage: Stage
    backend: Backend
    spool: Path
    on_progress: Callable[[Progress], None]
    clock: Clock = REAL
    done_here: int = 0
    keeper: Keeper | None = None
    tally: Tally = field(default_factory=Tally)
    _done: set[str] = field(default_factory=set)
    _queue: list[Unit] = field(default_factory=list)
    _attempts: Counter[str] = field(default_factory=Counter)
    _failed: dict[str, str] = field(default_factory=dict)
    _reached: dict[str, int] = field(default_factory=dict)  # by a batch's first task: tasks that are done
    _next_look: float = 0.0

    def __post_init__(self) -> None:
        self._by_id = {unit.id: unit for unit in self.stage.units}
        self._input_bytes = self.stage.input_bytes
        self._watch = Watch(self.store, self.plan.config.heartbeat_seconds, self.clock.monotonic)

    def drive(self) -> None:
        """Submit and watch until every task has a receipt or has failed for good."""
        self._take(list_finished(self.store, self._by_id.keys()))
        before = len(self._done)
        if self.keeper is not None:
            self.keeper.begin(self.stage.name, self._done)
        pause = _POLL_SECONDS
        try:
            self.backend.adopt(run_name(self.store, self.plan, self.stage.name))
            running = {task_id for batch in self.backend.running() for task_id in batch.tasks}
            taken = running | self._done
            self._queue = [unit for unit in self.stage.units if unit.id not in taken]
            self._watch.begin(running)
            self._report()
            while self._queue or self.backend.running():
                self._fill()
                ended = self.backend.poll(self._done)
                seen = self._look_at_running()
                for end in ended:
                    self._settle(end)
                looked = self._watch.look(self._done)
                if ended or seen or looked:
                    self._report()
                if ended or seen:
                    pause = _POLL_SECONDS
                else:
                    self.clock.sleep(pause)
                    pause = min(pause * 1.5, _LONGEST_POLL_SECONDS)
        except BaseException:
            self.backend.cancel()
            raise
        self.done_here = len(self._done) - before
        if self._failed:
            raise self._error()

    def _fill(self) -> None:
        groups = self.backend.deal(self._queue)
        self._queue = self._queue[sum(map(len, groups)) :]
        if groups:
            self.backend.submit([self._batch(group) for group in groups])

    def _batch(self, group: Sequence[Unit]) -> TaskBatch:
        task_ids = tuple(task.id for task in group)
        config = self.plan.config
        return TaskBatch(self.store.uri, task_ids, str(self.spool), sum(map(input_bytes, group)),
                         config.tokenizer.engine, config.heartbeat_seconds, config.patience, self.plan.raw)  # fmt: skip

    def _look_at_running(self) -> bool:
        """Pick up receipts of batches at work: each does its tasks in order, so only its next one need be asked for."""
        begun, found = self.clock.monotonic(), False
        batches = self.backend.at_work() if begun >= self._next_look else []
        while batches:
            waiting = {self._next_of(batch): batch for batch in batches}
            fresh = self._take([task_id for task_id in waiting if task_id])
            batches = [waiting[task_id] for task_id in fresh]
            found = found or bool(fresh)
        ended = self.clock.monotonic()
        self._next_look = max(self._next_look, ended + (ended - begun) / _SHARE_OF_TIME)
        return found

    def _next_of(self, batch: TaskBatch) -> str:
        """The first task of a batch that has no receipt; nothing if all have one."""
        reached = self._reached.get(batch.tasks[0], 0)
        while reached < len(batch.tasks) and batch.tasks[reached] in self._done:
            reached += 1
        self._reached[batch.tasks[0]] = reached
        return batch.tasks[reached] if reached < len(batch.tasks) else ""

    def _take(self, task_ids: Sequence[str]) -> list[str]:
        """Note those of these tasks that have a receipt now."""
        fresh = []
        for facts in read_facts(self.store, task_ids):
            self.tally.add(facts)
            fresh.append(facts.task)
        self._done.update(fresh)
        return fresh

    def _settle(self, end: BatchEnd) -> None:
        """A batch has ended: what has a receipt is done, the rest is tried again or has failed.

        Of a batch whose process died, the first task without a receipt was the one at work; the others were never
        reached, and a death that is not theirs does not count as an attempt at them.
        """
        self._reached.pop(end.batch.tasks[0], None)
        self._watch.ended(end.batch.tasks)
        self._take([task_id for task_id in end.batch.tasks if task_id not in self._done])
        left = [task_id for task_id in end.batch.tasks if task_id not in self._done]
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
        if self.keeper is not None:
            self.keeper.see(self._done)
        tasks, running = len(self.stage.units), len(self.backend.running())
        now = self._watch.progress(self.tally, self._done, tasks, self._input_bytes, running)
        self.on_progress(replace(now, stage=self.stage.name))

    def _error(self) -> TaskError:
        lines = [f"\n    {task_id}: {reason}" for task_id, reason in sorted(self._failed.items())[:5]]
        more = f"\n    … and {len(self._failed) - 5} more" if len(self._failed) > 5 else ""
        return TaskError(
            f"{len(self._failed)} of {len(self.stage.units)} tasks failed:{''.join(lines)}{more}",
            remedy="mend the cause and run the same command again: it does only what is missing",
        )


def run_name(store: Store, plan: Plan, stage: str = "tokenize") -> str:
    """What the jobs of a stage are known by: the plan, the store that it is carried out in, and the stage."""
    name = f"{plan.fingerprint[7:19]}-{fingerprint(store.uri)[7:13]}"
    return name if stage == "tokenize" else f"{name}-{stage}"


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
