"""What a tracker can do, and the thread that keeps it from getting in training's way."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from lmbatch.errors import LmbatchError, missing_package

log = logging.getLogger(__name__)
_WAITING = 10_000  # figures that may wait: about an hour of a network that is gone, and a few megabytes


class Tracker(Protocol):
    """A service that draws curves. Any method may raise anything, and may take its time."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Named figures after ``step``: ``{"train/loss": 2.1, …}``."""

    def texts(self, texts: Mapping[str, str], step: int) -> None:
        """Sample texts by prompt."""

    def flush(self) -> None:
        """A checkpoint is about to be saved: nothing before it should be lost any more."""

    def close(self) -> None:
        """Hand over what is left, and end."""


class Courier:
    """Opens a tracker and hands it figures in a thread of its own; the first failure is the last."""

    def __init__(self, name: str, open_tracker: Callable[[], Tracker]) -> None:
        self._name, self._open = name, open_tracker
        self._queue: queue.Queue[Callable[[Tracker], None] | None] = queue.Queue(_WAITING)
        self._given_up, self._giving_up = threading.Event(), threading.Lock()
        # A daemon: a service that hangs must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name=f"tracker-{name}", daemon=True)
        self._thread.start()

    def send(self, deliver: Callable[[Tracker], None]) -> None:
        """Let the tracker have something when its turn comes. Never waits, never raises."""
        if self._given_up.is_set():
            return
        try:
            self._queue.put_nowait(deliver)
        except queue.Full:
            self._give_up(f"{_WAITING} figures wait for it")

    def finish(self) -> None:
        """There is nothing more to come."""
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            self._give_up(f"{_WAITING} figures wait for it")

    def join(self, deadline: float) -> None:
        """Wait until everything is delivered, or ``deadline`` (of ``time.monotonic()``) has passed."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self._give_up("it is not done in the time that the end of an attempt has for it (tracking.close_seconds)")

    def _run(self) -> None:
        tracker: Tracker | None = None
        try:
            tracker = self._open()
            while (deliver := self._queue.get()) is not None and not self._given_up.is_set():
                deliver(tracker)
        except (Exception, SystemExit) as error:  # whatever a service does, the run is not its business
            self._give_up(_words(error))
        self._close(tracker)

    def _close(self, tracker: Tracker | None) -> None:
        if tracker is None:
            return
        try:
            tracker.close()
        except (Exception, SystemExit) as error:
            self._give_up(_words(error))

    def _give_up(self, why: str) -> None:
        with self._giving_up:
            said = self._given_up.is_set()
            self._given_up.set()
        if not said:
            log.warning("%s gets no more figures in this attempt, training goes on: %s", self._name, why)


def _words(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        error = missing_package(error)
    if isinstance(error, LmbatchError):
        return f"{error.message}: {error.remedy}" if error.remedy else error.message
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
