"""A process that stands still is named with its stack, and ends."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from lmbatch.train.watchdog import Hanging, Watchdog, read_hanging, verdict

CHILD = """
import ctypes, sys, time
from pathlib import Path
from lmbatch.train import watchdog
watchdog._OTHERS_SECONDS = 0.1
watchdog._LAST_RESORT_SECONDS = 0.5

def forward():
    {hang}

with watchdog.Watchdog(0.5, Path(sys.argv[1]), 3) as dog:
    dog.beat("step 7")
    forward()
"""


def run_child(tmp_path: Path, hang: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CHILD.format(hang=hang), str(tmp_path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_process_that_hangs_ends_with_75_and_leaves_its_stack(tmp_path: Path) -> None:
    done = run_child(tmp_path, "time.sleep(1000)")
    assert done.returncode == 75
    assert "rank 3 on" in done.stderr
    assert "in forward" in done.stderr
    (found,) = read_hanging(tmp_path)
    assert (found.rank, found.beat, found.waits) == (3, "step 7", False)
    assert "time.sleep(1000)" in found.stack or "in forward" in found.stack


def test_a_process_whose_threads_stand_still_ends_as_well(tmp_path: Path) -> None:
    """A call that keeps the interpreter's lock: no thread of Python can do anything about it."""
    done = run_child(tmp_path, "time.sleep(0.3); ctypes.PyDLL(None).sleep(1000)")
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert "in forward" in done.stderr


def test_beats_keep_it_quiet_and_what_an_earlier_attempt_left_is_removed(tmp_path: Path) -> None:
    called = threading.Event()
    (tmp_path / "rank-0.json").write_text("{}", encoding="utf-8")
    with Watchdog(0.5, tmp_path, 0, on_hang=called.set) as dog:
        for _ in range(12):
            dog.beat("step")
            assert not called.wait(0.1)
    assert not list(tmp_path.iterdir())


def test_switched_off_it_never_calls(tmp_path: Path) -> None:
    called = threading.Event()
    with Watchdog(0, tmp_path, 0, on_hang=called.set):
        assert not called.wait(0.3)


def hanging(rank: int, *, waits: bool) -> Hanging:
    return Hanging(rank, f"n{rank}", 1, "step 9", 5.0, waits, "")


def test_the_one_that_does_not_wait_for_others_is_to_blame() -> None:
    found = [hanging(0, waits=True), hanging(1, waits=False), hanging(2, waits=True)]
    assert verdict(found) == "rank 1 on n1 (pid 1, in `step 9`) hung; the others waited for it"
    assert "all 2 processes that tell wait" in verdict([hanging(0, waits=True), hanging(2, waits=True)])
