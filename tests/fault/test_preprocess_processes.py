"""The real command with real worker processes: killed workers, a killed driver, a full disk, two drivers at once."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from lmbatch.preprocess import verify_store
from lmbatch.store import open_store
from support.drive import contents, preprocess_here
from support.wudao import config_for, write_files, write_tokenizer

LMBATCH = [sys.executable, "-m", "lmbatch"]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    write_files(tmp_path / "raw", files=4, documents=200)
    write_tokenizer(tmp_path / "tok")
    return tmp_path


def command(base: Path, store: str, *more: str, **changes: object) -> list[str]:
    config = config_for(base, store=store, **changes)
    path = base / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json"), allow_unicode=True), encoding="utf-8")
    return [*LMBATCH, "preprocess", "--config", str(path), "--workers", "2", *more]


def run(base: Path, store: str, *more: str, **changes: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(base, store, *more, **changes), capture_output=True, text=True, cwd=base, check=False, timeout=240
    )


def workers_of(driver: psutil.Process) -> list[psutil.Process]:
    """The processes that do tasks: submitit's own command, below its controller."""
    found = []
    for process in driver.children(recursive=True):
        try:
            if "submitit.core._submit" in process.cmdline() and "SUBMITIT_LOCAL_LOCALID" in process.environ():
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def receipts(store: str) -> int:
    return sum(1 for _ in open_store(store).list("receipts/"))


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_killed_workers_are_replaced_and_the_bytes_are_those_of_a_quiet_run(
    base: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    small = {"tasks": {"bytes": 1200}}
    quiet = preprocess_here(config_for(base, store=str(base / "quiet"), **small))
    store = str(base / "stormy")
    storm = command(base, store, "--set", "retries=20", **small)
    process = subprocess.Popen(storm, cwd=base, stderr=subprocess.DEVNULL)
    started.append(process)
    driver, luck, killed = psutil.Process(process.pid), random.Random(3), 0
    while killed < 4 and process.poll() is None:
        for worker in workers_of(driver)[:1]:
            time.sleep(luck.uniform(0.1, 0.6))
            try:
                worker.send_signal(signal.SIGKILL)
                killed += 1
            except psutil.NoSuchProcess:
                pass
        time.sleep(0.02)
    assert killed >= 2
    assert process.wait(timeout=200) == 0
    assert contents(open_store(store)) == contents(open_store(str(base / "quiet")))
    assert verify_store(open_store(store)).digest == quiet.digest


def test_a_killed_driver_leaves_work_that_the_next_one_finishes(
    base: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    store = str(base / "store")
    process = subprocess.Popen(command(base, store), cwd=base, stderr=subprocess.DEVNULL)
    started.append(process)
    wait_until(lambda: receipts(store) >= 1)
    orphans = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    second = run(base, store, "--json")
    assert second.returncode == 0, second.stderr
    facts = json.loads(second.stdout)
    assert facts["tasks_done_now"] <= facts["tasks"]
    quiet = preprocess_here(config_for(base, store=str(base / "quiet")))
    assert facts["digest"] == quiet.digest
    assert contents(open_store(store)) == contents(open_store(str(base / "quiet")))
    wait_until(lambda: not any(process.is_running() and process.status() != "zombie" for process in orphans))


def test_ctrl_c_ends_the_driver_and_its_workers(base: Path, started: list[subprocess.Popen[bytes]]) -> None:
    store = str(base / "store")
    process = subprocess.Popen(command(base, store), cwd=base, stderr=subprocess.PIPE, start_new_session=True)
    started.append(process)
    wait_until(lambda: bool(workers_of(psutil.Process(process.pid))))
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130, message
    assert b"run the same command again" in message
    wait_until(lambda: not any(child.is_running() and child.status() != "zombie" for child in children), 60)


def test_input_that_was_moved_is_read_where_it_lies_now(base: Path) -> None:
    store = open_store(str(base / "store"))
    preprocess_here(config_for(base))
    whole = contents(store)
    store.delete("manifest.json")
    store.delete(next(iter(store.list("receipts/"))).key)
    (base / "raw").rename(base / "moved")
    again = run(base, str(base / "store"), "--raw", str(base / "moved"))
    assert again.returncode == 0, again.stderr
    assert contents(store) == whole


def test_two_drivers_at_once_do_no_harm(base: Path, started: list[subprocess.Popen[bytes]]) -> None:
    store = str(base / "store")
    processes = [subprocess.Popen(command(base, store), cwd=base, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    started += processes
    lines = [process.communicate(timeout=240)[0].splitlines()[-1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert lines[0] == lines[1]
    assert verify_store(open_store(store)).right


def test_a_full_disk_is_named_and_what_was_done_stays_done(base: Path) -> None:
    """No file may grow beyond a limit here: to a writer that is a disk that fills up in the middle of a file."""
    store = str(base / "store")
    size = 2**15

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that write() answers EFBIG instead of killing the process
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    big = {"tasks": {"bytes": 10**7}}
    failed = subprocess.run(
        command(base, store, "--set", "retries=0", **big), capture_output=True, text=True, cwd=base, check=False,
        timeout=200, preexec_fn=limit,
    )  # fmt: skip
    assert failed.returncode == 1, failed.stderr
    assert "tasks failed" in failed.stderr or "no space" in failed.stderr.lower() or "File too large" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not open_store(store).exists("manifest.json")
    after = run(base, store, **big)
    assert after.returncode == 0, after.stderr
    assert verify_store(open_store(store)).right


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(base: Path, workers: int) -> None:
    store = str(base / f"store-{workers}")
    done = run(base, store, "--workers", str(workers))
    assert done.returncode == 0, done.stderr
    quiet = preprocess_here(config_for(base, store=str(base / f"quiet-{workers}")))
    last = done.stdout.splitlines()[-1]
    assert last == f"manifest: {Path(store).as_uri()}/manifest.json digest: {quiet.digest}"
    assert not list((base / "spool").glob(f"lmbatch-{os.getuid()}-*/*/task-*"))
