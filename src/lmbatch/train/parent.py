"""Outliving the launcher: `accelerate launch` passes no signal on, so its death has to be noticed."""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from lmbatch.train.stop import StopFlag

# Set by `lmbatch.train.launcher`, which replaces itself by the training process: there is no launcher to outlive.
NO_LAUNCHER = "LMBATCH_NO_LAUNCHER"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_INIT = 1


def is_accelerate_launcher(command: Sequence[str]) -> bool:
    """Is this the command line of accelerate's launcher, in any of the ways to start it?"""
    words = [word.rsplit("/", 1)[-1] for word in command[:4]]
    if "accelerate-launch" in words or "accelerate.commands.launch" in words:
        return True
    names = ("accelerate", "accelerate.commands.accelerate_cli")
    return any(name in names and after == "launch" for name, after in itertools.pairwise(words))


def command_of(pid: int) -> list[str]:
    """The command line of a process; empty where it is gone or /proc is not there."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [part.decode(errors="replace") for part in raw.split(b"\0") if part]


def follow_launcher(stop: StopFlag, environ: Mapping[str, str] | None = None) -> None:
    """Make the death of accelerate's launcher an ordinary stop request.

    With another parent nothing happens. The kernel sends SIGTERM from now on; a launcher that died before is
    recognised by our having been handed to init although accelerate's environment is there.
    """
    environ = os.environ if environ is None else environ
    if not sys.platform.startswith("linux") or NO_LAUNCHER in environ:
        return
    parent = os.getppid()
    if is_accelerate_launcher(command_of(parent)):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        orphaned = os.getppid() != parent
    else:
        orphaned = parent == _INIT and "ACCELERATE_MIXED_PRECISION" in environ
    if orphaned:
        stop.request("death of the launcher")
