"""The cores of this machine: submitit's local executor behind a limit of our own (it has none)."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from submitit import LocalExecutor

from lmbatch.config import ContainerSite
from lmbatch.launch.backend import BatchEnd, TaskBatch
from lmbatch.launch.contained_batch import contained
from lmbatch.launch.deal import guided
from lmbatch.launch.slurm_submit import telling_line
from lmbatch.preprocess import Unit

_NO_TIME_LIMIT_MIN = 60 * 24 * 365
_CANCEL_SECONDS = 10.0


@dataclass(frozen=True)
class _Running:
    batch: TaskBatch
    job: Any  # submitit.LocalJob


class LocalBackend:
    """At most ``workers`` processes at a time, each in a ``container`` of its own if that names a runtime.

    Logs and job files lie in ``folder``.
    """

    def __init__(self, folder: Path, workers: int, container: ContainerSite | None = None) -> None:
        self._executor = LocalExecutor(folder=folder / "%j")
        self._executor.update_parameters(timeout_min=_NO_TIME_LIMIT_MIN, tasks_per_node=1)
        self._workers, self._container = workers, container
        self._running: list[_Running] = []

    def adopt(self, run: str) -> None:
        """Nothing to take over: processes end with the driver that started them."""

    def deal(self, tasks: Sequence[Unit]) -> list[tuple[Unit, ...]]:
        """A batch for each free place."""
        return guided(tasks, self._workers - len(self._running))

    def submit(self, batches: Sequence[TaskBatch]) -> None:
        """Start a process for each batch."""
        for batch in batches:
            job = self._executor.submit(contained(batch, self._container))
            self._running.append(_Running(batch, job))

    def poll(self, receipts: Collection[str]) -> list[BatchEnd]:
        """Batches whose process has ended."""
        ended = [item for item in self._running if item.job.done()]
        self._running = [item for item in self._running if item not in ended]
        return [_end_of(item) for item in ended]

    def running(self) -> list[TaskBatch]:
        """Batches that are being worked on."""
        return [item.batch for item in self._running]

    def at_work(self) -> list[TaskBatch]:
        """The same: nothing waits here."""
        return self.running()

    def cancel(self) -> None:
        """End the controllers; each takes its worker along (see `die_with_parent`)."""
        for item in self._running:
            item.job.cancel(check=False)
        deadline = time.monotonic() + _CANCEL_SECONDS
        while any(not item.job.done() for item in self._running) and time.monotonic() < deadline:
            time.sleep(0.05)
        self._running = []


def _end_of(item: _Running) -> BatchEnd:
    paths = item.job.paths
    # submitit waits 15 s for a result that a killed process cannot have left; look for the file first.
    if not paths.result_pickle.exists():
        words = telling_line(paths.stderr)
        told = f"the process ended without a result{f': {words}' if words else ''}; its log: {paths.stderr}"
        return BatchEnd(item.batch, {}, told)
    error = item.job.exception()
    if error is not None:
        return BatchEnd(item.batch, {}, f"{error}; its log: {paths.stderr}")
    return BatchEnd(item.batch, item.job.result())
