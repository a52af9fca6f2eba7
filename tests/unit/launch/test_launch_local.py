"""The local backend and the driver's policy: never more than so many at once, retries with reasons, nothing left."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cloudpickle
import psutil
import pytest

from lmbatch.errors import TaskError
from lmbatch.launch import BatchEnd, LocalBackend, TaskBatch, run_preprocess
from lmbatch.launch.backend import TaskFailure
from lmbatch.launch.deal import batch_size, guided
from lmbatch.launch.preprocess import sweep_spool
from lmbatch.preprocess import Task, TaskFacts, load_plan, read_facts
from lmbatch.store import Store, open_store
from support.drive import preprocess_here
from support.wudao import config_for, write_files, write_tokenizer


@pytest.fixture
def base(tmp_path: Path) -> Path:
    write_files(tmp_path / "raw")
    write_tokenizer(tmp_path / "tok")
    return tmp_path


@dataclass
class HereBackend:
    """Runs each batch when it is polled; ``spoil`` decides what becomes of it instead."""

    spoil: dict[str, list[TaskFailure | str]] = field(default_factory=dict)
    ran: list[TaskBatch] = field(default_factory=list)
    _waiting: list[TaskBatch] = field(default_factory=list)

    def adopt(self, run: str) -> None:
        pass

    def deal(self, tasks: Sequence[Task]) -> list[tuple[Task, ...]]:
        return guided(tasks, 2 - len(self._waiting))

    def submit(self, batches: Sequence[TaskBatch]) -> None:
        self._waiting += batches

    def poll(self, receipts: Collection[str]) -> list[BatchEnd]:
        ended = [self._end(batch) for batch in self._waiting]
        self._waiting = []
        return ended

    def running(self) -> list[TaskBatch]:
        return self._waiting

    def at_work(self) -> list[TaskBatch]:
        return self._waiting

    def cancel(self) -> None:
        self._waiting = []

    def _end(self, batch: TaskBatch) -> BatchEnd:
        self.ran.append(batch)
        planned = {task: self.spoil[task].pop(0) for task in batch.tasks if self.spoil.get(task)}
        deaths = [task for task, reason in planned.items() if isinstance(reason, str)]
        if deaths:  # the tasks before it are done, and nothing is told of those behind it
            before = batch.tasks[: batch.tasks.index(deaths[0])]
            if before:
                TaskBatch(batch.store, before, batch.spool).run()
            return BatchEnd(batch, {}, str(planned[deaths[0]]))
        good = tuple(task for task in batch.tasks if task not in planned)
        failures = TaskBatch(batch.store, good, batch.spool).run() if good else {}
        return BatchEnd(batch, failures | planned)  # type: ignore[operator]


def test_the_driver_and_one_process_give_the_same(base: Path) -> None:
    quiet = preprocess_here(config_for(base, store=str(base / "quiet")))
    backend = HereBackend()
    result = run_preprocess(config_for(base), lambda folder: backend)
    assert result.manifest == quiet
    assert result.tasks_done == result.tasks == len({task for batch in backend.ran for task in batch.tasks})


def test_progress_counts_up_to_everything(base: Path) -> None:
    seen = []
    run_preprocess(config_for(base), lambda folder: HereBackend(), on_progress=seen.append)
    assert seen[0].tasks_done == 0
    assert [now.tasks_done for now in seen] == sorted(now.tasks_done for now in seen)
    assert (seen[-1].tasks_done, seen[-1].bytes_done) == (seen[-1].tasks, seen[-1].bytes)
    assert seen[-1].documents == 120


def test_the_driver_reads_each_receipt_once_however_often_it_looks(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it costs to look must not grow with what is done; `merge` reads them once more, whole."""
    read: list[str] = []

    def reading(store: Store, tasks: Iterable[str]) -> Iterator[TaskFacts]:
        for facts in read_facts(store, tasks):
            read.append(facts.task)
            yield facts

    monkeypatch.setattr("lmbatch.launch.preprocess.read_facts", reading)
    result = run_preprocess(config_for(base), lambda folder: HereBackend())
    assert len(read) == len(set(read)) == result.tasks


def test_a_task_whose_process_dies_is_tried_again(base: Path) -> None:
    backend = HereBackend(spoil={"task-000003": ["killed", "killed"]})
    result = run_preprocess(config_for(base, retries=2), lambda folder: backend)
    assert result.tasks_done == result.tasks


