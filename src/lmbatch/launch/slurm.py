"""Array jobs on Slurm: submitit writes and submits them; what is done is for receipts to say, never for submitit."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from submitit.core.utils import FailedJobError, FailedSubmissionError

from lmbatch.config import ContainerSite, SlurmSite
from lmbatch.errors import SchedulerError
from lmbatch.launch.backend import BatchEnd, TaskBatch, TaskFailure
from lmbatch.launch.clock import REAL, Clock
from lmbatch.launch.deal import by_bytes
from lmbatch.launch.slurm_commands import Ending, QueueRow, SlurmCommands
from lmbatch.launch.slurm_memory import MemoryNeeds, is_out_of_memory
from lmbatch.launch.slurm_submit import (
    Submission,
    last_words,
    mend_pickle,
    minutes_for,
    new_folder,
    read_result,
    submit,
)
from lmbatch.preprocess import Unit

log = logging.getLogger(__name__)

_CANCEL_SECONDS = 15.0
_ACCOUNTING_SECONDS = 30.0  # how far accounting may lag behind the queue
_RETRY_SECONDS = 30.0
_AT_WORK = frozenset({"RUNNING", "COMPLETING"})
_USUAL_WAITS = frozenset({"None", "Priority", "Resources", "JobArrayTaskLimit", "BeginTime", "Cleaning"})
# What sbatch says when it may take the same job later; in all other cases asking again is of no use.
_COME_BACK = ("submitjoblimit", "submitjobsperuserlimit", "submit limit", "job violates accounting/qos policy",
              "temporarily unable", "timed out", "unable to contact", "connection refused", "resource temporarily",
              "zero bytes were transmitted")  # fmt: skip


@dataclass
class _Element:
    """One element of ours, as the last look at the queue showed it."""

    submission: Submission
    batch: TaskBatch
    state: str = "PENDING"
    gone_at: float | None = None


class SlurmBackend:
    """Submits batches as array jobs, at most ``site.max_parallel`` of them running, and watches the queue.

    Jobs are named after the run. A driver that is killed leaves them in the queue; the next one of the same run adopts
    them (`adopt`). `cancel` takes all of them out.
    """

    def __init__(
        self,
        folder: Path,
        site: SlurmSite,
        commands: SlurmCommands | None = None,
        container: ContainerSite | None = None,
        *,
        give: Callable[[SlurmSite, Submission, str], list[str]] = submit,
        clock: Clock = REAL,
    ) -> None:
        """``give`` hands a submission to sbatch."""
        self._folder, self._site, self._container = folder, site, container
        self._slurm, self._give, self._clock = commands or SlurmCommands(), give, clock
        limits = self._slurm.limits()
        self._array_limit = max(1, limits.array)
        self._queue_limit = min(site.max_submitted or limits.jobs, limits.jobs)
        self._name = ""
        self._elements: dict[str, _Element] = {}
        self._needs = MemoryNeeds(site)
        self._throttles: dict[str, int] = {}  # by array
        self._refused: Submission | None = None
        self._retry_at = 0.0
        self._next_look = 0.0
        self._told: set[str] = set()

    def adopt(self, run: str) -> None:
        """Name the jobs after ``run``, and take over those that an earlier driver has left."""
        self._name = f"lmbatch-{run}"
        self._take_over(self._slurm.queue(self._name))
        for array, throttle in self._throttles.items():
            self._throttle(array, throttle)
        if self._elements:
            log.info("found %d elements of this run in the queue (job name %s)", len(self._elements), self._name)

    def deal(self, tasks: Sequence[Unit]) -> list[tuple[Unit, ...]]:
        """One array: as large as the cluster allows, as soon as one more element may run."""
        room = min(self._array_limit, self._queue_limit - len(self._elements))
        if self._refused is not None or self._free() < 1 or room < 1 or not tasks:
            return []
        return by_bytes(self._needs.alike(tasks), self._site.batch_bytes, self._site.max_parallel)[:room]

    def submit(self, batches: Sequence[TaskBatch]) -> None:
        """Submit them as one array. Raises SchedulerError if Slurm will never take it."""
        throttle = max(1, min(self._free(), len(batches)))
        memory = self._needs.of(task for batch in batches for task in batch.tasks)
        self._try(Submission(new_folder(self._folder), tuple(batches), throttle, memory, self._container))

    def poll(self, receipts: Collection[str]) -> list[BatchEnd]:
        """Look at the queue, if it is time to: batches whose tasks all have receipts, or whose element is gone."""
        now = self._clock.monotonic()
        if now < self._next_look:
            return []
        self._next_look = now + self._site.poll_seconds
        try:
            rows = self._slurm.queue(self._name)
        except SchedulerError as error:
            log.warning("the queue cannot be read, trying again: %s", error.message)
            return []
        self._note(rows, now)
        ends = self._finished(receipts) + self._gone(now)
        self._raise_throttles()
        self._retry(rows, now)
        self._tell_why_nothing_runs(rows)
        return ends

    def running(self) -> list[TaskBatch]:
        """Batches that wait or run."""
        refused = self._refused.batches if self._refused else ()
        return [*(element.batch for element in self._elements.values()), *refused]

    def at_work(self) -> list[TaskBatch]:
        """Batches whose element was running at the last look, or has left the queue since."""
        return [item.batch for item in self._elements.values() if item.state in _AT_WORK or item.gone_at is not None]

    def cancel(self) -> None:
        """Cancel every job of this run, and wait a little for the queue to be empty of them. Raises nothing."""
        self._refused = None
        try:
            self._slurm.cancel(self._name)
            deadline = self._clock.monotonic() + _CANCEL_SECONDS
            while self._slurm.queue(self._name) and self._clock.monotonic() < deadline:
                self._clock.sleep(0.5)
        except SchedulerError as error:
            log.warning("jobs may be left (scancel --name=%s): %s", self._name, error.message)
        self._elements = {}

    # ── submitting ───────────────────────────────────────────────────────────────────────────────────────────────
    def _try(self, submission: Submission) -> None:
        try:
            ids = self._give(self._site, submission, self._name)
        except (FailedJobError, FailedSubmissionError) as error:
            reason = str(error).strip()
            if not any(text in reason.lower() for text in _COME_BACK):
                raise SchedulerError(
                    f"sbatch refused the job: {reason}",
                    remedy="correct the site file; `lmbatch config reference` explains every key",
                ) from None
            self._tell(f"sbatch does not take more now, trying again: {reason}")
            self._refused, self._retry_at = submission, self._clock.monotonic() + _RETRY_SECONDS
            return
        self._refused = None
        for element, batch in zip(ids, submission.batches, strict=True):
            self._elements[element] = _Element(submission, batch)
        self._throttles[_array_of(ids[0])] = submission.throttle

    def _retry(self, rows: Sequence[QueueRow], now: float) -> None:
        """A refusal may have been a lost answer: then the queue knows the submission's folder."""
        refused = self._refused
        if refused is None or now < self._retry_at:
            return
        if any(row.comment == str(refused.folder) for row in rows):
            self._refused = None
            self._take_over(rows)
        else:
            self._try(refused)

    def _take_over(self, rows: Sequence[QueueRow]) -> None:
        for row in rows:
            submission = Submission.load(Path(row.comment)) if row.id not in self._elements else None
            if submission is None or row.index >= len(submission.batches):
                continue
            submission = replace(submission, container=self._container)
            batch = submission.batches[row.index]
            self._elements[row.id] = _Element(submission, batch, row.state)
            self._throttles[row.array] = submission.throttle
            work = submission.work(batch, self._site.cpus)
            mend_pickle(submission, row.id, work, minutes_for(self._site, batch.input_bytes))

    # ── throttling: each array has a limit of its own; their sum keeps to the site's ────────────────────────────────
    def _free(self) -> int:
        living = self._living()
        return self._site.max_parallel - sum(min(self._throttles[array], count) for array, count in living.items())

    def _living(self) -> Counter[str]:
        return Counter(_array_of(element) for element in self._elements)

    def _raise_throttles(self) -> None:
        """What ended arrays have left free goes to those that can use it."""
        free = self._free()
        for array, count in self._living().items():
            more = min(free, count - self._throttles[array])
            if more > 0:
                free -= more
                self._throttles[array] += more
                self._throttle(array, self._throttles[array])

    def _throttle(self, array: str, elements: int) -> None:
        if self._living()[array] > 1:
            try:
                self._slurm.set_throttle(array, elements)
            except SchedulerError as error:
                log.debug("array %s keeps its limit: %s", array, error.message)

    # ── watching ─────────────────────────────────────────────────────────────────────────────────────────────────
    def _note(self, rows: Sequence[QueueRow], now: float) -> None:
        states = {row.id: row.state for row in rows}
        for name, element in self._elements.items():
            if name in states:
                element.state, element.gone_at = states[name], None
            elif element.gone_at is None:
                element.gone_at = now

    def _finished(self, receipts: Collection[str]) -> list[BatchEnd]:
        """Elements that have nothing left to do; one that was requeued in spite of that is taken out of the queue."""
        found = [
            name for name, element in self._elements.items() if all(task in receipts for task in element.batch.tasks)
        ]
        for name in found:
            if self._elements[name].state == "PENDING":
                self._slurm.cancel_element(name)
        return [BatchEnd(self._elements.pop(name).batch, {}) for name in found]

    def _gone(self, now: float) -> list[BatchEnd]:
        gone = [name for name, element in self._elements.items() if element.gone_at is not None]
        results = {name: read_result(self._elements[name].submission, name) for name in gone}
        unclear = [name for name in gone if not isinstance(results[name], dict)]
        try:
            endings = self._slurm.endings(unclear)
        except SchedulerError as error:
            log.debug("accounting does not answer: %s", error.message)
            endings = {}
        ends = []
        for name in gone:
            end = self._end_of(name, results[name], endings.get(name), now)
            if end is not None:
                ends.append(end)
                del self._elements[name]
        return ends

    def _end_of(
        self, name: str, result: dict[str, TaskFailure] | str | None, ending: Ending | None, now: float
    ) -> BatchEnd | None:
        """How an element ended that is not in the queue; None if that is not known yet."""
        element = self._elements[name]
        if isinstance(result, dict):
            return BatchEnd(element.batch, result)
        lagging = ending is None or not ending.over
        if lagging and element.gone_at is not None and now - element.gone_at < _ACCOUNTING_SECONDS:
            return None
        words = result or last_words(element.submission, name)
        state = "left the queue, and accounting does not say how" if lagging else str(ending)
        reason = f"Slurm job {name}: {state}{f': {words}' if words else ''}; its log: {_log_of(element, name)}"
        if ending is not None and ending.state == "CANCELLED":  # somebody wants it to stop
            return BatchEnd(element.batch, {task: TaskFailure(reason, final=True) for task in element.batch.tasks})
        if is_out_of_memory(ending, words):
            more = self._needs.ran_out(element.batch.tasks, element.submission.memory)
            log.warning("Slurm job %s ran out of memory; %s", name, more)
            reason = f"{reason}; {more}"
        return BatchEnd(element.batch, {}, reason)

    def _tell_why_nothing_runs(self, rows: Sequence[QueueRow]) -> None:
        """Say it once for each reason, if it is one that waiting may not cure."""
        for row in rows:
            if row.state == "PENDING" and row.reason not in _USUAL_WAITS:
                self._tell(f"Slurm does not start job {row.id}: {row.reason} (scontrol show job {row.id})", row.reason)

    def _tell(self, message: str, key: str | None = None) -> None:
        if (key or message) not in self._told:
            self._told.add(key or message)
            log.warning("%s", message)


def _array_of(element: str) -> str:
    return element.partition("_")[0]


def _log_of(element: _Element, name: str) -> Path:
    path: Path = element.submission.paths(name).stderr
    return path
