"""What heartbeats tell an onlooker: who is at what, who has fallen silent, and how fast it all goes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass

from lmbatch.preprocess.heartbeat import Heartbeat, StoredHeartbeat, has_died

SILENT_BEATS = 6.0  # so many must be missing: a store that is slow or a long document makes one late
_LEAST_SILENCE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class TaskAtWork:
    """A task that a worker is at. ``quiet_seconds``: for how long its heartbeat has not been seen to change."""

    beat: Heartbeat
    quiet_seconds: float

    @property
    def silent(self) -> bool:
        """True if several heartbeats are missing."""
        return self.quiet_seconds > max(_LEAST_SILENCE_SECONDS, SILENT_BEATS * self.beat.every)

    @property
    def share(self) -> float:
        """Of its input that is read, from 0 to 1."""
        return min(1.0, self.beat.bytes_done / self.beat.bytes) if self.beat.bytes else 0.0


@dataclass(frozen=True, slots=True)
class _Noted:
    beat: int
    since: float


class Observer:
    """Looks at heartbeats again and again, and knows by its own clock since when each has not changed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._noted: dict[str, _Noted] = {}

    def note(self, stored: Iterable[StoredHeartbeat]) -> list[TaskAtWork]:
        """What is in the store now. A worker that is seen for the first time has just been heard of."""
        now, fresh = self._clock(), {}
        for item in stored:
            worker, beat = item.beat.worker, item.beat.beat
            before = self._noted.get(worker)
            fresh[worker] = before if before and before.beat == beat else _Noted(beat, now)
        self._noted = fresh
        return [TaskAtWork(item.beat, now - fresh[item.beat.worker].since) for item in stored]


def sort_out(seen: Sequence[TaskAtWork], finished: Container[str]) -> tuple[list[TaskAtWork], list[str]]:
    """Those that tell of a task at work, one for each task; and the workers that are certainly none any more.

    Of two at one task the one that was heard of last counts, or the later one in ``seen``: the other has been killed,
    most likely.
    """
    dead = [item.beat.worker for item in seen if has_died(item.beat)]
    living = [item for item in seen if item.beat.worker not in dead]
    at_work: dict[str, TaskAtWork] = {}
    for item in sorted(living, key=lambda item: -item.quiet_seconds):
        if item.beat.task not in finished:
            at_work[item.beat.task] = item
    chosen = {item.beat.worker for item in at_work.values()}
    dead += [item.beat.worker for item in living if item.silent and item.beat.worker not in chosen]
    return list(at_work.values()), dead


def slowest(at_work: Iterable[TaskAtWork], number: int) -> tuple[TaskAtWork, ...]:
    """Those that have been at their task for the longest time, the worst first."""
    return tuple(sorted(at_work, key=lambda item: (-item.beat.seconds, item.beat.task))[:number])


class Pace:
    """Rates of counts that grow, over the last ``window`` seconds of the looker's clock."""

    def __init__(self, window: float = 120.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._window, self._clock = window, clock
        self._samples: deque[tuple[float, tuple[float, ...]]] = deque()
        self._first: tuple[float, tuple[float, ...]] | None = None

    def note(self, *counts: float) -> tuple[float, ...] | None:
        """The counts are these now; their rates per second, or None in the first moments.

        If nothing has come in the window (long tasks, no heartbeats), the rates are those since the beginning.
        """
        now = self._clock()
        self._samples.append((now, counts))
        self._first = self._first or self._samples[0]
        while len(self._samples) > 2 and now - self._samples[1][0] >= self._window:
            self._samples.popleft()
        recent = _rates(self._samples[0], self._samples[-1])
        return recent if recent and any(recent) else _rates(self._first, self._samples[-1])


def _rates(old: tuple[float, tuple[float, ...]], new: tuple[float, tuple[float, ...]]) -> tuple[float, ...] | None:
    seconds = new[0] - old[0]
    if seconds < 0.5:
        return None
    return tuple(max(0.0, after - before) / seconds for before, after in zip(old[1], new[1], strict=True))
