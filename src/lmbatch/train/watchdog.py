"""A process that hangs is named, with its stack, and the attempt ends.

One process that stands still makes all others wait in a collective for ever, and Slurm sees nothing but work. So every
process watches its own beats. When none has come for ``seconds``, each writes its stack into ``RUN/hang/``, waits a
moment for the others, and says which of them does not wait for others: that is the one to look at. Then it ends with
exit code 75, as after a stop, but without saving: the state of a process that hangs cannot be trusted. The job is
requeued and goes on from the last checkpoint; `run.max_idle_attempts` keeps that from going on for ever.

A second timer of the interpreter itself (faulthandler, in C) ends a process whose threads cannot run any more.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType, TracebackType

from lmbatch.errors import EXIT_REQUEUE

log = logging.getLogger(__name__)

_OTHERS_SECONDS = 2.0  # for the others to write their part: their watchdogs run out at about the same time
_LAST_RESORT_SECONDS = 60.0
# Files of torch in which a process waits for the others; backward() holds the reductions of data parallelism.
_WAITING = ("torch/distributed/", "torch/autograd/graph.py", "torch/_C/_distributed")


@dataclass(frozen=True, slots=True)
class Hanging:
    """One process when its watchdog ran out. ``waits``: is it in a collective, as whoever waits for others is?"""

    rank: int
    host: str
    pid: int
    beat: str
    seconds: float
    waits: bool
    stack: str


class Watchdog:
    """Beats come from the loop; without one for ``seconds`` (0: never) ``on_hang`` is called in a thread of its own."""

    def __init__(
        self, seconds: float, folder: Path, rank: int, *, on_hang: Callable[[], None] = lambda: os._exit(EXIT_REQUEUE)
    ) -> None:
        self._seconds, self._folder, self._rank, self._on_hang = seconds, folder, rank, on_hang
        self._last = (time.monotonic(), "start")
        self._closed = threading.Event()
        self._main = threading.main_thread().ident
        self._thread = threading.Thread(target=self._watch, name="lmbatch-watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        if self._seconds:
            for old in self._folder.glob(f"rank-{self._rank}.json"):  # of an earlier attempt
                old.unlink()
            self.beat("start")
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        if self._seconds:
            faulthandler.cancel_dump_traceback_later()
            self._thread.join()

    def beat(self, what: str) -> None:
        """Something was done; ``what`` begins now."""
        self._last = (time.monotonic(), what)

    def _watch(self) -> None:
        pause = min(1.0, self._seconds / 10)
        while not self._closed.wait(pause):
            # Each round puts the last resort off; only a process whose threads stand still lets it run out.
            faulthandler.dump_traceback_later(self._seconds + _LAST_RESORT_SECONDS, exit=True)
            at, what = self._last
            if time.monotonic() - at > self._seconds:
                self._tell(time.monotonic() - at, what)
                self._on_hang()
                return

    def _tell(self, seconds: float, what: str) -> None:
        frame = sys._current_frames().get(self._main or 0)
        own = Hanging(self._rank, socket.gethostname(), os.getpid(), what, seconds, waits(frame), stack_of(frame))
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / f"rank-{self._rank}.json").write_text(json.dumps(asdict(own), indent=1), encoding="utf-8")
        log.error(
            "rank %d on %s hangs: %.0f s without a step, in `%s`:\n%s", own.rank, own.host, seconds, what, own.stack
        )
        self._closed.wait(_OTHERS_SECONDS)
        log.error("%s", verdict(read_hanging(self._folder)))
        logging.shutdown()


def read_hanging(folder: Path) -> list[Hanging]:
    """What the processes of the last attempt that hung have written, by rank."""
    found = []
    for path in folder.glob("rank-*.json"):
        try:
            found.append(Hanging(**json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError):  # another process is writing it
            continue
    return sorted(found, key=lambda one: one.rank)


def verdict(found: Iterable[Hanging]) -> str:
    """Who is to blame: those that do not wait for others; without any such, nobody can be told apart."""
    found = list(found)
    guilty = [f"rank {one.rank} on {one.host} (pid {one.pid}, in `{one.beat}`)" for one in found if not one.waits]
    if not guilty:
        return f"all {len(found)} processes that tell wait for others: a process without a word, or the network, hangs"
    return f"{', '.join(guilty)} hung; the others waited for it"


def stack_of(frame: FrameType | None) -> str:
    """A stack as text, innermost call last."""
    return "".join(traceback.format_stack(frame)) if frame is not None else "(the main thread has ended)"


def waits(frame: FrameType | None) -> bool:
    """Is the innermost of these calls one that waits for other processes?"""
    return frame is not None and any(part in frame.f_code.co_filename for part in _WAITING)
