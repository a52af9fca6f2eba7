"""How far a preprocessing store is, by its plan, receipts, heartbeats and manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from lmbatch.preprocess import (
    Observer,
    Pace,
    PlanOutline,
    StoredHeartbeat,
    Tally,
    TaskAtWork,
    TaskFacts,
    add_counts,
    read_facts,
    read_heartbeats,
    read_outline,
    slowest,
    sort_out,
)
from lmbatch.report.estimate import EstimateStatus, estimate_status
from lmbatch.store import MANIFEST_KEY, RECEIPTS_PREFIX, Ledger, ObjectInfo, Store, parse_manifest

_SLOWEST = 10


@dataclass(frozen=True)
class RunningTask:
    """A task that a worker says it is at.

    ``share`` of its input is read, from 0 to 1. ``behind_seconds``: how much older its heartbeat is than the newest
    heartbeat or receipt, by the store's times (None: it has none). ``silent`` only where someone looks repeatedly.
    """

    task: str
    file: str
    worker: str
    job: str | None
    share: float
    bytes: int
    bytes_done: int
    documents: int
    tokens: int
    seconds: float
    bytes_per_second: float
    memory_bytes: int
    behind_seconds: float | None
    silent: bool


@dataclass(frozen=True)
class FinishedTask:
    """A task with a receipt."""

    task: str
    file: str
    seconds: float
    bytes_per_second: float
    memory_bytes: int


@dataclass(frozen=True)
class StageStatus:
    """One stage of the plan; the last one, ``tokenize``, is what all the rest of a status is of."""

    name: str
    tasks: int
    tasks_done: int
    tasks_running: int


@dataclass(frozen=True)
class StoreStatus:
    """What is finished stands in the ledger and in ``tokens``; ``at_work`` adds what heartbeats tell of the rest.

    Rates are those of the workers at work now (each at its own pace in its task so far, or at the mean of the finished
    tasks while that is not known), or measured between looks where someone watches; None where nobody works.
    """

    store: str
    corpus: str
    tasks: int
    tasks_done: int
    tasks_running: int
    input_bytes: int
    input_bytes_done: int
    input_bytes_at_work: int
    tokens: int
    ledger: Ledger
    engines: dict[str, int]
    digest: str | None
    at_work: dict[str, Any]
    bytes_per_second: float | None
    documents_per_second: float | None
    tokens_per_second: float | None
    seconds_left: float | None
    worker_bytes_per_second: float | None
    cpu_seconds: float
    running: tuple[RunningTask, ...]
    slowest: tuple[FinishedTask, ...]
    failures: dict[str, str]
    stages: tuple[StageStatus, ...]
    estimate: EstimateStatus | None = None

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        tokens = self.ledger.tokens
        share = tokens.share_lost if tokens is not None else 0.0
        estimate = self.estimate.to_dict() if self.estimate is not None else None
        ledger = self.ledger.model_dump()
        return asdict(self) | {"ledger": ledger, "share_thrown_away": share, "estimate": estimate}


def store_status(store: Store) -> StoreStatus:
    """Read a store's plan, receipts and heartbeats (not its shards), once.

    Raises ObjectNotFoundError if it holds no plan, StoreError for a receipt that cannot be trusted.
    """
    return StoreWatcher(store).look()


class StoreWatcher:
    """Looks at a store again and again; a receipt is read once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._plan: PlanOutline = read_outline(store)
        self._observer, self._pace = Observer(), Pace()
        self._forget()

    def _forget(self) -> None:
        self._tally, self._done = Tally(), set[str]()

    def look(self) -> StoreStatus:
        """How far it is now; what is raised is said at `store_status`."""
        listed = {_task_of(info): info for info in self._store.list(RECEIPTS_PREFIX)}
        if not self._done <= listed.keys():  # some were withdrawn
            self._forget()
        fresh = [task for task in listed if task in self._plan.task_bytes and task not in self._done]
        for facts in read_facts(self._store, fresh):
            self._tally.add(facts)
            self._done.add(facts.task)
        stored = read_heartbeats(self._store)
        seen, _ = sort_out(_by_age(self._observer.note(stored), stored), self._done)
        times = [item.modified for item in listed.values()] + [item.modified for item in stored]
        newest = max((time for time in times if time is not None), default=0.0)
        behind = {item.beat.worker: newest - item.modified for item in stored if item.modified is not None}
        earlier = {stage: [task for task in listed if _stage_of(task) == stage] for stage in self._plan.earlier_stages}
        estimate = estimate_status(self._store, self._plan.fingerprint, self._tally, earlier)
        at_work = [item for item in seen if item.beat.task not in listed]
        return replace(self._status(at_work, behind, self._stages(listed, seen)), estimate=estimate)

    def _stages(self, listed: Collection[str], seen: Sequence[TaskAtWork]) -> tuple[StageStatus, ...]:
        done = Counter(_stage_of(task) for task in listed)
        running = Counter(_stage_of(item.beat.task) for item in seen if item.beat.task not in listed)
        sizes = {**self._plan.earlier_stages, "tokenize": len(self._plan.task_bytes)}
        return tuple(StageStatus(name, tasks, done[name], running[name]) for name, tasks in sizes.items())

    def _status(
        self, everyone: Sequence[TaskAtWork], behind: dict[str, float], stages: tuple[StageStatus, ...]
    ) -> StoreStatus:
        seen = [item for item in everyone if item.beat.task in self._plan.task_bytes]
        tally, beats = self._tally, [item.beat for item in seen]
        sums = {name: sum(getattr(beat, name) for beat in beats) for name in ("records", "documents", "tokens")}
        partial = sum(beat.bytes_done for beat in beats)
        rates = self._rates(seen, partial, sums)
        left = self._plan.input_bytes - tally.input_bytes - partial
        return StoreStatus(
            store=self._store.uri,
            corpus=self._plan.corpus,
            tasks=len(self._plan.task_bytes),
            tasks_done=tally.tasks,
            tasks_running=len(seen),
            input_bytes=self._plan.input_bytes,
            input_bytes_done=tally.input_bytes,
            input_bytes_at_work=partial,
            tokens=tally.tokens,
            ledger=tally.ledger,
            engines=dict(tally.engines),
            digest=self._digest(),
            at_work={
                **sums,
                "dropped": _sum_of([beat.dropped for beat in beats]),
                "quarantined": _sum_of([beat.quarantined for beat in beats]),
            },
            bytes_per_second=rates[0],
            documents_per_second=rates[1],
            tokens_per_second=rates[2],
            seconds_left=max(0, left) / rates[0] if rates[0] else None,
            worker_bytes_per_second=tally.input_bytes / tally.seconds if tally.seconds else None,
            cpu_seconds=tally.cpu_seconds,
            running=tuple(_running(item, behind) for item in slowest(everyone, _SLOWEST)),
            slowest=tuple(_finished(facts) for facts in tally.slowest),
            failures=_failures(everyone, self._done),
            stages=stages,
        )

    def _rates(
        self, seen: Sequence[TaskAtWork], partial: int, sums: dict[str, int]
    ) -> tuple[float | None, float | None, float | None]:
        """Bytes, documents and tokens a second; see StoreStatus."""
        tally = self._tally
        size, documents, tokens = tally.input_bytes + partial, tally.documents_out + sums["documents"], tally.tokens
        tokens += sums["tokens"]
        measured = self._pace.note(size, documents, tokens)
        if not any(not item.silent for item in seen):
            return None, None, None
        if measured and measured[0]:
            return measured[0], measured[1], measured[2]
        mean = tally.input_bytes / tally.seconds if tally.seconds else 0.0
        speed = sum(_speed(item) or mean for item in seen if not item.silent)
        return (speed, speed * documents / size, speed * tokens / size) if speed and size else (None, None, None)

    def _digest(self) -> str | None:
        if not self._store.exists(MANIFEST_KEY):
            return None
        return parse_manifest(self._store.read(MANIFEST_KEY), self._store.where(MANIFEST_KEY)).digest