def test_a_death_counts_as_an_attempt_at_the_task_at_work_alone(base: Path) -> None:
    """Without retries, one death must cost one task, not the whole batch behind it."""
    backend = HereBackend(spoil={"task-000000": ["killed"]})
    config = config_for(base, retries=0)
    with pytest.raises(TaskError, match="1 of .* tasks failed"):
        run_preprocess(config, lambda folder: backend)
    assert len(backend.ran[0].tasks) > 1
    store = open_store(config.store)
    assert sum(1 for _ in store.list("receipts/")) == len(load_plan(store).tasks) - 1


def test_a_task_that_keeps_failing_fails_the_run_with_its_reason_after_the_others_are_done(base: Path) -> None:
    backend = HereBackend(spoil={"task-000003": ["out of memory"] * 9})
    config = config_for(base, retries=2)
    with pytest.raises(TaskError, match=r"(?s)1 of .* tasks failed:.*task-000003: out of memory"):
        run_preprocess(config, lambda folder: backend)
    store = open_store(config.store)
    assert sum(1 for _ in store.list("receipts/")) == len(load_plan(store).tasks) - 1
    assert not store.exists("manifest.json")
    assert len(backend.spoil["task-000003"]) == 6  # one attempt and two retries


def test_what_cannot_get_better_is_not_tried_again(base: Path) -> None:
    backend = HereBackend(spoil={"task-000003": [TaskFailure("the input has changed", final=True)] * 9})
    with pytest.raises(TaskError, match="the input has changed"):
        run_preprocess(config_for(base, retries=5), lambda folder: backend)
    assert len(backend.spoil["task-000003"]) == 8


@pytest.mark.parametrize(("remaining", "places", "size"), [(100, 4, 13), (8, 4, 1), (1, 4, 1), (3, 1, 2), (5, 0, 3)])
def test_batches_shrink_towards_the_end(remaining: int, places: int, size: int) -> None:
    assert batch_size(remaining, places) == size


@dataclass(frozen=True)
class Sleeper:
    """Stands for a batch: notes how many of its kind are running."""

    folder: str
    tasks: tuple[str, ...] = ()

    def __call__(self) -> dict[str, TaskFailure]:
        mark = Path(self.folder) / str(os.getpid())
        mark.touch()
        (Path(self.folder) / f"seen-{os.getpid()}").write_text(str(sum(1 for _ in Path(self.folder).glob("[0-9]*"))))
        time.sleep(0.3)
        mark.unlink()
        return {}


def test_never_more_than_the_limit_at_once(tmp_path: Path) -> None:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the worker cannot import a test
    marks = tmp_path / "marks"
    marks.mkdir()
    backend, left = LocalBackend(tmp_path / "jobs", 2), 5
    while left or backend.running():
        places = len(backend.deal([Task(id=str(number), pieces=()) for number in range(left)]))
        backend.submit([Sleeper(str(marks))] * places)  # type: ignore[list-item]
        left -= places
        assert all(end.error is None for end in backend.poll({}))
        time.sleep(0.02)
    seen = [int(path.read_text()) for path in marks.glob("seen-*")]
    assert len(seen) == 5
    assert max(seen) <= 2


def test_a_worker_does_not_outlive_its_parent(tmp_path: Path) -> None:
    bound = "from lmbatch.launch.backend import die_with_parent; die_with_parent()"
    child = f"import time; {bound}; print('up', flush=True); time.sleep(60)"
    start = f"p = subprocess.Popen([sys.executable, '-c', {child!r}])"
    parent = f"import subprocess, sys; {start}; print(p.pid, flush=True); p.wait()"
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    worker = psutil.Process(int(process.stdout.readline()))
    assert process.stdout.readline().strip() == "up"
    process.kill()
    process.wait()
    gone, _ = psutil.wait_procs([worker], timeout=60)
    assert gone or worker.status() == psutil.STATUS_ZOMBIE


def test_the_spool_is_swept_of_what_dead_processes_left(tmp_path: Path) -> None:
    host = os.uname().nodename
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = {
        f"{host}-{dead.pid}": False,
        f"{host}-{os.getpid()}": False,
        f"{host}-{os.getppid()}": True,
        "other-1": True,
    }
    for name in names:
        (tmp_path / name / "task-000000-x").mkdir(parents=True)
    sweep_spool(tmp_path)
    assert {name: (tmp_path / name).exists() for name in names} == names
