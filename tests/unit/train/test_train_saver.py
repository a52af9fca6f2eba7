"""Saves behind training: what it waits for, which state is written, and what happens when one fails.

The runs are real ones of a tiny model. A gate holds the thread that saves, so nothing here depends on time.
"""

from __future__ import annotations

import json
import resource
import threading
from pathlib import Path

import pytest

from lmbatch.checkpoint import Checkpoints, stages
from lmbatch.checkpoint.stages import Stage
from lmbatch.errors import CheckpointError, StoreError, StoreFullError
from lmbatch.store import LocalStore
from lmbatch.train import train
from lmbatch.train.attempts import read_attempts
from lmbatch.train.metrics import last_step, read_metrics, save_rows
from lmbatch.train.plain_engine import PlainEngine
from lmbatch.train.recorder import Recorder
from lmbatch.train.saver import Saver
from lmbatch.train.stop import StopFlag
from support.tiny_run import assert_equal_runs, call_after_step, saved_steps, tiny_config

ALL = {"save": {"keep": 9}}  # every checkpoint of a run stays


@pytest.fixture
def after_step(monkeypatch):
    """``after_step(n, action)``: call something once the row of step n is recorded."""
    monkeypatch.setattr(Recorder, "train", Recorder.train)
    return call_after_step


class Gate:
    """The first save that comes to a stage goes on when the gate is opened, or fails after a minute."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.reached, self.opened = stage, threading.Event(), threading.Event()

    def __call__(self, stage: Stage) -> None:
        if stage is self.stage and not self.reached.is_set():
            self.reached.set()
            assert self.opened.wait(60), "nobody has opened the gate"


@pytest.fixture
def gate(monkeypatch):
    """Before a file of the first checkpoint is written."""
    closed = Gate(Stage.BEFORE_PAYLOAD)
    monkeypatch.setattr(stages, "on_stage", closed)
    return closed


@pytest.fixture(scope="module")
def waiting(store, tmp_path_factory):
    """A run that waits for each of its checkpoints; all of them are there."""
    save = {"keep": 9, "asynchronous": False}
    return train(tiny_config(store, tmp_path_factory.mktemp("waiting"), save=save)).run_dir


def payloads(run_dir: Path) -> dict[str, bytes]:
    """The bytes of all files of all checkpoints, but for the state of Python's own generator, which nobody seeds."""
    files = run_dir.glob("checkpoints/step-*/attempt-*/*")
    return {f"{path.parts[-3]}/{path.name}": path.read_bytes() for path in files if path.name != "rng.json"}


def facts_of(run_dir: Path, step: int) -> dict[str, object]:
    return json.loads((run_dir / f"checkpoints/step-{step:08d}/receipt.json").read_text())["facts"]


def attempts_left(run_dir: Path) -> list[str]:
    """Steps in whose folder an attempt lies that no receipt names."""
    return [path.name for path in run_dir.glob("checkpoints/*") if not (path / "receipt.json").exists()]


# ── what is written ──────────────────────────────────────────────────────────────────────────────────────────────────
def test_training_goes_on_while_a_checkpoint_is_written_and_its_state_is_that_of_its_step(
    store, waiting, tmp_path, gate, after_step
):
    after_step(9, gate.opened.set)  # that of step 5; a loop that waits for it would never come here
    run_dir = train(tiny_config(store, tmp_path, **ALL)).run_dir
    assert gate.reached.is_set()
    assert saved_steps(run_dir) == [5, 10, 15, 20]
    assert payloads(run_dir) == payloads(waiting)
    assert facts_of(run_dir, 5) == facts_of(waiting, 5)
    assert facts_of(run_dir, 5)["samples_consumed"] == 40
    assert_equal_runs(run_dir, waiting)


def test_the_rows_up_to_a_step_are_on_the_disk_before_its_checkpoint_begins(store, tmp_path, monkeypatch):
    events = []
    sync, snapshot = Recorder.sync, PlainEngine.snapshot
    monkeypatch.setattr(Recorder, "sync", lambda self: (events.append("sync"), sync(self)))
    monkeypatch.setattr(PlainEngine, "snapshot", lambda self: (events.append("copy"), snapshot(self))[1])
    train(tiny_config(store, tmp_path, steps=10))
    assert events[:4] == ["sync", "copy", "sync", "copy"]


