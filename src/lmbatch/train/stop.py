"""Stop requests: a flag that signals and a file can set, and that the loop asks at its own pace."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from lmbatch.errors import StopRequested

# USR2 and not USR1, which NCCL may use for itself.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
STOP_FILE = "stop file"


class StopFlag:
    """Remembers the first request to stop.

    A handler only sets the flag: it may run between any two bytecodes, in the middle of an optimizer step or of a
    save, where nothing else is safe. The second channel is a file that somebody creates in the run folder.
    """

    def __init__(self) -> None:
        self._reason: str | None = None
        self._file: Path | None = None

    def install(self, signals: tuple[signal.Signals, ...] = SIGNALS) -> StopFlag:
        """Handle ``signals`` (main thread only)."""
        for number in signals:
            signal.signal(number, self._on_signal)
        return self

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.request(signal.Signals(number).name)

    def request(self, reason: str) -> None:
        """Ask for a stop; the first reason stays."""
        if self._reason is None:
            self._reason = reason

    def watch(self, file: Path) -> None:
        """Take the existence of ``file`` as a request too."""
        self._file = file

    @property
    def reason(self) -> str | None:
        """The name of the signal, ``stop file``, or None while nobody has asked."""
        if self._reason is None and self._file is not None and self._file.exists():
            self.request(STOP_FILE)
        return self._reason

    def check(self) -> None:
        """Raise StopRequested if somebody has asked."""
        if (reason := self.reason) is not None:
            raise StopRequested(f"stopped by {reason}", remedy="run the same command again to go on")

    def honoured(self) -> None:
        """Remove the stop file, so that the next attempt is not stopped by it as well."""
        if self._file is not None:
            self._file.unlink(missing_ok=True)


def leave(code: int) -> NoReturn:
    """End this process, whose work is done and closed, without taking the interpreter apart.

    With torch that takes seconds, and puts the signal handlers back. srun sends SIGTERM to the rest of a step as soon
    as its first process has ended: a process that is still shutting down would turn "saved" into "killed".
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
