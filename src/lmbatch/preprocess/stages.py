"""The stages of a plan, in order: units of work with a receipt each, and a barrier after each stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lmbatch.preprocess.dedup import compare_units, sign_units
from lmbatch.preprocess.facts import list_finished
from lmbatch.preprocess.plan import Plan
from lmbatch.store import Store


class Unit(Protocol):
    """What is dealt out: a name that a receipt is stored under, and the size of its input."""

    @property
    def id(self) -> str: ...

    @property
    def input_bytes(self) -> int: ...


@dataclass(frozen=True)
class Stage:
    """One stage: ``units`` may be done in any order and anywhere, once the stage before is done as a whole."""

    name: str
    units: Sequence[Unit]

    @property
    def input_bytes(self) -> int:
        """Size of its input."""
        return sum(unit.input_bytes for unit in self.units)


@dataclass(frozen=True)
class StageProgress:
    """How many units of a stage have their receipt."""

    name: str
    tasks: int
    tasks_done: int


def stage_progress(store: Store, plan: Plan) -> tuple[StageProgress, ...]:
    """By one listing of the receipts; whether they can be trusted is for others to say."""
    wanted = {unit.id: stage.name for stage in stages_of(plan) for unit in stage.units}
    done = Counter(wanted[unit] for unit in list_finished(store, wanted))
    return tuple(StageProgress(stage.name, len(stage.units), done[stage.name]) for stage in stages_of(plan))


def stages_of(plan: Plan) -> tuple[Stage, ...]:
    """Sign and compare, where the plan wants duplicates dropped; always tokenize, the last one."""
    tokenize = Stage("tokenize", plan.tasks)
    if plan.partitions is None:
        return (tokenize,)
    return (
        Stage("sign", sign_units(plan)),
        Stage("compare", compare_units(plan)),
        tokenize,
    )
