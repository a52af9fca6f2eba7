"""How far a run of the driver is: sums of receipts, heartbeats of the workers, rates, time left."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Container, Iterable
from dataclasses import dataclass

from lmbatch.errors import LmbatchError
from lmbatch.preprocess import (
    Observer,
    Pace,
    Tally,
    TaskAtWork,
    add_counts,
    read_heartbeats,
    remove_heartbeats,
    slowest,
    sort_out,
)
from lmbatch.store import Store

log = logging.getLogger(__name__)

_SLOWEST = 3
_SHARE_OF_TIME = 0.1  # of the driver's, at most, for looking at heartbeats


@dataclass(frozen=True)
class Progress:
    """How far one stage of a run is.

    ``tasks_done`` and ``bytes_done`` (of input) are counted by receipts; ``bytes_at_work``, and what the tasks at work
    add to ``documents``, ``tokens`` and the counts by reason, by heartbeats. Rates are recent ones of this run.
    """

    tasks_done: int
    tasks: int
    bytes_done: int
    bytes: int
    documents: int
    tokens: int
    running: int
    bytes_at_work: int
    dropped: dict[str, int]
    quarantined: dict[str, int]
    bytes_per_second: float | None
    documents_per_second: float | None
    tokens_per_second: float | None
    seconds_left: float | None
    workers: int
    slowest: tuple[TaskAtWork, ...]
    stage: str = "tokenize"


class Watch:
    """The driver's eye on heartbeats. It decides nothing, and no trouble with it is the run's."""

    def __init__(self, store: Store, every: float, clock: Callable[[], float] = time.monotonic) -> None:
        """``every``: seconds between looks; 0: it never looks."""
        self._store, self._every, self._clock = store, every, clock
        self._observer, self._pace = Observer(clock), Pace(clock=clock)
        self._next_look = clock()
        self._told: set[str] = set()
        self.at_work: list[TaskAtWork] = []

    def begin(self, running: Collection[str]) -> None:
        """Take away what workers of an earlier run have left; ``running`` are tasks that some are still at."""
        if self._every:
            try:
                left = [item.beat for item in read_heartbeats(self._store)]
            except (LmbatchError, OSError):
                return
            remove_heartbeats(self._store, [beat.worker for beat in left if beat.task not in running])

    def look(self, finished: Collection[str]) -> bool:
        """Read the heartbeats, if it is time to; True if that was done."""
        now = self._clock()
        if not self._every or now < self._next_look:
            return False
        try:
            seen = self._observer.note(read_heartbeats(self._store))
        except (LmbatchError, OSError) as error:
            log.debug("the heartbeats cannot be read: %s", error)
            return False
        finally:
            done = self._clock()
            self._next_look = done + max(self._every, (done - now) / _SHARE_OF_TIME)
        self.at_work, dead = sort_out(seen, finished)
        remove_heartbeats(self._store, dead)
        self._tell_of_silence()
        return True

    def ended(self, tasks: Collection[str]) -> None:
        """The process that had these tasks is gone: its heartbeat, if it is known, says nothing any more."""
        gone = [item.beat.worker for item in self.at_work if item.beat.task in tasks]
        self.at_work = [item for item in self.at_work if item.beat.worker not in gone]
        if gone:
            remove_heartbeats(self._store, gone)

    def progress(self, tally: Tally, finished: Container[str], tasks: int, size: int, running: int) -> Progress:
        """``tally`` of the ``finished`` tasks; ``tasks`` and ``size`` (bytes) in all; ``running`` batches."""
        self.at_work = [item for item in self.at_work if item.beat.task not in finished]
        beats = [item.beat for item in self.at_work]
        partial = sum(beat.bytes_done for beat in beats)
        documents = tally.documents_out + sum(beat.documents for beat in beats)
        tokens = tally.tokens + sum(beat.tokens for beat in beats)
        rates = self._pace.note(tally.input_bytes + partial, documents, tokens) or (None, None, None)
        left = max(0, size - tally.input_bytes - partial)
        return Progress(
            tasks_done=tally.tasks,
            tasks=tasks,
            bytes_done=tally.input_bytes,
            bytes=size,
            documents=documents,
            tokens=tokens,
            running=running,
            bytes_at_work=partial,
            dropped=_with(tally.dropped, (beat.dropped for beat in beats)),
            quarantined=_with(tally.quarantined, (beat.quarantined for beat in beats)),
            bytes_per_second=rates[0],
            documents_per_second=rates[1],
            tokens_per_second=rates[2],
            seconds_left=left / rates[0] if rates[0] else None,
            workers=sum(not item.silent for item in self.at_work),
            slowest=slowest(self.at_work, _SLOWEST),
        )

    def _tell_of_silence(self) -> None:
        for item in self.at_work:
            beat = item.beat
            if item.silent and beat.worker not in self._told:
                self._told.add(beat.worker)
                job = f", Slurm job {beat.job}" if beat.job else ""
                log.warning(
                    "worker %s has given no sign for %.0f s (%s of %s%s); if it has died, its task is tried again",
                    beat.worker,
                    item.quiet_seconds,
                    beat.task,
                    beat.file or "its input",
                    job,
                )


def _with(counts: dict[str, int], more: Iterable[dict[str, int]]) -> dict[str, int]:
    total = dict(counts)
    for some in more:
        add_counts(total, some)
    return dict(sorted(total.items()))
