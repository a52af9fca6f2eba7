"""Progress for people: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import functools
import logging
import sys
import time
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lmbatch.train.records import Record

log = logging.getLogger(__name__)


class Reporter(Protocol):
    """Shows the rows of finished steps."""

    def step(self, row: Record) -> None:
        """A step is done."""

    def close(self) -> None:
        """Nothing more follows."""


@functools.lru_cache(maxsize=1)
def terminal() -> Console:
    """The one console on standard error, shared with the log so that lines do not tear the bar."""
    return Console(stderr=True)


def reporter(done: int, total: int, every: int) -> Reporter:
    """A bar if standard error is a terminal, else a line every ``every`` steps."""
    return Bar(done, total) if sys.stderr.isatty() else Lines(done, total, every)


class Lines:
    """One log line every few steps: step/total, loss, learning rate, tokens per second, time left."""

    def __init__(self, done: int, total: int, every: int) -> None:
        self._first, self._total, self._every = done, total, every
        self._start = time.monotonic()

    def step(self, row: Record) -> None:
        """Log the row if its turn has come."""
        if row["step"] % self._every and row["step"] != self._total:
            return
        each = (time.monotonic() - self._start) / (row["step"] - self._first)
        left = duration(each * (self._total - row["step"]))
        log.info("step %d/%d  %s  %s left", row["step"], self._total, _figures(row), left)

    def close(self) -> None:
        """Nothing to do."""


class Bar:
    """A progress bar."""

    def __init__(self, done: int, total: int) -> None:
        columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[figures]}"))
        self._progress = Progress(*columns, TimeRemainingColumn(), console=terminal())
        self._task = self._progress.add_task("training", total=total, completed=done, figures="")
        self._progress.start()

    def step(self, row: Record) -> None:
        """Move on."""
        self._progress.update(self._task, completed=row["step"], figures=_figures(row))

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._progress.stop()


def _figures(row: Record) -> str:
    loss = "not finite" if row["loss"] is None else f"{row['loss']:.4f}"
    return f"loss {loss}  lr {row['lr']:.3g}  {row['tokens_per_second']:,.0f} tokens/s"


def duration(seconds: float) -> str:
    """``1:02:03``, or ``2:03`` under an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