def test_what_is_kept_goes_by_the_evaluations_before_the_copy(store, tmp_path, gate, after_step, monkeypatch):
    known = []
    save = Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", lambda self, *a: (save(self, *a), known.append(sorted(self._losses())))[0])
    after_step(9, gate.opened.set)  # the evaluation of step 5 is done by then
    train(tiny_config(store, tmp_path, steps=15, evaluate={"every": 5}))
    assert known == [[], [5], [5, 10]]


def test_what_a_save_cost_is_told(store, tmp_path, waiting):
    bucket = tmp_path / "bucket"
    run_dir = train(tiny_config(store, tmp_path, steps=10, save={"store": str(bucket)})).run_dir
    rows = save_rows(read_metrics(run_dir))
    assert [row["step"] for row in rows] == [5, 10]
    size = sum(path.stat().st_size for path in run_dir.glob("checkpoints/step-00000005/attempt-*/*"))
    for row in rows:
        assert row["asynchronous"]
        assert row["bytes"] == pytest.approx(size, rel=0.01)
        assert 0 <= row["waited_seconds"] <= row["stall_seconds"]
        assert row["write_seconds"] > 0
    uploads = [row for row in read_metrics(run_dir) if row["kind"] == "upload"]
    assert [row["step"] for row in uploads][-1] == 10
    assert all(row["upload_seconds"] > 0 for row in uploads)
    for row in save_rows(read_metrics(waiting)):
        assert not row["asynchronous"]
        assert row["stall_seconds"] >= row["write_seconds"]


# ── the next save ────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_next_save_waits_until_the_one_before_is_committed(store, waiting, tmp_path, gate, monkeypatch):
    committed = []
    save, snapshot = Saver.save, PlainEngine.snapshot

    def waited(self, find_facts, since):
        if find_facts().step == 10:
            threading.Timer(0.3, gate.opened.set).start()
        save(self, find_facts, since)

    monkeypatch.setattr(Saver, "save", waited)
    run_dir = tmp_path / "tiny"
    monkeypatch.setattr(
        PlainEngine, "snapshot", lambda self: (committed.append(saved_steps(run_dir)), snapshot(self))[1]
    )
    train(tiny_config(store, tmp_path, **ALL))
    assert committed == [[], [5], [5, 10], [5, 10, 15]]
    assert payloads(run_dir) == payloads(waiting)
    rows = {row["step"]: row for row in save_rows(read_metrics(run_dir))}
    assert rows[10]["waited_seconds"] > 0.2 > rows[5]["waited_seconds"]


def test_a_save_is_left_out_if_that_is_wished_but_never_the_last_one(store, tmp_path, gate, after_step, caplog):
    caplog.set_level("INFO")
    threads = []

    def open_soon() -> None:  # the loop is past the save of step 15 then, and waits at the end
        threads.append(threading.Timer(0.3, gate.opened.set))
        threads[0].start()

    after_step(20, open_soon)
    run_dir = train(tiny_config(store, tmp_path, save={"when_busy": "skip"})).run_dir
    assert saved_steps(run_dir) == [5, 20]
    left_out = [(row["step"], row["left_out_for"]) for row in read_metrics(run_dir) if "left_out_for" in row]
    assert left_out == [(10, 5), (15, 5)]
    assert "step 10 is not saved: that of step 5 is not through" in caplog.text


def test_a_save_that_is_not_in_the_way_is_not_left_out(store, tmp_path, after_step, waiting):
    after_step(9, lambda: wait_for(lambda: saved_steps(tmp_path / "tiny") == [5]))
    after_step(14, lambda: wait_for(lambda: saved_steps(tmp_path / "tiny") == [5, 10]))
    after_step(19, lambda: wait_for(lambda: saved_steps(tmp_path / "tiny") == [10, 15]))
    train(tiny_config(store, tmp_path, save={"when_busy": "skip"}))
    assert saved_steps(tmp_path / "tiny") == [15, 20]


def wait_for(condition) -> None:
    """At most a minute."""
    pause = threading.Event()
    for _ in range(6000):
        if condition():
            pause.wait(0.1)  # what is committed is through a moment later
            return
        pause.wait(0.01)
    pytest.fail("it did not come to that")


