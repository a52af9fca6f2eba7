"""Where jobs wait for the worker: first come, first served, and never more than a limit."""

from __future__ import annotations

import threading
from collections import deque

from lmbatch.errors import QueueFullError
from lmbatch.infer.batching.job import Job


class WaitingLine:
    """A bounded line of jobs, for many threads that put and one that takes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._changed = threading.Condition()
        self._jobs: deque[Job] = deque()
        self.refuses = False  # no new jobs are taken
        self.stops = False  # those that wait are not taken either

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: Job) -> None:
        """Wait behind the others. Raises QueueFullError at once if there is no room, or the line is closed."""
        with self._changed:
            if self.refuses:
                raise QueueFullError("the service is stopping and takes no new requests", closing=True)
            if len(self._jobs) >= self._limit:
                raise QueueFullError(f"{len(self._jobs)} requests are waiting, which is as many as may wait")
            self._jobs.append(job)
            self._changed.notify_all()

    def refuse(self) -> None:
        """From now on nobody may join the line."""
        with self._changed:
            self.refuses = True

    def stop(self) -> None:
        """Nobody may join, and the worker is to go home."""
        with self._changed:
            self.refuses = self.stops = True
            self._changed.notify_all()

    def wait(self, *, gather_seconds: float, enough: int) -> bool:
        """Sleep until a job comes, and a moment longer for others to come with it. False: it is time to stop."""
        with self._changed:
            self._changed.wait_for(lambda: self.stops or self._jobs)
            self._changed.wait_for(lambda: self.stops or len(self._jobs) >= enough, timeout=gather_seconds)
            return not self.stops

    def take(self, *, rows: int, tokens: int) -> list[Job]:
        """The first jobs that fit into ``rows`` places; none overtakes another, but for those that run alone.

        ``tokens`` bounds the size of all their prompts together, padded to the longest; one is always taken.
        """
        chosen: list[Job] = []
        width = 0
        with self._changed:
            for job in [job for job in self._jobs if not job.alone]:
                width = max(width, len(job.window.ids))
                rows -= job.request.samples
                if rows < 0 or (chosen and width * (len(chosen) + 1) > tokens):
                    break
                chosen.append(job)
            self._jobs = deque(job for job in self._jobs if job not in chosen)
        return chosen

    def take_alone(self) -> Job | None:
        """The first job that has to run by itself."""
        with self._changed:
            found = next((job for job in self._jobs if job.alone), None)
            if found is not None:
                self._jobs.remove(found)
            return found

    def drop(self, *, all_of_them: bool = False) -> list[Job]:
        """Take out the jobs that nobody waits for any more, or all."""
        with self._changed:
            dropped = [job for job in self._jobs if all_of_them or job.gone]
            self._jobs = deque(job for job in self._jobs if job not in dropped)
        return dropped
