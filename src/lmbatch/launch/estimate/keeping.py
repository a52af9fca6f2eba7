"""What the driver of a run does about its estimate: see that there is one, and keep what became of it.

An estimate is a report. Nothing that goes wrong with it stops a run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from lmbatch.errors import LmbatchError
from lmbatch.launch.estimate import estimate_by_probe, estimate_from_receipts
from lmbatch.launch.place import Place
from lmbatch.preprocess import Plan, Tally, read_receipts
from lmbatch.preprocess.estimate import (
    Estimate,
    Outcome,
    Row,
    compare,
    newest_estimate,
    read_outcome,
    save_estimate,
    save_outcome,
)
from lmbatch.store import Store
from lmbatch.tokens import TextTokenizer

log = logging.getLogger(__name__)

# From this much input on a run takes so long that a probe before it is not felt; below, its first receipts will do.
PROBE_FROM_BYTES = 256 * 2**20
_QUICK_BYTES, _QUICK_RANGES = 4 * 2**20, 4
_QUICK_SECONDS = 2.0
_RECEIPTS = 8  # at most; a third of the tasks where there are few


class Keeper:
    """Makes the estimate of a run unless `lmbatch plan preprocess --save` has, and keeps the outcome beside it."""

    def __init__(self, store: Store, plan: Plan, place: Place, tokenizer: TextTokenizer, started: float) -> None:
        """``started`` is when the driver began, by the monotonic clock."""
        self._store, self._plan, self._place, self._tokenizer = store, plan, place, tokenizer
        self._started = self._begun = started
        self._name: str | None = None
        self._estimate: Estimate | None = None
        self._first_after: float | None = None  # seconds until there was a receipt
        self._wanted = False

    def begin(self, done: Collection[str]) -> None:
        """Before the first batch; ``done`` are the tasks that have receipts."""
        with _harmless():
            found = newest_estimate(self._store, self._plan.fingerprint)
            here = (self._place.executor, self._place.workers)
            if found is not None and (found[1].executor, found[1].workers) == here:
                self._name, self._estimate = found
            elif not done and self._plan.input_bytes >= PROBE_FROM_BYTES:
                self._save(self._probed())
            else:
                self._wanted = not done
        self._begun = time.monotonic()
        if self._plan.partitions is not None:  # the stages before this one are not what is estimated
            self._started = self._begun

    def see(self, done: Collection[str]) -> None:
        """These tasks have receipts: enough of them make the estimate, if there is none yet."""
        if not self._wanted or not done:
            return
        if self._first_after is None:
            self._first_after = time.monotonic() - self._begun
        if len(done) < min(_RECEIPTS, -(-len(self._plan.tasks) // 3)):
            return
        self._wanted = False
        with _harmless():
            chosen = [task for task in self._plan.tasks if task.id in done][:_RECEIPTS]
            receipts = list(read_receipts(self._store, chosen).values())
            startup = max(0.0, self._first_after - max(receipt.seconds for receipt in receipts))
            self._save(estimate_from_receipts(self._plan, self._place, self._store, receipts, startup_seconds=startup))

    def end(self, done: Tally, tasks_done: int) -> list[Row]:
        """The manifest is written, ``tasks_done`` of the tasks by this driver: predicted against happened."""
        rows: list[Row] = []
        if self._name is None or self._estimate is None:
            return rows
        with _harmless():
            if tasks_done:
                seconds, traffic = time.monotonic() - self._started, self._store.traffic.total()
                outcome = Outcome(seconds=seconds, tasks_done=tasks_done, traffic=traffic)
                save_outcome(self._store, self._name, outcome)
            rows += compare(self._estimate, done, read_outcome(self._store, self._name))
        return rows

    def _probed(self) -> Estimate:
        return estimate_by_probe(
            self._plan,
            self._tokenizer,
            self._place,
            self._store,
            driver_seconds=time.monotonic() - self._started,
            total_bytes=_QUICK_BYTES,
            count=_QUICK_RANGES,
            seconds=_QUICK_SECONDS,
        )

    def _save(self, estimate: Estimate) -> None:
        self._name, self._estimate = save_estimate(self._store, estimate), estimate
        for warning in estimate.warnings:
            log.warning("estimate: %s", warning)


@contextmanager
def _harmless() -> Iterator[None]:
    try:
        yield
    except (LmbatchError, OSError) as error:
        log.debug("no estimate: %s", error)
