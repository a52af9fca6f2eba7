"""When a checkpoint is due: what training waits for, and what goes on behind it.

::

    the training thread          a thread behind it                         the mirror's thread
    wait for the save before
    copy the state ────────────▶ gather, write, hash, fsync, receipt,
    the next step                retention ───────────────────────────────▶ upload
      ⋮                            │ a failure                                │ a failure
    the end of a step ◀────────────┴── asks for a stop ◀──────────────────────┘

A failure on one process asks for a stop, which all processes agree on with the loss of the next step; in
:meth:`Saver.finish` each then raises what has failed. So a run never goes on for long without checkpoints, and no
process waits for another that has given up.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self

from lmbatch.checkpoint import CheckpointFacts, Checkpoints
from lmbatch.checkpoint.behind import Behind
from lmbatch.checkpoint.checkpoints import SavedCheckpoint
from lmbatch.checkpoint.commit import Write
from lmbatch.config import SaveConfig
from lmbatch.errors import CheckpointError, StopRequested
from lmbatch.train.processes import Ranks
from lmbatch.train.records import Record

log = logging.getLogger(__name__)

# After an error another process may be gone, without whom the state cannot be gathered.
GATHER_PATIENCE_SECONDS = 60.0

Commit = Callable[[Write], None]
Note = Callable[[str, Record], None]  # the kind of a row of metrics.jsonl, and the row


class Saving(Protocol):
    """What is needed of an engine."""

    @property
    def ranks(self) -> Ranks: ...
    def save(self, commit: Commit) -> None: ...
    def snapshot(self) -> Callable[[Commit], None]: ...


class Saver:
    """The saves of one process. Every process calls each method together with the others, but for ``failed``.

    ``committed(step)`` is called when a checkpoint has its receipt; ``on_failure()`` when a save behind has failed.
    """

    def __init__(
        self, config: SaveConfig, engine: Saving, checkpoints: Checkpoints, *, note: Note,
        committed: Callable[[int], None], on_failure: Callable[[], None],
    ) -> None:  # fmt: skip
        self._config, self._engine, self._checkpoints = config, engine, checkpoints
        self._note, self._committed = note, committed
        self._behind = Behind("checkpoint-save", on_failure=on_failure)
        self._under_way = 0  # the step of the newest save

    def leaves_out(self, step: int) -> bool:
        """Is the save of ``step``, which is due, to be left out, for the one before is not through?"""
        if self._config.when_busy != "skip" or not self._engine.ranks.number_from_main(int(self._behind.busy)):
            return False
        if self._engine.ranks.main:
            log.info("step %d is not saved: that of step %d is not through", step, self._under_way)
            self._note("save", {"step": step, "left_out_for": self._under_way})
        return True

    def save(self, find_facts: Callable[[], CheckpointFacts], since: float) -> None:
        """Save what the engine holds now; returns as soon as training may go on.

        ``find_facts`` is called when the save before is through. ``since`` is the ``time.monotonic()`` from which
        training waits. Raises what the save before has failed with.
        """
        begun = time.monotonic()
        self._through()
        waited = time.monotonic() - begun
        facts = find_facts()
        self._under_way = facts.step
        if not self._config.asynchronous:
            self._engine.save(partial(self._commit, facts, lambda: time.monotonic() - since, waited))
            return
        write_behind = self._engine.snapshot()
        stalled = time.monotonic() - since
        commit = partial(self._commit, facts, lambda: stalled, waited)
        self._behind.start(lambda: write_behind(commit))

    def finish(self) -> None:
        """Wait until the newest save is committed. Raises what has failed behind, an upload too, on every process."""
        self._through()
        self._agree(self._failed_upload())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the save behind come to its end, and then the upload."""
        together = error is None or isinstance(error, StopRequested) or self._engine.ranks.world == 1
        if not self._behind.wait(None if together else GATHER_PATIENCE_SECONDS):
            log.warning("the save of step %d is given up: the other processes do not answer", self._under_way)
        if (missed := self._behind.take_error()) is not None:
            log.error("the save of step %d failed as well: %s", self._under_way, missed)
        self._checkpoints.__exit__(kind, error, trace)  # while what an upload took can still be noted

    def _commit(self, facts: CheckpointFacts, stalled: Callable[[], float], waited: float, write: Write) -> None:
        saved = self._checkpoints.save(facts, write)
        self._committed(saved.step)
        self._note("save", row_of(saved, stalled=stalled(), waited=waited, asynchronous=self._config.asynchronous))
        log.info("step %d saved: %.1f MB; training stalled for %.2f s, written in %.2f s",
                 saved.step, saved.bytes / 1e6, stalled(), saved.seconds)  # fmt: skip

    def _through(self) -> None:
        """Wait for the save behind, and raise what it has failed with."""
        # One that has failed in the middle of a part leaves the others behind waiting for the rest of it.
        self._agree(self._behind.take_error())
        self._behind.wait()
        self._agree(self._behind.take_error())

    def _failed_upload(self) -> CheckpointError | None:
        try:
            self._checkpoints.check_upload()
        except CheckpointError as error:
            return error
        return None

    def _agree(self, error: Exception | None) -> None:
        """Raise on every process, if any has an error."""
        if self._engine.ranks.any(error is not None):
            raise error or CheckpointError("another process could not save", remedy="its message says why")


def row_of(saved: SavedCheckpoint, *, stalled: float, waited: float, asynchronous: bool) -> dict[str, Any]:
    """What a save has cost, as a row of metrics.jsonl; see there."""
    return {
        "step": saved.step, "bytes": saved.bytes, "asynchronous": asynchronous, "stall_seconds": stalled,
        "waited_seconds": waited, "write_seconds": saved.seconds,
    }  # fmt: skip