# ── a stop ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_stop_while_a_checkpoint_is_written_waits_for_it_and_saves(store, waiting, tmp_path, gate, after_step):
    stop, config = StopFlag(), tiny_config(store, tmp_path, save={"keep": 9, "when_busy": "skip"})

    def ask() -> None:
        stop.request("SIGTERM")
        threading.Timer(0.3, gate.opened.set).start()

    after_step(7, ask)
    stopped = train(config, stop)
    assert (stopped.exit_code, stopped.step) == (75, 7)
    assert saved_steps(stopped.run_dir) == [5, 7]
    (attempt,) = read_attempts(stopped.run_dir)
    assert (attempt.why, attempt.detail, attempt.last_saved_step) == ("stopped", "SIGTERM", 7)
    train(config)
    assert_equal_runs(stopped.run_dir, waiting)


# ── a failure ────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture
def stop_seen():
    """A flag, and a function that waits until somebody has asked for a stop."""
    stop = StopFlag()
    return stop, lambda: wait_for(lambda: stop.reason is not None)


def test_a_full_disk_ends_the_run_at_the_next_step_with_its_reason(store, tmp_path, monkeypatch, stop_seen):
    stop, seen = stop_seen
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:  # larger than metrics.jsonl, smaller than the weights
        wait_for(lambda: saved_steps(tmp_path / "tiny") == [5])
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "train", Recorder.train)
        call_after_step(9, fill)
        call_after_step(11, seen)
        try:
            with pytest.raises(StoreFullError, match=r"step-00000010.*File too large") as caught:
                train(tiny_config(store, tmp_path), stop)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "free space" in caught.value.remedy
    run_dir = tmp_path / "tiny"
    assert 11 <= last_step(read_metrics(run_dir)) <= 13
    assert saved_steps(run_dir) == [5]
    assert [path.name for path in run_dir.glob("checkpoints/step-00000010/*")] == []  # the space is given back
    (attempt,) = read_attempts(run_dir)
    assert (attempt.why, attempt.last_saved_step) == ("failed", 5)
    assert attempt.detail.startswith("StoreFullError")
    assert train(tiny_config(store, tmp_path)).resumed_from == 5


def test_an_upload_that_fails_ends_the_run_at_the_next_step_once_that_is_saved(
    store, tmp_path, after_step, stop_seen, monkeypatch
):
    stop, seen = stop_seen
    bucket = tmp_path / "bucket"
    put_file = LocalStore.put_file

    def refused(self, key, path):
        if str(bucket) in self.uri:
            raise StoreError(f"{self.uri}/{key}: the bucket is closed")
        put_file(self, key, path)

    monkeypatch.setattr(LocalStore, "put_file", refused)
    after_step(7, seen)
    with pytest.raises(CheckpointError, match="not copied here: .*the bucket is closed"):
        train(tiny_config(store, tmp_path, save={"store": str(bucket)}), stop)
    *_, newest = saved_steps(tmp_path / "tiny")
    (attempt,) = read_attempts(tmp_path / "tiny")
    assert (attempt.why, attempt.last_saved_step, attempt.steps_lost) == ("failed", newest, 0)
    assert 5 < newest <= 9


def test_a_failure_of_the_last_save_is_not_lost(store, tmp_path, monkeypatch):
    original = PlainEngine.snapshot

    def fail(folder: Path) -> None:  # once the loop is at its end, where nobody looks at the flag any more
        threading.Event().wait(0.5)
        raise ZeroDivisionError

    def broken(self):
        original(self)
        return lambda commit: commit(fail)

    monkeypatch.setattr(PlainEngine, "snapshot", broken)
    with pytest.raises(ZeroDivisionError):
        train(tiny_config(store, tmp_path, steps=3, evaluate={"batches": 0}))
    assert saved_steps(tmp_path / "tiny") == []
    assert attempts_left(tmp_path / "tiny") == ["step-00000003"]


def test_a_run_that_fails_by_itself_lets_the_save_behind_come_to_its_end(store, tmp_path, gate, after_step):
    def fail() -> None:
        threading.Timer(0.3, gate.opened.set).start()
        raise ZeroDivisionError

    after_step(7, fail)
    with pytest.raises(ZeroDivisionError):
        train(tiny_config(store, tmp_path))
    assert saved_steps(tmp_path / "tiny") == [5]
    assert read_attempts(tmp_path / "tiny")[0].last_saved_step == 5
