"""What a job was said to cost, kept in the store beside its plan, and what it has cost in the end.

::

    estimates/SHA12.json            an Estimate; of several for one plan the newest counts
    estimates/SHA12.outcome.json    an Outcome: what only the driver knows; written when the manifest is

Neither is part of a fingerprint or digest, and nothing but reports reads them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from lmbatch.config.base import Section
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


class Estimate(Section):
    """What a plan will cost at a place. Times in seconds; ``core_seconds`` is the CPU time of the tasks."""

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


class Outcome(Section):
    """What the driver knows of a run: how long it took, and its own traffic. Later drivers of the run add theirs.

    One that is killed leaves nothing, so it tells of the whole run only where ``tasks_done`` are all of them.
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


def compare(estimate: Estimate, done: Tally, outcome: Outcome | None) -> list[Row]:
    """Predicted against happened, figure by figure. Meaningful when every task has its receipt."""
    whole = outcome if outcome is not None and outcome.tasks_done == estimate.tasks else None
    rows = [
        _exact("tasks", "", estimate.tasks, done.tasks),
        _exact("shards", "", sum(estimate.shards.values()), done.shards),
        _row("documents", "", estimate.documents, done.documents_out),
        _row("tokens", "", estimate.tokens, done.tokens),
        _row("CPU time of tasks", "s", estimate.core_seconds, done.cpu_seconds),
        *([_row("wall time", "s", estimate.wall_seconds, whole.seconds)] if whole is not None else []),
        _row("peak memory", "B", estimate.peak_memory_bytes, done.memory_bytes),
        _row("stored", "B", estimate.stored_bytes, done.stored_bytes),
    ]
    if done.tasks and done.tasks_with_traffic == done.tasks:
        traffic, inputs = Traffic(**done.traffic), Traffic(**done.input_traffic)
        rows += [
            _exact("requests to the store", "", estimate.traffic.requests, traffic.requests),
            _exact("sent to the store", "B", estimate.traffic.bytes_up, traffic.bytes_up),
            _exact("requests for input", "", estimate.input_traffic.requests, inputs.requests),
            _exact("input read", "B", estimate.input_traffic.bytes_down, inputs.bytes_down),
        ]
    if whole is not None:
        rows.append(_exact("requests of the driver", "", estimate.driver_traffic.requests, whole.traffic.requests))
    return rows


def _exact(what: str, unit: str, predicted: float, happened: float) -> Row:
    return Row(what, unit, predicted, predicted, predicted, happened)


def _row(what: str, unit: str, predicted: Interval, happened: float) -> Row:
    return Row(what, unit, predicted.likely, predicted.low, predicted.high, happened)
