"""What the driver makes of heartbeats: rates and time left, silence by its own clock, and no harm from any of them."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lmbatch.errors import StoreError
from lmbatch.launch import LocalBackend, Progress, run_preprocess
from lmbatch.launch.watch import Watch
from lmbatch.preprocess import Heartbeat, LiveTask, Observer, Pace, StoredHeartbeat, Tally, sort_out
from lmbatch.preprocess.facts import TaskFacts
from lmbatch.preprocess.heartbeat import heartbeat_key, heartbeat_of
from lmbatch.store import LocalStore, Store, to_json
from support.drive import HELD
from support.wudao import config_for, write_files, write_tokenizer


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def beat_of(worker: str, task: str, **changes: Any) -> Heartbeat:
    settings = {"task": task, "space": "another machine", "bytes": 100, "bytes_done": 50, **changes}
    return heartbeat_of(LiveTask(), worker, 0, 10.0).model_copy(update=settings)


def facts_of(task: str, **changes: Any) -> TaskFacts:
    settings: dict[str, Any] = {
        "task": task, "file": "a.json", "engine": "table", "seconds": 10.0, "cpu_seconds": 9.0, "memory_bytes": 7,
        "input_bytes": 100, "tokens": 1000, "records": 12, "documents": {"train": 9, "validation": 1},
        "dropped": {"too_short": 1}, "quarantined": {"truncated": 1}, "changed": {}, "cut": None, **changes,
    }  # fmt: skip
    return TaskFacts(**settings)


def put(store: Store, *beats: Heartbeat) -> None:
    for beat in beats:
        store.put(heartbeat_key(beat.worker), to_json(beat))


def workers(store: Store) -> list[str]:
    return [info.key.removeprefix("heartbeats/").removesuffix(".json") for info in store.list("heartbeats/")]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def test_rates_and_time_left_count_what_is_not_finished_yet(store: LocalStore) -> None:
    clock = Clock()
    watch, tally = Watch(store, 10, clock), Tally()
    watch.progress(tally, set(), 10, 1000, 2)
    clock.now += 20
    tally.add(facts_of("task-000000"))
    put(store, beat_of("w", "task-000001", bytes_done=60, documents=4, tokens=600, dropped={"too_short": 2, "a": 1}))
    assert watch.look({"task-000000"})
    now = watch.progress(tally, {"task-000000"}, 10, 1000, 2)
    assert (now.tasks_done, now.bytes_done, now.bytes_at_work) == (1, 100, 60)
    assert (now.documents, now.tokens, now.workers) == (14, 1600, 1)
    assert (now.dropped, now.quarantined) == ({"a": 1, "too_short": 3}, {"truncated": 1})
    assert now.bytes_per_second == pytest.approx(160 / 20)
    assert now.tokens_per_second == pytest.approx(1600 / 20)
    assert now.seconds_left == pytest.approx(840 / 8)
    assert [item.share for item in now.slowest] == [0.6]


def test_what_is_finished_is_not_counted_twice(store: LocalStore) -> None:
    """Neither when a heartbeat is older than the receipt, nor when the receipt comes between two looks."""
    clock = Clock()
    watch, tally = Watch(store, 10, clock), Tally()
    put(store, beat_of("w", "task-000001", bytes_done=99))
    watch.look(set())
    tally.add(facts_of("task-000001"))
    assert watch.progress(tally, {"task-000001"}, 10, 1000, 2).bytes_at_work == 0
    clock.now += 30
    watch.look({"task-000001"})
    assert watch.at_work == []


def test_rates_are_recent_ones_and_those_of_the_whole_run_where_nothing_came_lately() -> None:
    clock = Clock()
    pace = Pace(window=60, clock=clock)
    assert pace.note(0) is None
    for _ in range(10):
        clock.now += 20
        pace.note((clock.now - 1000) * 5)
    clock.now += 20
    pace.note(1000 + 20 * 50)
    clock.now += 40
    assert pace.note(1000 + 60 * 50) == pytest.approx((50,))
    clock.now += 500
    pace.note(4000)
    clock.now += 240
    assert pace.note(4000) == pytest.approx((4,))


def test_a_silent_worker_is_told_of_once_and_by_the_clock_of_who_looks(
    store: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    watch = Watch(store, 10, clock)
    for step in range(20):
        put(store, beat_of("well", "task-000001", beat=step), beat_of("stuck", "task-000002", file="甲.json"))
        watch.look(set())
        clock.now += 10
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 1
    assert "stuck" in told[0]
    assert "task-000002 of 甲.json" in told[0]
    now = watch.progress(Tally(), set(), 10, 1000, 2)
    assert (now.workers, len(now.slowest)) == (1, 2)
    assert set(workers(store)) == {"well", "stuck"}  # it may be alive: only its task's next worker takes its place


@pytest.mark.parametrize("skew", [-(10**9), 10**9], ids=["the past", "the future"])
def test_clocks_that_are_wrong_do_no_harm(store: LocalStore, skew: float, caplog: pytest.LogCaptureFixture) -> None:
    """Times of files from another age change neither who is silent nor what counts."""
    clock = Clock()
    watch = Watch(store, 10, clock)
    for step in range(20):
        put(store, beat_of("w", "task-000001", beat=step, seconds=1e9), beat_of("v", "task-000002", beat=10**9 + step))
        path = store.local_path("heartbeats/w.json")
        os.utime(path, (time.time() + skew, time.time() + skew))
        assert watch.look(set())
        clock.now += 10
    assert not caplog.records
    now = watch.progress(Tally(), set(), 10, 1000, 2)
    assert (now.workers, now.bytes_at_work) == (2, 100)


def test_of_two_workers_at_one_task_the_one_that_is_heard_of_counts_and_the_other_goes(store: LocalStore) -> None:
    clock = Clock()
    watch = Watch(store, 10, clock)
    put(store, beat_of("the killed one", "task-000001", bytes_done=90))
    watch.look(set())
    for step in range(8):
        clock.now += 10
        put(store, beat_of("next", "task-000001", beat=step, bytes_done=10 + step))
        watch.look(set())
        assert [item.beat.worker for item in watch.at_work] == ["next"]
    assert workers(store) == ["next"]


def test_a_killed_process_of_this_machine_is_ignored_and_its_heartbeat_removed(store: LocalStore) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    here = heartbeat_of(LiveTask(), "dead", 0, 10.0)
    put(store, here.model_copy(update={"pid": dead.pid, "task": "task-000001", "bytes": 9, "bytes_done": 9}))
    watch = Watch(store, 10)
    assert watch.look(set())
    assert watch.progress(Tally(), set(), 1, 9, 1).bytes_at_work == 0
    assert workers(store) == []


def test_what_an_earlier_run_left_is_taken_away_at_the_beginning(store: LocalStore) -> None:
    put(store, beat_of("old", "task-000001"), beat_of("adopted", "task-000002"))
    Watch(store, 10).begin({"task-000002"})
    assert workers(store) == ["adopted"]


def test_the_heartbeat_of_a_batch_that_ended_goes(store: LocalStore) -> None:
    watch = Watch(store, 10)
    put(store, beat_of("a", "task-000001"), beat_of("b", "task-000002"))
    watch.look(set())
    watch.ended(("task-000001", "task-000003"))
    assert [item.beat.worker for item in watch.at_work] == ["b"]
    assert workers(store) == ["b"]


def test_a_store_that_cannot_be_listed_is_no_trouble_of_the_run(store: LocalStore, monkeypatch: Any) -> None:
    def broken(self: LocalStore, prefix: str = "") -> None:
        raise StoreError("down")

    put(store, beat_of("a", "task-000001"))
    monkeypatch.setattr(LocalStore, "list", broken)
    watch = Watch(store, 10)
    watch.begin(set())
    assert not watch.look(set())
    watch.ended(("task-000001",))


def test_looking_takes_little_of_the_drivers_time(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, looks = Clock(), []

    def slow(store: Store) -> list[StoredHeartbeat]:
        looks.append(clock.now)
        clock.now += 30
        return []

    monkeypatch.setattr("lmbatch.launch.watch.read_heartbeats", slow)
    watch = Watch(store, 10, clock)
    for _ in range(100):
        watch.look(set())
        clock.now += 10
    assert len(looks) in (3, 4)


def test_observers_do_not_mix_up_a_worker_that_vanished_and_came_back() -> None:
    clock = Clock()
    observer = Observer(clock)
    stored = StoredHeartbeat(beat_of("w", "task-000001"), None)
    observer.note([stored])
    clock.now += 1000
    observer.note([])
    (item,) = observer.note([stored])
    assert item.quiet_seconds == 0
    assert sort_out([item], set()) == ([item], [])


def test_a_real_run_shows_workers_at_work_and_leaves_no_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks are held before their receipts until the driver has seen how far they are."""
    write_files(tmp_path / "raw")
    write_tokenizer(tmp_path / "tok")
    gate = tmp_path / "gate"
    monkeypatch.setenv("PYTHONPATH", f"{HELD}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("LMBATCH_TEST_GATE", str(gate))
    seen: list[Progress] = []

    def show(now: Progress) -> None:
        seen.append(now)
        if now.workers == 2 and now.bytes_at_work:
            gate.touch()

    give_up = threading.Timer(60, gate.touch)
    give_up.start()
    config = config_for(tmp_path, heartbeat_seconds=0.05, tasks={"bytes": 20_000})
    run_preprocess(config, lambda folder: LocalBackend(folder, 2), on_progress=show)
    give_up.cancel()
    held = next(now for now in seen if now.workers == 2)
    assert held.tasks_done == 0 < held.documents
    assert {item.share for item in held.slowest} == {1.0}
    assert held.bytes_per_second
    last = seen[-1]
    assert (last.tasks_done, last.bytes_done, last.bytes_at_work, last.seconds_left) == (
        last.tasks, last.bytes, 0, 0)  # fmt: skip
    assert not list((tmp_path / "store" / "heartbeats").iterdir())
