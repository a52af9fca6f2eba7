"""The lock of a run folder: one holder, named to the others, freed by the kernel."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmbatch.checkpoint.lock import RunLock, read_holder
from lmbatch.errors import CheckpointError, RunBusyError

HOLD = (
    "import os, sys; from pathlib import Path; from lmbatch.checkpoint.lock import RunLock\n"
    "lock = RunLock(Path(sys.argv[1])); lock.acquire()\n"
    "child = os.fork() if len(sys.argv) > 2 else 1\n"
    "if child: print(child, flush=True)\n"
    "sys.stdin.read()\n"
)


@pytest.fixture
def holder(run_dir: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(run_dir)], stdin=-1, stdout=-1, text=True) as child:
        child.stdout.readline()
        yield child
        child.kill()


def test_a_second_taker_is_told_who_holds_it(run_dir, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    with RunLock(run_dir):
        with pytest.raises(RunBusyError, match=rf"process {os.getpid()} on .*job 4711, since \d\d\d\d-") as caught:
            RunLock(run_dir).acquire()
        assert str(run_dir) in caught.value.message
        assert caught.value.remedy
    with RunLock(run_dir):
        assert read_holder(run_dir)["pid"] == os.getpid()


def test_another_process_is_kept_out(run_dir, holder):
    with pytest.raises(RunBusyError, match=f"process {holder.pid} "):
        RunLock(run_dir).acquire()


def test_the_kernel_frees_it_when_the_holder_is_killed(run_dir, holder):
    holder.kill()
    holder.wait()
    RunLock(run_dir).acquire()


def test_waiting_takes_it_over_from_a_holder_that_ends(run_dir, holder):
    threading.Thread(target=holder.kill).start()
    with RunLock(run_dir, wait_seconds=60):
        assert read_holder(run_dir)["pid"] == os.getpid()


def test_waiting_ends_with_the_same_error(run_dir, holder):
    with pytest.raises(RunBusyError, match=f"process {holder.pid} "):
        RunLock(run_dir, wait_seconds=0.3).acquire()


def test_a_forked_child_that_outlives_the_holder_does_not_hold_it(run_dir):
    command = [sys.executable, "-c", HOLD, str(run_dir), "fork"]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as child:
        grandchild = int(child.stdout.readline())
        child.kill()
        child.wait()
        try:
            RunLock(run_dir, wait_seconds=10).acquire()  # the grandchild may not have begun to run yet
        finally:
            os.kill(grandchild, signal.SIGKILL)


def test_a_file_system_without_locks_is_an_error(run_dir, monkeypatch):
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(CheckpointError, match="cannot lock"):
        RunLock(run_dir).acquire()


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"pid": '])
def test_an_unreadable_lock_file_still_locks(run_dir, content):
    with RunLock(run_dir):
        (run_dir / "lock").write_bytes(content)
        with pytest.raises(RunBusyError, match=r"process \? on \?"):
            RunLock(run_dir).acquire()


def test_release_may_be_called_twice(run_dir):
    lock = RunLock(run_dir)
    lock.acquire()
    lock.release()
    lock.release()
