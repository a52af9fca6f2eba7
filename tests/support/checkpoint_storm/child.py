"""What runs in a forked process: one attempt at a training run, with strikes armed in it."""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HANGS_AFTER = 100  # seconds; an attempt takes less than one
_CHANGES = frozenset({"os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.truncate"})
OPERATIONS = "operations"  # the file that says how many there were


@dataclass(frozen=True)
class Strike:
    """``deed`` is done at the ``count``-th time that the attempt comes by: a stage of a save (``what`` is its name),
    the end of a step, or an operation that changes a file of the run.

    Deeds: the name of a signal, which the process sends itself; ``stop file``; ``hold``: wait for the file `go`.
    """

    where: str
    count: int = 1
    deed: str = "SIGKILL"
    what: str = ""


@dataclass(frozen=True)
class Attempt:
    """All that a child has to know. ``largest_file`` in bytes."""

    config: Path
    run_dir: Path
    log: Path
    strikes: tuple[Strike, ...] = ()
    environ: dict[str, str] = field(default_factory=dict)
    largest_file: int | None = None


def attempt(order: Attempt) -> None:
    """Train; never returns."""
    log = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(order.environ)
    faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)
    if order.largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order.largest_file, order.largest_file))
    import torch

    from lmbatch.train.__main__ import main
    from lmbatch.train.stop import StopFlag

    torch.set_num_threads(1)
    _wait_less()
    operations = _arm(order)
    code = main(["--config", str(order.config)], stop=StopFlag().install())
    (order.log.parent / OPERATIONS).write_text(str(operations.seen))
    sys.stderr.flush()
    os._exit(code)


def _wait_less() -> None:
    """The same retries and the same wait for a lock, in a hundredth of the time."""
    from lmbatch.store import location
    from lmbatch.store.retry import Backoff
    from lmbatch.train import session

    location._backoff = lambda _: Backoff(base=0.01, cap=0.2)
    session.LOCK_WAIT_SECONDS = 0.2


class _Counter:
    """Does a strike's deed when its time has come."""

    def __init__(self, order: Attempt, strikes: list[Strike]) -> None:
        self._order, self._strikes, self.seen = order, strikes, 0

    def came_by(self) -> None:
        self.seen += 1
        for strike in self._strikes:
            if strike.count == self.seen:
                _do(strike.deed, self._order)


def _do(deed: str, order: Attempt) -> None:
    if deed == "stop file":
        (order.run_dir / "stop").touch()
    elif deed == "hold":
        _hold(order.log.parent)
    else:
        os.kill(os.getpid(), signal.Signals[deed])


def _hold(folder: Path) -> None:
    (folder / "held").touch()
    while not (folder / "go").exists():
        time.sleep(0.005)


def _arm(order: Attempt) -> _Counter:
    """Gives the counter of the operations on files."""
    steps = _Counter(order, [strike for strike in order.strikes if strike.where == "step"])
    operations = _Counter(order, [strike for strike in order.strikes if strike.where == "operation"])
    _watch_stages(order)
    _watch_steps(steps.came_by)
    _watch_files(str(order.run_dir), operations.came_by)
    return operations


def _watch_stages(order: Attempt) -> None:
    from lmbatch.checkpoint import stages

    counters: dict[str, _Counter] = {}
    for strike in order.strikes:
        if strike.where == "stage":
            counters[strike.what] = _Counter(order, [s for s in order.strikes if s.what == strike.what])
    if counters:
        stages.on_stage = lambda stage: counters[stage.name].came_by() if stage.name in counters else None


def _watch_steps(came_by: Callable[[], None]) -> None:
    from lmbatch.train.recorder import Recorder

    original = Recorder.train

    def train(self: Recorder, row: dict[str, Any]) -> None:
        original(self, row)
        came_by()

    Recorder.train = train  # type: ignore[method-assign]


def _watch_files(folder: str, came_by: Callable[[], None]) -> None:
    """Files opened for writing, renamed, linked, removed; an audit hook is told before it happens (PEP 578)."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            name, _, flags = arguments
            if not (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event in _CHANGES:
            name = arguments[0]
        else:
            return
        if isinstance(name, (str, os.PathLike)) and os.fspath(name).startswith(folder):
            came_by()

    sys.addaudithook(hook)
