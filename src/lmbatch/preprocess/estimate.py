"""What a job was said to cost, kept in the store beside its plan, and what it has cost in the end.

::

    estimates/SHA12.json            an Estimate; of several for one plan the newest counts
    estimates/SHA12.outcome.json    an Outcome: what only the driver knows; written when the manifest is

Neither is part of a fingerprint or digest, and nothing but reports reads them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from lmbatch.config.base import Section
from lmbatch.corpus.duplicates import REASONS
from lmbatch.errors import ObjectNotFoundError
from lmbatch.preprocess.facts import Tally
from lmbatch.store import Store, Traffic, to_json

ESTIMATES_PREFIX = "estimates/"
_OUTCOME = ".outcome.json"
SectionT = TypeVar("SectionT", bound=Section)


class Interval(Section):
    """A figure that is not known exactly: ``likely``, and the range in which it should lie."""

    low: float
    likely: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


class StageEstimate(Section):
    """What one stage of a plan will cost. Figures as in `Estimate`; ``unit_seconds`` is of its longest unit."""

    name: str
    units: int
    batches: int
    core_seconds: Interval
    wall_seconds: Interval
    unit_seconds: Interval
    peak_memory_bytes: Interval
    spool_bytes: Interval
    stored_bytes: Interval  # shards, or the payloads that the next stage reads
    traffic: Traffic
    input_traffic: Traffic


class Estimate(Section):
    """What a plan will cost at a place. Times in seconds; ``core_seconds`` is the CPU time of the tasks.

    With de-duplication ``stages`` has all of them, and every figure is their sum (for memory, spool and the longest
    task: their largest). What it drops is not known before it has run, so documents, tokens, shards, and the requests
    that duplicates cause are upper bounds.
    """

    plan: str  # fingerprint
    made: float  # seconds since the epoch
    source: Literal["probe", "receipts"]
    executor: Literal["local", "slurm"]
    workers: int = Field(gt=0)
    ranges: int = Field(gt=0)  # pieces of input that were measured, and their size
    measured_bytes: int = Field(gt=0)
    input_bytes: int
    tasks: int
    batches: int
    submissions: int | None = None  # of array jobs
    shards: dict[str, int]  # by split
    documents: Interval
    tokens: Interval
    dropped_share: float
    quarantined_share: float
    core_seconds: Interval
    wall_seconds: Interval
    startup_seconds: float  # of one worker
    task_seconds: Interval  # the longest task
    peak_memory_bytes: Interval  # of one worker
    spool_bytes: Interval  # on one machine's disk (Slurm: one element's share)
    stored_bytes: Interval
    traffic: Traffic  # of all workers with the store
    input_traffic: Traffic  # of all workers with the input
    driver_traffic: Traffic  # with the store
    warnings: tuple[str, ...] = ()
    stages: tuple[StageEstimate, ...] = ()  # empty without de-duplication

    @property
    def units(self) -> int:
        """Units of work of all stages: each has its receipt in the end."""
        return sum(stage.units for stage in self.stages) or self.tasks


class Outcome(Section):
    """What the driver knows of a run: how long it took, and its own traffic. Later drivers of the run add theirs.

    One that is killed leaves nothing, so it tells of the whole run only where ``tasks_done`` are all units of all
    stages.
    """

    seconds: float
    tasks_done: int
    traffic: Traffic


@dataclass(frozen=True)
class Row:
    """One figure, predicted and happened. ``error`` is (happened − predicted) / predicted, None for 0."""

    what: str
    unit: str
    predicted: float
    low: float
    high: float
    happened: float

    @property
    def error(self) -> float | None:
        """The relative error of the prediction."""
        return (self.happened - self.predicted) / self.predicted if self.predicted else None

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        names = ("unit", "predicted", "low", "high", "happened", "error")
        return {"what": self.what} | {name: getattr(self, name) for name in names}


def save_estimate(store: Store, estimate: Estimate) -> str:
    """Put it into the store; its name there, without an ending."""
    data = to_json(estimate)
    name = ESTIMATES_PREFIX + hashlib.sha256(data).hexdigest()[:12]
    store.put(f"{name}.json", data)
    return name


def newest_estimate(store: Store, plan: str) -> tuple[str, Estimate] | None:
    """The newest estimate of a plan, with its name; one that cannot be read is left out."""
    keys = [info.key for info in store.list(ESTIMATES_PREFIX) if not info.key.endswith(_OUTCOME)]
    read = [(key.removesuffix(".json"), _read(store, key, Estimate)) for key in keys]
    fitting = [(name, one) for name, one in read if one is not None and one.plan == plan]
    return max(fitting, key=lambda item: item[1].made, default=None)


def save_outcome(store: Store, name: str, outcome: Outcome) -> None:
    """Keep what a driver knows; what earlier drivers of the run knew is added up."""
    before = read_outcome(store, name)
    if before is not None:
        outcome = Outcome(
            seconds=before.seconds + outcome.seconds,
            tasks_done=before.tasks_done + outcome.tasks_done,
            traffic=before.traffic + outcome.traffic,
        )
    store.put(name + _OUTCOME, to_json(outcome))


def read_outcome(store: Store, name: str) -> Outcome | None:
    """What drivers have left; None if none came to its end yet."""
    return _read(store, name + _OUTCOME, Outcome)


def _read(store: Store, key: str, schema: type[SectionT]) -> SectionT | None:
    try:
        return schema.model_validate_json(store.read(key))
    except (ObjectNotFoundError, ValidationError):
        return None


def compare(
    estimate: Estimate, done: Tally, outcome: Outcome | None, earlier: Mapping[str, Tally] | None = None
) -> list[Row]:
    """Predicted against happened, figure by figure: in sum, then what each stage took. Meaningful when all is done.

    ``earlier`` tells of the stages before the documents are tokenized, by name; ``done`` is of the tasks.
    """
    whole = outcome if outcome is not None and outcome.tasks_done == estimate.units else None
    tallies = {**(earlier or {}), "tokenize": done}
    every = list(tallies.values()) if estimate.stages else [done]
    rows = [
        _exact("tasks", "", estimate.tasks, done.tasks),
        _exact("shards", "", sum(estimate.shards.values()), done.shards),
        *_contents(estimate, done),
        _row("CPU time of tasks", "s", estimate.core_seconds, sum(one.cpu_seconds for one in every)),
        *([_row("wall time", "s", estimate.wall_seconds, whole.seconds)] if whole is not None else []),
        _row("peak memory", "B", estimate.peak_memory_bytes, max(one.memory_bytes for one in every)),
        _row("stored", "B", estimate.stored_bytes, sum(one.stored_bytes for one in every)),
        *_exchanged(estimate, every),
    ]
    if whole is not None:
        rows.append(_exact("requests of the driver", "", estimate.driver_traffic.requests, whole.traffic.requests))
    for stage in estimate.stages:
        if stage.name in tallies:
            rows += _of_stage(stage, tallies[stage.name])
    return rows


def _contents(estimate: Estimate, done: Tally) -> list[Row]:
    """Documents and tokens. Of those that were dropped as duplicates nobody knows the tokens, only their number."""
    if not estimate.stages:
        return [
            _row("documents", "", estimate.documents, done.documents_out),
            _row("tokens", "", estimate.tokens, done.tokens),
        ]
    before = done.documents_out + sum(done.dropped.get(reason, 0) for reason in REASONS)
    at_most = estimate.tokens.model_copy(update={"low": 0.0})
    return [
        _row("documents before duplicates", "", estimate.documents, before),
        _row("tokens", "", at_most, done.tokens),
    ]


def _exchanged(what: Estimate | StageEstimate, every: Sequence[Tally]) -> list[Row]:
    """What the receipts tell of requests; nothing where one of them is older than the counters."""
    if any(not one.tasks or one.tasks_with_traffic != one.tasks for one in every):
        return []
    traffic = sum((Traffic(**one.traffic) for one in every), Traffic())
    inputs = sum((Traffic(**one.input_traffic) for one in every), Traffic())
    rows = [
        _exact("requests to the store", "", what.traffic.requests, traffic.requests),
        _exact("sent to the store", "B", what.traffic.bytes_up, traffic.bytes_up),
        _exact("requests for input", "", what.input_traffic.requests, inputs.requests),
        _exact("input read", "B", what.input_traffic.bytes_down, inputs.bytes_down),
    ]
    return [row for row in rows if row.predicted or row.happened]


def _of_stage(stage: StageEstimate, done: Tally) -> list[Row]:
    rows = [
        _row("CPU time", "s", stage.core_seconds, done.cpu_seconds),
        _row("peak memory", "B", stage.peak_memory_bytes, done.memory_bytes),
        _row("stored", "B", stage.stored_bytes, done.stored_bytes),
        *_exchanged(stage, [done]),
    ]
    return [replace(row, what=f"{stage.name}: {row.what}") for row in rows]


def _exact(what: str, unit: str, predicted: float, happened: float) -> Row:
    return Row(what, unit, predicted, predicted, predicted, happened)


def _row(what: str, unit: str, predicted: Interval, happened: float) -> Row:
    return Row(what, unit, predicted.likely, predicted.low, predicted.high, happened)
