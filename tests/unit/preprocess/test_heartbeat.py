"""Heartbeats of workers: what they say adds up, and nothing that becomes of them hurts a task."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lmbatch.config import CorpusConfig
from lmbatch.corpus import Piece, Seen, bytes_behind, list_inputs, probe, read_piece
from lmbatch.errors import StoreError, StoreFullError
from lmbatch.preprocess import Heartbeat, LiveTask, Pulse, read_heartbeats, remove_heartbeats, run_task
from lmbatch.preprocess.heartbeat import has_died, heartbeat_of
from lmbatch.store import LocalStore, open_store
from support.drive import WatchedStore, prepare
from support.wudao import config_for, write_files, write_tokenizer


@pytest.fixture
def base(tmp_path: Path) -> Path:
    write_files(tmp_path / "raw")
    write_tokenizer(tmp_path / "tok")
    return tmp_path


def wait_until(condition: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_the_numbers_at_the_end_of_a_task_are_those_of_its_receipt(base: Path) -> None:
    damage = base / "raw" / "part-2021278600.json"
    damage.write_bytes(damage.read_bytes().replace("第3条".encode(), b"\xff\xfe", 1))
    cleaning = {"min_characters": 60}
    config = config_for(base, tasks={"bytes": 9000}, cleaning=cleaning)
    store, raw, plan, encoder = prepare(config)
    live = LiveTask()
    reasons: set[str] = set()
    for task in plan.tasks:
        receipt = run_task(store, raw, plan, task, encoder, base / "spool", live)
        assert receipt is not None
        beat = heartbeat_of(live, "w", 0, 1.0)
        ledger = receipt.ledger
        assert (beat.task, beat.bytes, beat.bytes_done) == (task.id, receipt.input_bytes, receipt.input_bytes)
        assert (beat.records, beat.documents) == (ledger.records, ledger.documents_out)
        assert beat.tokens == sum(shard.tokens for shard in receipt.shards)
        assert (dict(sorted(beat.dropped.items())), beat.quarantined) == (ledger.dropped, ledger.quarantined)
        reasons |= ledger.dropped.keys() | ledger.quarantined.keys()
    assert len(reasons) >= 2


def test_in_the_middle_of_a_task_its_bytes_grow_and_stay_below_the_whole(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, raw, plan, encoder = prepare(config_for(base, tasks={"bytes": 10**6}))
    live, seen = LiveTask(), []

    def reading(*arguments: Any, **named: Any) -> Iterator[Any]:
        for record in read_piece(*arguments, **named):
            seen.append((live.bytes_done, live.records))
            yield record

    monkeypatch.setattr("lmbatch.preprocess.reading.read_piece", reading)
    run_task(store, raw, plan, plan.tasks[0], encoder, base / "spool", live)
    assert len(plan.tasks) == 1
    assert seen == sorted(seen)
    assert [records for _, records in seen] == list(range(1, 121))
    whole = plan.tasks[0].input_bytes
    assert 0.4 * whole < seen[60][0] < 0.6 * whole
    assert seen[-1][0] < whole == live.bytes_done


@pytest.mark.parametrize("form", ["json_lines", "json_lines.gz", "csv", "parquet", "dataset"])
def test_every_format_tells_how_far_it_is(tmp_path: Path, form: str) -> None:
    """Half of the records are about half of the bytes, and all of them are all."""
    length = 10_000 if form == "json_lines.gz" else 1000  # 4 MiB are read ahead
    texts = [f"{number} " + os.urandom(length).hex() for number in range(800)]
    config = _written(tmp_path, form, texts)
    store = open_store(str(tmp_path))
    (file,) = list_inputs(store, config)
    facts = probe(store, config, file)
    end = len(facts.row_group_rows) or file.size
    piece, seen, positions = Piece(file.path, 0, end), Seen(), []
    for _ in read_piece(store, config, piece, facts, seen):
        positions.append(bytes_behind(piece, facts, seen))
    assert len(positions) == 800
    assert positions == sorted(positions)
    size = sum(facts.row_group_bytes) or file.size
    tolerance = 0.3 if form in ("json_lines.gz", "dataset") else 0.02
    assert positions[400] == pytest.approx(size / 2, rel=tolerance)
    assert positions[-1] <= size
    assert bytes_behind(piece, facts, seen) == pytest.approx(size, rel=0.002)


def _written(folder: Path, form: str, texts: list[str]) -> CorpusConfig:
    import pyarrow as pa
    from pyarrow import parquet

    settings = {"name": "c", "format": form.removesuffix(".gz"), "raw": str(folder), "include": ["*"]}
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    table = pa.table({"text": texts})
    match form:
        case "json_lines":
            (folder / "a.jsonl").write_bytes(lines)
        case "json_lines.gz":
            (folder / "a.jsonl.gz").write_bytes(gzip.compress(lines, 1))
        case "csv":
            (folder / "a.csv").write_text("text\n" + "\n".join(texts) + "\n")
        case "parquet":
            parquet.write_table(table, folder / "a.parquet", row_group_size=200)
        case "dataset":
            with pa.ipc.new_stream(folder / "data-00000-of-00001.arrow", table.schema) as out:
                out.write_table(table, max_chunksize=50)
            state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": None}
            (folder / "state.json").write_text(json.dumps(state))
    return CorpusConfig.model_validate(settings)


def test_a_worker_writes_while_it_works_and_leaves_nothing(tmp_path: Path) -> None:
    store, live = open_store(str(tmp_path)), LiveTask()
    live.begin("sign-000007", 100)  # any stage's task
    live.failed("sign-000006", "断裂的文件")
    with Pulse(store, live, 0.02) as pulse:
        wait_until(lambda: any(stored.beat.beat >= 3 for stored in read_heartbeats(store)))
        (stored,) = read_heartbeats(store)
        assert (stored.beat.worker, stored.beat.task, stored.beat.every) == (pulse.worker, "sign-000007", 0.02)
        assert stored.beat.failures == {"sign-000006": "断裂的文件"}
        assert stored.beat.memory_bytes > 10**6
        assert not has_died(stored.beat)
    assert list(store.list("heartbeats/")) == []


def test_no_heartbeat_where_none_is_wanted(tmp_path: Path) -> None:
    store, live = open_store(str(tmp_path)), LiveTask()
    live.begin("task-000000", 1)
    before = threading.active_count()
    with Pulse(store, live, 0):
        assert threading.active_count() == before


@pytest.mark.parametrize("trouble", [StoreFullError("full"), StoreError("down"), OSError(5, "I/O"), ValueError("odd")])
def test_a_store_that_refuses_heartbeats_does_not_hurt_the_task(base: Path, trouble: Exception) -> None:
    refused = threading.Event()

    def refuse(number: int, phase: str, operation: str, key: str) -> None:
        if key.startswith("heartbeats/"):
            refused.set()
            raise trouble

    config = config_for(base)
    store, raw, plan, encoder = prepare(config)
    watched: Any = WatchedStore(store, refuse)
    live = LiveTask()
    with Pulse(watched, live, 0.005):
        for task in plan.tasks:
            assert run_task(watched, raw, plan, task, encoder, base / "spool", live) is not None
        assert refused.wait(60)
        refused.clear()
        assert refused.wait(60)  # it goes on trying


def test_a_store_that_hangs_keeps_no_worker_from_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmbatch.preprocess.pulse._FAREWELL_SECONDS", 0.05)
    release, hangs, waited_for = threading.Event(), threading.Event(), threading.Event()

    def hang(number: int, phase: str, operation: str, key: str) -> None:
        hangs.set()
        if not release.wait(60):
            waited_for.set()

    live = LiveTask()
    live.begin("task-000000", 1)
    with Pulse(WatchedStore(LocalStore(tmp_path), hang), live, 0.01):  # type: ignore[arg-type]
        assert hangs.wait(60)
    assert not waited_for.is_set()
    release.set()


def beat_of(worker: str, **changes: Any) -> Heartbeat:
    return heartbeat_of(LiveTask(), worker, 0, 10.0).model_copy(update=changes)


def test_what_cannot_be_read_is_left_out_and_all_can_be_removed(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put("heartbeats/a.json", beat_of("a").model_dump_json().encode())
    store.put("heartbeats/b.json", b'{"worker": "b", "of": "the future"}')
    store.put("heartbeats/c.json", b"\xff\xfe half of a")
    store.put("receipts/task-000000.json", b"{}")
    assert [stored.beat.worker for stored in read_heartbeats(store)] == ["a"]
    remove_heartbeats(store)
    assert [info.key for info in store.list()] == ["receipts/task-000000.json"]


def test_a_dead_process_of_this_machine_is_known(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
    assert has_died(beat_of("zombie", pid=dead.pid))
    dead.wait()
    assert has_died(beat_of("gone", pid=dead.pid))
    assert not has_died(beat_of("elsewhere", pid=dead.pid, space="another machine"))
    assert not has_died(beat_of("me"))
