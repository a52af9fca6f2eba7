"""The one thread that the model belongs to: it lets jobs in, takes step after step, and hands out the pieces.

::

    waiting line ──take──▶ batch of rows ──step──▶ one token a row ──▶ pieces, replies
          ▲     (as places get free)                     │
          └────────── next turn ◀── ended, left, too late┘

A job with beams goes through TextGenerator instead, one such at a time, and the batch takes a turn between any two
steps of the beams, so nobody waits for them to end.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

from lmbatch.errors import GenerationError, QueueFullError
from lmbatch.infer.batching.decode import DecodingBatch
from lmbatch.infer.batching.job import Job
from lmbatch.infer.batching.line import WaitingLine
from lmbatch.infer.batching.requests import QueueLimits
from lmbatch.infer.batching.stats import QueueStats
from lmbatch.infer.generate import TextGenerator
from lmbatch.infer.sampling import evaluating

log = logging.getLogger(__name__)

_PREFILL_TOKENS = 8192  # prompts that are read in one pass, padding included; bounds the memory of their attention


class Worker(threading.Thread):
    """Runs until the line is stopped; then every job that is left gets an error for an answer."""

    def __init__(self, generator: TextGenerator, line: WaitingLine, limits: QueueLimits, stats: QueueStats) -> None:
        super().__init__(name="lmbatch-generation", daemon=True)
        self._generator = generator
        self._line = line
        self._limits = limits
        self._stats = stats
        self._batch = DecodingBatch(generator.model, padding_id=generator.eod_id, never=generator.never)
        self._running: list[Job] = []  # with rows in the batch
        self._alone: Job | None = None  # with beams

    @property
    def jobs(self) -> list[Job]:
        """Those that are worked on."""
        return [*self._running, *([self._alone] if self._alone is not None else [])]

    @property
    def rows(self) -> int:
        """Texts that grow side by side at this moment."""
        return len(self._batch.rows)

    def run(self) -> None:
        """The thread's life."""
        try:
            with evaluating(self._generator.model):
                while self._has_work():
                    self._turn()
                    self._work_alone()
        finally:
            self._line.stop()
            left = [*self.jobs, *self._line.drop(all_of_them=True)]
            self._fail(left, _stopped())
            self._running = []

    def _has_work(self) -> bool:
        if self._running:
            return not self._line.stops
        return self._line.wait(gather_seconds=self._limits.gather_seconds, enough=self._limits.rows)

    def _turn(self) -> None:
        """All that is due between two tokens, and one more token for every row."""
        try:
            self._let_go()
            self._join(self._line.take(rows=self._limits.rows - self.rows, tokens=_PREFILL_TOKENS))
            self._let_go()  # a text may end with its first token
            self._step()
        except Exception as error:  # of the model or the device: the texts under way are lost, the service is not
            log.exception("%d texts were lost", self.rows)
            self._fail(self._running, error)
            self._running = []
            self._batch.clear()

    def _let_go(self) -> None:
        """Make room: rows that have ended, and jobs that are done or that nobody waits for any more."""
        gone = [job for job in self._running if job.gone]
        self._running = [job for job in self._running if job not in gone]
        self._stats.count([*self._line.drop(), *gone])
        growing = {id(row) for job in self._running for row in job.rows}
        self._batch.keep([number for number, row in enumerate(self._batch.rows) if id(row) in growing])

    def _join(self, jobs: list[Job]) -> None:
        if not jobs:
            return
        self._running += jobs
        self._batch.join([job.rows for job in jobs])
        for job in jobs:
            self._stats.read(len(job.window.ids), job.request.samples)
            job.advance()

    def _step(self) -> None:
        if not self._batch.rows:
            return
        self._batch.step()
        self._stats.stepped(self.rows)
        for job in self._running:
            job.advance()

    def _work_alone(self) -> None:
        self._alone = self._line.take_alone()
        if self._alone is None:
            return
        try:
            self._complete(self._alone)
        except Exception as error:
            log.exception("a text was lost")
            self._fail([self._alone], error)
        else:
            self._stats.count([self._alone])
        self._alone = None

    def _complete(self, job: Job) -> None:
        request = job.request

        def stop_when() -> bool:
            self._turn()
            return self._line.stops or job.gone

        prompts = [request.prompt] * request.samples
        completions = self._generator.complete(prompts, request.settings, stop_when=stop_when)
        self._stats.read(len(job.window.ids), sum(completion.tokens for completion in completions))
        if self._line.stops and not job.gone:
            raise _stopped()
        if not job.gone:
            job.end(completions)

    def _fail(self, jobs: Iterable[Job], error: Exception) -> None:
        """Jobs that have their answer already, or want none, are only counted."""
        own = error if isinstance(error, GenerationError) else GenerationError(f"the model failed: {error}")
        for job in jobs:
            if not job.gone:
                job.fail(own)
        self._stats.count(jobs)


def _stopped() -> QueueFullError:
    return QueueFullError("the service stopped before the text was ready", closing=True)
