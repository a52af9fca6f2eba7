"""What a job was said to cost, and once it is done, what it has cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmbatch.preprocess import Tally, read_facts
from lmbatch.preprocess.estimate import Estimate, Row, compare, newest_estimate, read_outcome
from lmbatch.store import Store


@dataclass(frozen=True)
class EstimateStatus:
    """``compared`` is empty until every task has its receipt."""

    predicted: Estimate
    compared: tuple[Row, ...]

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        rows = [row.to_dict() for row in self.compared]
        return {"predicted": self.predicted.model_dump(mode="json"), "compared": rows}


def estimate_status(
    store: Store, plan: str, done: Tally, earlier: Mapping[str, Sequence[str]]
) -> EstimateStatus | None:
    """The newest estimate of the plan with this fingerprint, if there is one, against the tasks that are done.

    ``earlier`` are the units of the stages before that have receipts; they are read when the tasks are complete.
    """
    found = newest_estimate(store, plan)
    if found is None:
        return None
    name, estimate = found
    if done.tasks != estimate.tasks:
        return EstimateStatus(estimate, ())
    tallies = {stage: _tally(store, units) for stage, units in earlier.items()} if estimate.stages else {}
    return EstimateStatus(estimate, tuple(compare(estimate, done, read_outcome(store, name), tallies)))


def _tally(store: Store, units: Sequence[str]) -> Tally:
    tally = Tally()
    for facts in read_facts(store, units):
        tally.add(facts)
    return tally
