"""What is submitted, and the door that every place to run it goes through."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lmbatch.errors import (
    CorpusError,
    LmbatchError,
    PlanError,
    StoreAccessError,
    StoreFullError,
    TokenizerError,
    UnsafeStoreError,
)

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
    """Some tasks for one process, one after the other. Names and places only, so that it travels as plain values."""

    store: str
    tasks: tuple[str, ...]
    spool: str

    def __call__(self) -> dict[str, TaskFailure]:
        """Do the tasks; a failed one does not keep the others from being done. Returns the failures."""
        # One process per core: threads inside the tokenizer scale poorly and would fight with the neighbours.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        die_with_parent()
        return self.run()

    def run(self) -> dict[str, TaskFailure]:
        """The same, in the process of the caller."""
        from lmbatch.preprocess import load_plan, load_tokenizer_of, open_raw, run_task
        from lmbatch.store import open_store
        from lmbatch.tokens import Encoder

        store = open_store(self.store)
        plan = load_plan(store)
        raw = open_raw(plan)
        spool = Path(self.spool) / f"{socket.gethostname()}-{os.getpid()}"
        encoder = Encoder(load_tokenizer_of(store, plan, spool / "tokenizer"), plan.config.tokenizer.engine)
        by_id = {task.id: task for task in plan.tasks}
        failures: dict[str, TaskFailure] = {}
        for task_id in self.tasks:
            try:
                run_task(store, raw, plan, by_id[task_id], encoder, spool)
            except (LmbatchError, OSError) as error:
                failures[task_id] = TaskFailure(str(error), isinstance(error, _FINAL))
        return failures

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

    def wanted(self, remaining: int) -> int:
        """How many more batches it would take now, with so many tasks left."""
        ...

    def submit(self, batches: Sequence[TaskBatch]) -> None:
        """Start them."""
        ...

    def poll(self) -> list[BatchEnd]:
        """Those that have ended since the last call."""
        ...

    def running(self) -> list[TaskBatch]:
        """Those that have not."""
        ...

    def cancel(self) -> None:
        """Stop everything that runs, and wait until it is gone."""
        ...


def die_with_parent() -> None:
    """Ask the kernel to end this process when its parent ends: a killed submitit controller leaves no orphan."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1:  # the parent was gone before the call
        os._exit(1)
