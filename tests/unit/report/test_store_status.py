"""What `lmbatch status` says of a store: receipts, heartbeats, rates, time left; in text and in JSON."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from lmbatch.cli.show_store import print_store
from lmbatch.errors import ObjectNotFoundError, StoreError
from lmbatch.preprocess import Heartbeat, LiveTask, Plan, merge, read_receipts, run_task
from lmbatch.preprocess.facts import parse_facts
from lmbatch.preprocess.heartbeat import heartbeat_key, heartbeat_of
from lmbatch.report import StageStatus, StoreStatus, StoreWatcher, store_status
from lmbatch.store import Ledger, LocalStore, Store, to_json
from support.drive import prepare
from support.wudao import config_for, write_files, write_tokenizer


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    """A store with receipts for all tasks but the last four, which drops and quarantines."""
    base = tmp_path_factory.mktemp("status")
    write_files(base / "raw")
    write_tokenizer(base / "tok")
    damaged = base / "raw" / "part-2021278600.json"
    damaged.write_bytes(damaged.read_bytes().replace("第3条".encode(), b"\xff\xfe", 1))
    store, raw, plan, encoder = prepare(config_for(base, cleaning={"min_characters": 60}))
    for task in plan.tasks[:-4]:
        run_task(store, raw, plan, task, encoder, base / "spool")
    return base, plan


@pytest.fixture
def store(made: tuple[Path, Plan], tmp_path: Path) -> LocalStore:
    """A copy that a test may change."""
    shutil.copytree(made[0] / "store", tmp_path / "store")
    return LocalStore(tmp_path / "store")


@pytest.fixture
def plan(made: tuple[Path, Plan]) -> Plan:
    return made[1]


def put_beat(store: Store, worker: str, task: str, **changes: Any) -> None:
    settings = {"task": task, "space": "another machine", "bytes": 6000, "bytes_done": 3000, "seconds": 2.0, **changes}
    beat: Heartbeat = heartbeat_of(LiveTask(), worker, 0, 10.0).model_copy(update=settings)
    store.put(heartbeat_key(worker), to_json(beat))


def test_the_sums_are_those_of_the_receipts(store: LocalStore, plan: Plan) -> None:
    receipts = read_receipts(store, plan.tasks).values()
    status = store_status(store)
    assert (status.tasks_done, status.tasks) == (len(receipts), len(plan.tasks))
    assert status.ledger == Ledger.total(receipt.ledger for receipt in receipts)
    assert status.ledger.records_dropped > 0 < status.ledger.records_quarantined
    assert status.tokens == sum(shard.tokens for receipt in receipts for shard in receipt.shards)
    assert status.input_bytes_done == sum(receipt.input_bytes for receipt in receipts)
    assert status.input_bytes == plan.input_bytes
    assert status.cpu_seconds == pytest.approx(sum(receipt.cpu_seconds for receipt in receipts))
    slow = sorted(receipts, key=lambda receipt: receipt.seconds, reverse=True)[:10]
    assert [item.task for item in status.slowest] == [receipt.task for receipt in slow]
    assert (status.running, status.bytes_per_second, status.seconds_left) == ((), None, None)


def test_workers_at_work_give_rates_and_time_left(store: LocalStore, plan: Plan) -> None:
    one, other = plan.tasks[-1].id, plan.tasks[-2].id
    put_beat(store, "a", one, records=10, documents=7, tokens=70, dropped={"too_short": 3}, seconds=2.0)
    put_beat(
        store, "b", other, bytes_done=1000, seconds=4.0, failures={plan.tasks[-3].id: "it broke", "task-000000": ""}
    )
    status = store_status(store)
    assert (status.tasks_running, status.input_bytes_at_work) == (2, 4000)
    assert status.bytes_per_second == pytest.approx(3000 / 2 + 1000 / 4)
    left = plan.input_bytes - status.input_bytes_done - 4000
    assert status.seconds_left == pytest.approx(left / 1750)
    documents = status.ledger.documents_out + 7
    assert status.documents_per_second == pytest.approx(1750 * documents / (status.input_bytes_done + 4000))
    assert [(item.task, item.share) for item in status.running] == [(other, 1 / 6), (one, 0.5)]
    assert status.at_work["dropped"] == {"too_short": 3}
    assert status.failures == {plan.tasks[-3].id: "it broke"}


def test_a_worker_that_has_read_nothing_yet_counts_with_the_mean(store: LocalStore, plan: Plan) -> None:
    put_beat(store, "a", plan.tasks[-1].id, bytes_done=0, seconds=0.0)
    status = store_status(store)
    assert status.bytes_per_second == status.worker_bytes_per_second
    assert status.bytes_per_second


def test_what_is_finished_or_dead_is_not_at_work(store: LocalStore, plan: Plan) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    here = heartbeat_of(LiveTask(), "x", 0, 1.0).space
    put_beat(store, "late", plan.tasks[0].id)
    put_beat(store, "dead", plan.tasks[-1].id, pid=dead.pid, space=here)
    status = store_status(store)
    assert (status.tasks_running, status.input_bytes_at_work, status.running) == (0, 0, ())


@pytest.mark.parametrize("skew", [-(10**8), 10**8], ids=["the past", "the future"])
def test_a_wrong_clock_makes_a_worker_look_late_and_does_nothing_else(store: LocalStore, plan: Plan, skew: int) -> None:
    put_beat(store, "right", plan.tasks[-1].id)
    put_beat(store, "wrong", plan.tasks[-2].id)
    now = time.time()
    os.utime(store.local_path("heartbeats/wrong.json"), (now + skew, now + skew))
    status = store_status(store)
    assert status.tasks_running == 2
    behind = {item.worker: item.behind_seconds for item in status.running}
    assert min(behind.values()) >= 0
    assert (behind["wrong"] > 10**7) == (skew < 0)  # type: ignore[operator]
    assert status.seconds_left is not None
    assert not any(item.silent for item in status.running)


def test_of_two_workers_at_one_task_the_later_one_counts(store: LocalStore, plan: Plan) -> None:
    put_beat(store, "a", plan.tasks[-1].id, bytes_done=10)
    put_beat(store, "b", plan.tasks[-1].id, bytes_done=6000)
    os.utime(store.local_path("heartbeats/b.json"), (1, 1))
    assert [item.worker for item in store_status(store).running] == ["a"]


def test_who_watches_reads_a_receipt_once_and_notices_one_that_is_withdrawn(
    store: LocalStore, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    monkeypatch.setattr("lmbatch.preprocess.facts.parse_facts", lambda data, where: (read.append(where),
                        parse_facts(data, where))[1])  # fmt: skip
    data = store.read("receipts/task-000001.json")
    store.delete("receipts/task-000001.json")
    watcher = StoreWatcher(store)
    before = watcher.look()
    count = len(read)
    assert count == before.tasks_done == len(plan.tasks) - 5
    store.put("receipts/task-000001.json", data)
    whole = watcher.look()
    assert (len(read), whole.tasks_done) == (count + 1, count + 1)
    store.delete("receipts/task-000001.json")
    assert watcher.look().ledger == before.ledger


def test_stages_before_are_counted_apart(store: LocalStore, plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    before = store_status(store)
    assert before.stages == (StageStatus("tokenize", len(plan.tasks), before.tasks_done, 0),)
    value = json.loads(store.read("plan.json")) | {"partitions": 3}
    store.put("plan.json", json.dumps(value).encode())
    store.put("receipts/sign-000001.json", b"{}")
    store.put("receipts/sign-000002.json", b"{}")
    put_beat(store, "a", "sign-000003")
    put_beat(store, "b", "sign-000002")  # it has a receipt
    status = store_status(store)
    assert status.stages[:2] == (StageStatus("sign", len(plan.tasks), 2, 1), StageStatus("compare", 3, 0, 0))
    assert (status.tasks_done, status.tasks_running, status.bytes_per_second) == (before.tasks_done, 0, None)
    assert [item.task for item in status.running] == ["sign-000003"]
    print_store(status)
    assert f"stages: sign 2 of {len(plan.tasks)}, compare 0 of 3, tokenize" in capsys.readouterr().out


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"task": "task-000001"}', b"\xff"])
def test_a_damaged_receipt_is_named(store: LocalStore, data: bytes) -> None:
    store.put("receipts/task-000001.json", data)
    with pytest.raises(StoreError, match=r"receipts/task-000001\.json: not a receipt"):
        store_status(store)


def test_a_receipt_under_another_name_is_refused(store: LocalStore) -> None:
    store.put("receipts/task-000001.json", store.read("receipts/task-000000.json"))
    with pytest.raises(StoreError, match="is the receipt of task-000000"):
        store_status(store)


def test_a_store_without_a_plan_is_named(tmp_path: Path) -> None:
    with pytest.raises(ObjectNotFoundError, match=r"plan\.json"):
        store_status(LocalStore(tmp_path))


def test_the_text_has_everything_and_keeps_the_width_of_chinese(
    store: LocalStore, plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {"file": "部分/法律文书-甲.json", "job": "17_3", "quarantined": {"truncated": 2}, "records": 100}
    put_beat(store, "node-1-77-abc", plan.tasks[-1].id, **said, failures={plan.tasks[-3].id: "字节 17：断裂"})
    put_beat(store, "node-2-78-abc", plan.tasks[-2].id, file="b.json", seconds=99.0)
    status = store_status(store)
    print_store(status)
    text = capsys.readouterr().out
    for words in (
        f"{status.tasks_done} of {status.tasks} tasks done, 2 at work, 2 waiting", " left\n", "documents/s", "MiB",
        "dropped      too_short", "quarantined  truncated", "longest at work", "slowest finished", "(job 17_3)", "50 %",
        "字节 17：断裂", "manifest: not written yet",
    ):  # fmt: skip
        assert words in text.replace("KiB", "MiB"), words
    rows = [line for line in text.splitlines() if line.startswith((plan.tasks[-1].id, plan.tasks[-2].id))]
    starts = [_width(row[: row.index(" 50 %")]) for row in rows]
    assert len(rows) == 2
    assert starts[0] == starts[1]


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def test_json_has_all_of_it_and_watching_ends_with_the_manifest(
    store: LocalStore, plan: Plan, made: tuple[Path, Plan]
) -> None:
    put_beat(store, "a", plan.tasks[-1].id, file="甲.json")
    command = [sys.executable, "-m", "lmbatch", "status", str(store.root), "--json"]
    once = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "甲.json" in once.stdout
    status = json.loads(once.stdout)
    assert status.keys() == store_status(store).to_dict().keys()
    assert {"bytes_per_second", "seconds_left", "running", "slowest", "ledger", "at_work"} <= status.keys()
    watching = subprocess.Popen([*command, "--watch", "0.1"], stdout=subprocess.PIPE, text=True)
    assert watching.stdout
    assert json.loads(watching.stdout.readline())["digest"] is None
    _finish(store, plan, made[0])
    lines = [json.loads(line) for line in watching.stdout]
    assert watching.wait(30) == 0
    assert lines[-1]["digest"].startswith("sha256:")
    assert lines[-1]["tasks_done"] == len(plan.tasks)


def _finish(store: LocalStore, plan: Plan, base: Path) -> None:
    _, raw, _, encoder = prepare(plan.config, store)
    for task in plan.tasks[-4:]:
        run_task(store, raw, plan, task, encoder, base / "spool")
    merge(store, plan)


def test_where_all_is_done_the_slowest_tasks_are_left_out_of_the_text(
    store: LocalStore, plan: Plan, made: tuple[Path, Plan], capsys: pytest.CaptureFixture[str]
) -> None:
    _finish(store, plan, made[0])
    status: StoreStatus = store_status(store)
    print_store(status)
    assert "slowest" not in capsys.readouterr().out
    assert status.slowest