def _task_of(info: ObjectInfo) -> str:
    return info.key.removeprefix(RECEIPTS_PREFIX).removesuffix(".json")


def _stage_of(task: str) -> str:
    name = task.partition("-")[0]
    return "tokenize" if name == "task" else name


def _by_age(seen: Sequence[TaskAtWork], stored: Sequence[StoredHeartbeat]) -> list[TaskAtWork]:
    """In the order of the store's times: of two at one task, both seen for the first time, the later one counts."""
    modified = {item.beat.worker: item.modified or 0.0 for item in stored}
    return sorted(seen, key=lambda item: modified[item.beat.worker])


def _speed(item: TaskAtWork) -> float:
    return item.beat.bytes_done / item.beat.seconds if item.beat.seconds else 0.0


def _running(item: TaskAtWork, behind: dict[str, float]) -> RunningTask:
    beat = item.beat
    return RunningTask(
        task=beat.task,
        file=beat.file,
        worker=beat.worker,
        job=beat.job,
        share=item.share,
        bytes=beat.bytes,
        bytes_done=beat.bytes_done,
        documents=beat.documents,
        tokens=beat.tokens,
        seconds=beat.seconds,
        bytes_per_second=_speed(item),
        memory_bytes=beat.memory_bytes,
        behind_seconds=behind.get(beat.worker),
        silent=item.silent,
    )


def _finished(facts: TaskFacts) -> FinishedTask:
    return FinishedTask(facts.task, facts.file, facts.seconds, facts.bytes_per_second, facts.memory_bytes)


def _failures(seen: Sequence[TaskAtWork], done: set[str]) -> dict[str, str]:
    """What workers have given up and nobody has done since, with the reason."""
    failures = {task: reason for item in seen for task, reason in item.beat.failures.items()}
    return {task: reason for task, reason in sorted(failures.items()) if task not in done}


def _sum_of(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for some in counts:
        add_counts(total, some)
    return dict(sorted(total.items()))
