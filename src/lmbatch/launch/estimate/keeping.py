"""What the driver of a run does about its estimate: see that there is one, and keep what became of it.

An estimate is a report. Nothing that goes wrong with it stops a run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from lmbatch.errors import LmbatchError
from lmbatch.launch.estimate import estimate_by_probe, estimate_from_receipts
from lmbatch.launch.estimate.dedup_rates import DedupRates, dedup_rates_from_run
from lmbatch.launch.place import Place
from lmbatch.preprocess import Plan, Tally, read_receipts
from lmbatch.preprocess.dedup import SignReceipt, compare_units, parse_compare, parse_sign, sign_units
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
from lmbatch.preprocess.merge import read_all
from lmbatch.store import PROBE_TRAFFIC, Receipt, Store
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
        self._first_after: dict[str, float] = {}  # by stage: seconds until there was a receipt
        self._stage = ""
        self._wanted = False

    def begin(self, stage: str, done: Collection[str]) -> None:
        """Before the first batch of a stage; ``done`` are its units that have receipts."""
        if not self._stage:
            self._begin_run(done)
        self._stage, self._begun = stage, time.monotonic()

    def _begin_run(self, done: Collection[str]) -> None:
        with _harmless():
            found = newest_estimate(self._store, self._plan.fingerprint)
            here = (self._place.executor, self._place.workers)
            if found is not None and (found[1].executor, found[1].workers) == here:
                self._name, self._estimate = found
            elif not done and self._plan.input_bytes >= PROBE_FROM_BYTES:
                self._save(self._probed())
            else:
                self._wanted = not done

    def see(self, done: Collection[str]) -> None:
        """These units of the stage have receipts: enough of the tasks make the estimate, if there is none yet."""
        if not self._wanted or not done:
            return
        self._first_after.setdefault(self._stage, time.monotonic() - self._begun)
        if self._stage != "tokenize" or len(done) < min(_RECEIPTS, -(-len(self._plan.tasks) // 3)):
            return
        self._wanted = False
        with _harmless():
            chosen = [task for task in self._plan.tasks if task.id in done][:_RECEIPTS]
            receipts = list(read_receipts(self._store, chosen).values())
            startup = self._startup("tokenize", receipts)
            estimate = estimate_from_receipts(self._plan, self._place, self._store, receipts,
                                              startup_seconds=startup, dedup=self._dedup_rates())  # fmt: skip
            self._save(estimate)

    def _dedup_rates(self) -> DedupRates | None:
        """From the first receipts of the stages that are done by now."""
        if self._plan.partitions is None:
            return None
        signing = [unit.id for unit in sign_units(self._plan)][:_RECEIPTS]
        comparing = [unit.id for unit in compare_units(self._plan)][:_RECEIPTS]
        signs = list(read_all(self._store, signing, parse_sign).values())
        receipts = list(read_all(self._store, comparing, parse_compare).values())
        return dedup_rates_from_run(self._plan, signs, receipts, self._startup("sign", signs))

    def _startup(self, stage: str, receipts: Sequence[Receipt] | Sequence[SignReceipt]) -> float:
        return max(0.0, self._first_after.get(stage, 0.0) - max(receipt.seconds for receipt in receipts))

    def end(self, tallies: Mapping[str, Tally], done: int) -> list[Row]:
        """The manifest is written, ``done`` units by this driver, ``tallies`` are by stage: predicted and happened."""
        rows: list[Row] = []
        if self._name is None or self._estimate is None:
            return rows
        with _harmless():
            if done:
                seconds, traffic = time.monotonic() - self._started, self._store.traffic.total() + PROBE_TRAFFIC
                save_outcome(self._store, self._name, Outcome(seconds=seconds, tasks_done=done, traffic=traffic))
            earlier = {stage: tally for stage, tally in tallies.items() if stage != "tokenize"}
            rows += compare(self._estimate, tallies["tokenize"], read_outcome(self._store, self._name), earlier)
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
