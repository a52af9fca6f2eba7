"""What is submitted, and the door that every place to run it goes through."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lmbatch.errors import (
    CorpusError,
    LmbatchError,
    PlanError,
    StoreAccessError,
    StoreFullError,
    TokenizerError,
    UnsafeStoreError,
)

if TYPE_CHECKING:
    from lmbatch.preprocess import Unit

# Doing these again gives the same answer.
_FINAL = (CorpusError, PlanError, StoreAccessError, StoreFullError, TokenizerError, UnsafeStoreError)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class TaskFailure:
    """Why a task gave no receipt; ``final`` if trying again cannot help."""

    message: str
    final: bool


@dataclass(frozen=True)
class TaskBatch:
    """Some tasks for one process, one after the other. Names and places only, so that it travels as plain values.

    ``engine`` is what encodes, ``heartbeat_seconds`` how often the worker says how far it is; without them, what the
    stored plan says, which the first run wrote. ``patience`` is for how long a silent store is asked again, ``raw``
    where the input lies now, should it have been moved since then.
    """

    store: str
    tasks: tuple[str, ...]
    spool: str
    input_bytes: int = 0
    engine: str | None = None
    heartbeat_seconds: float | None = None
    patience: float = 0.0
    raw: str | None = None

    def __call__(self) -> dict[str, TaskFailure]:
        """Do the tasks; a failed one does not keep the others from being done. Returns the failures."""
        if os.environ.get("SUBMITIT_EXECUTOR") == "local":  # a cluster ends what belongs to a job itself
            die_with_parent()
        return self.run_alone()

    def run_alone(self) -> dict[str, TaskFailure]:
        """The same, in a process that has nothing else to do."""
        # One process per core: threads inside a library scale poorly and would fight with the neighbours.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        os.environ.setdefault("RAYON_NUM_THREADS", "1")
        try:
            return self.run()
        finally:
            self.clear_spool()

    def run(self) -> dict[str, TaskFailure]:
        """The same, in the process of the caller."""
        from lmbatch.preprocess import LiveTask, Pulse, Worker, load_plan, open_raw
        from lmbatch.store import open_store

        store = open_store(self.store, patience=self.patience)
        plan = load_plan(store)
        raw = open_store(self.raw, patience=self.patience) if self.raw else open_raw(plan, self.patience)
        failures: dict[str, TaskFailure] = {}
        every = plan.config.heartbeat_seconds if self.heartbeat_seconds is None else self.heartbeat_seconds
        live = LiveTask()
        worker = Worker(store, raw, plan, self.own_spool(), self.engine, live)
        with Pulse(store, live, every):
            for task_id in self.tasks:
                try:
                    worker.run(task_id)
                except (LmbatchError, OSError) as error:
                    failures[task_id] = TaskFailure(str(error), isinstance(error, _FINAL))
                    live.failed(task_id, str(error))
        return failures

    def own_spool(self) -> Path:
        """The folder of this process for shards on their way."""
        return Path(self.spool) / f"{socket.gethostname()}-{os.getpid()}"

    def clear_spool(self) -> None:
        """Remove it, and the plan's folder if nothing else is in it."""
        # The driver sweeps only its own machine.
        shutil.rmtree(self.own_spool(), ignore_errors=True)
        with suppress(OSError):
            Path(self.spool).rmdir()

    def checkpoint(self) -> object:
        """Called by submitit on preemption: the receipts are the state, so the same batch simply runs again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@dataclass(frozen=True)
class BatchEnd:
    """A batch that has ended. ``error`` says what its process died of, if it did not return."""

    batch: TaskBatch
    failures: dict[str, TaskFailure]
    error: str | None = None


class Backend(Protocol):
    """A place where batches run."""

    def adopt(self, run: str) -> None:
        """Called first: ``run`` names the work. What an earlier driver of the same run has started is taken over."""
        ...

    def deal(self, tasks: Sequence[Unit]) -> list[tuple[Unit, ...]]:
        """Batches that it would take now, from the front of ``tasks`` and in order; none if it has no place."""
        ...

    def submit(self, batches: Sequence[TaskBatch]) -> None:
        """Start them."""
        ...

    def poll(self, receipts: Collection[str]) -> list[BatchEnd]:
        """Those that have ended since the last call. ``receipts``: the tasks that are known to be done."""
        ...

    def running(self) -> list[TaskBatch]:
        """Those that have not ended: they run or wait."""
        ...

    def at_work(self) -> list[TaskBatch]:
        """Those of `running` that do not merely wait."""
        ...

    def cancel(self) -> None:
        """Stop everything that runs, and wait until it is gone."""
        ...


def die_with_parent() -> None:
    """Ask the kernel to end this process when its parent ends: a killed submitit controller leaves no orphan."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1:  # the parent was gone before the call
        os._exit(1)
