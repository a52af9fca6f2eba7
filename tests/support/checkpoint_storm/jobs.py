"""Two jobs on one run folder."""

from __future__ import annotations

import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from support.checkpoint_storm.child import Strike
from support.checkpoint_storm.judge import check_reason
from support.checkpoint_storm.run import STEPS, BadOutcomeError, Ended, Run

LONGEST = 60.0  # seconds


def second_job(run: Run) -> None:
    """While one waits in the middle of a step, another is started: it is refused, and told who is there."""
    first, held = _held(run)
    _refused(run.attempt(), held)
    _let_go(first)
    ended = run.wait(first)
    if ended.code != 0:
        raise BadOutcomeError("UNCLEAR", f"the first job suffered from the second: {ended.said[-1000:]}")


def second_job_after_a_kill(run: Run) -> None:
    """The first is killed while it holds the run: the next may go on at once."""
    first, held = _held(run)
    _refused(run.attempt(), held)
    first[0].kill()
    run.wait(first)


def two_jobs(run: Run) -> None:
    """Both at once: one trains, and the other is refused or comes after it."""
    started = [run.start(), run.start()]
    codes = sorted(run.wait(one).code for one in started)
    if codes not in ([0, 0], [0, 1]):
        raise BadOutcomeError("UNCLEAR", f"exit codes {codes}: {[ended.said[-600:] for ended in run.ended]}")


def _held(run: Run) -> tuple[tuple[ForkServerProcess, Path], int]:
    first = run.start(Strike("step", run.lot.randint(1, STEPS), "hold"))
    process, log = first
    deadline = time.monotonic() + LONGEST
    while not (log.parent / "held").exists():
        assert process.is_alive(), log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.005)
    assert process.pid is not None
    return first, process.pid


def _let_go(first: tuple[ForkServerProcess, Path]) -> None:
    (first[1].parent / "go").touch()


def _refused(ended: Ended, holder: int) -> None:
    if ended.code == 0:
        raise BadOutcomeError("NOT REFUSED", "a second job trained into the same run folder")
    check_reason(ended, f"process {holder} on ")
