"""The stop flag, and the death of a launcher as a stop request."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from lmbatch.errors import StopRequested
from lmbatch.train.parent import NO_LAUNCHER, follow_launcher, is_accelerate_launcher
from lmbatch.train.stop import SIGNALS, STOP_FILE, StopFlag


@pytest.fixture
def handlers():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_sets_the_flag_and_the_first_one_stays(handlers, number):
    stop = StopFlag().install()
    assert stop.reason is None
    stop.check()
    signal.raise_signal(number)
    signal.raise_signal(signal.SIGUSR2)
    assert stop.reason == number.name
    with pytest.raises(StopRequested, match=number.name):
        stop.check()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_comes_at_the_very_end_does_not_change_the_exit_code(number):
    # An interpreter that shuts down puts the handlers back before it takes modules apart.
    code = (
        "import os, sys\nfrom lmbatch.train.stop import StopFlag, leave\n"
        f"class Late:\n    def __del__(self, kill=os.kill, own=os.getpid()): kill(own, {int(number)})\n"
        "late = Late()\nStopFlag().install()\nprint('said', end='')\nleave(75)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (75, "said")


def test_a_file_is_the_second_channel_and_is_removed_when_honoured(tmp_path):
    stop = StopFlag()
    stop.watch(tmp_path / "stop")
    assert stop.reason is None
    (tmp_path / "stop").touch()
    assert stop.reason == STOP_FILE
    stop.honoured()
    assert not (tmp_path / "stop").exists()
    stop.honoured()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["/v/bin/python", "/v/bin/accelerate", "launch", "-m", "lmbatch.train"], True),
        (["/v/bin/python3.11", "-u", "/v/bin/accelerate-launch", "-m", "x"], True),
        (["python", "-m", "accelerate.commands.launch", "-m", "x"], True),
        (["python", "-m", "accelerate.commands.accelerate_cli", "launch", "x"], True),
        (["python", "-m", "torch.distributed.run", "-m", "x"], False),
        (["bash", "-c", "accelerate launch -m x"], False),
        (["python", "/v/bin/accelerate", "test"], False),
        ([], False),
    ],
)
def test_the_launcher_is_recognised(command, expected):
    assert is_accelerate_launcher(command) is expected


def test_another_parent_changes_nothing():
    stop = StopFlag()
    follow_launcher(stop, {"ACCELERATE_MIXED_PRECISION": "no"})
    assert stop.reason is None


@pytest.mark.parametrize(
    ("environ", "expected"),
    [({"ACCELERATE_MIXED_PRECISION": "no"}, "death of the launcher"), ({}, None),
     ({"ACCELERATE_MIXED_PRECISION": "no", NO_LAUNCHER: "1"}, None)],
)  # fmt: skip
def test_a_launcher_that_is_gone_already_is_noticed(monkeypatch, environ, expected):
    monkeypatch.setattr(os, "getppid", lambda: 1)
    stop = StopFlag()
    follow_launcher(stop, environ)
    assert stop.reason == expected


_CHILD = """
import sys, time
from lmbatch.train.parent import follow_launcher
from lmbatch.train.stop import StopFlag
stop = StopFlag().install()
follow_launcher(stop, {})
print("ready", flush=True)
end = time.monotonic() + 20
while stop.reason is None and time.monotonic() < end:
    time.sleep(0.01)
print(stop.reason, flush=True)
"""


def test_the_death_of_the_launcher_is_a_sigterm(tmp_path):
    """A stand-in that is called like accelerate's launcher starts a child and is killed without notice."""
    stand_in = tmp_path / "accelerate"
    stand_in.write_text(f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {_CHILD!r}])\n")
    launcher = subprocess.Popen([sys.executable, str(stand_in), "launch"], stdout=subprocess.PIPE, text=True)
    assert launcher.stdout.readline() == "ready\n"
    launcher.kill()
    assert launcher.stdout.readline() == "SIGTERM\n"
    launcher.stdout.close()
    launcher.wait()
