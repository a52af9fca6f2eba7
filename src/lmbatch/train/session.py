"""One attempt at a run: take the lock, open the ledger, train, and write down how it ended.

No torch here: the lock, the ledger's first line and the first look at the stop flag come before the heavy imports.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass

from lmbatch import __version__
from lmbatch.checkpoint.lock import RunLock
from lmbatch.config import TrainConfig, fingerprint
from lmbatch.errors import StopRequested
from lmbatch.train import TrainResult
from lmbatch.train.attempts import AttemptLog
from lmbatch.train.folder import RunFolder
from lmbatch.train.lost_disk import keep_last_records, restore_records
from lmbatch.train.stop import StopFlag
from lmbatch.train.usage import peak_device_bytes, peak_host_bytes

# A requeued job may start while the preempted one is still saving.
LOCK_WAIT_SECONDS = 10.0


@dataclass(slots=True)
class Standing:
    """How far an attempt has come; None before it knows. ``saved`` is the newest committed step."""

    total: int | None = None
    resumed_from: int | None = None
    step: int | None = None
    saved: int | None = None
    loss: float | None = None


def run_attempt(config: TrainConfig, stop: StopFlag, *, started: float | None = None) -> TrainResult:
    """What ``lmbatch.train.train`` does; see there."""
    started = time.monotonic() if started is None else started
    folder = RunFolder.of(config.run)
    standing = Standing()
    with ExitStack() as stack:
        ledger: AttemptLog | None = None
        if os.environ.get("RANK", "0") == "0":
            stack.enter_context(RunLock(folder.path, wait_seconds=LOCK_WAIT_SECONDS))
            stop.watch(folder.stop)
            restore_records(config, folder)
            ledger = _open_ledger(config, folder)
            stack.callback(lambda: keep_last_records(config, folder, standing.saved))
        try:
            stop.check()
            from lmbatch.train.worker import train_run

            train_run(config, folder, stop, ledger, standing, started)
        except StopRequested:
            stop.honoured()
            _close(ledger, standing, "stopped", stop.reason or "another process")
            return _result(folder, standing, stop.reason or "another process")
        except BaseException as error:
            _close(ledger, standing, "failed", f"{type(error).__name__}: {error}".splitlines()[0])
            raise
        _close(ledger, standing, "finished", None)
        return _result(folder, standing, None)


def _open_ledger(config: TrainConfig, folder: RunFolder) -> AttemptLog:
    ledger = AttemptLog(folder.path)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    ledger.started(world_size=world, code_version=__version__, config=fingerprint(config))
    return ledger


def _close(ledger: AttemptLog | None, standing: Standing, why: str, detail: str | None) -> None:
    if ledger is not None:
        ledger.used(peak_host_bytes=peak_host_bytes(), peak_device_bytes=peak_device_bytes())
        ledger.ended(why, detail=detail, last_step=standing.step, last_saved_step=standing.saved)


def _result(folder: RunFolder, standing: Standing, stopped: str | None) -> TrainResult:
    return TrainResult(
        run_dir=folder.path,
        step=standing.step or 0,
        total_steps=standing.total or 0,
        resumed_from=standing.resumed_from or 0,
        loss=standing.loss,
        stopped=stopped,
    )
