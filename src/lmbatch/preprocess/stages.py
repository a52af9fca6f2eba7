"""The stages of a plan, in order: units of work with a receipt each, and a barrier after each stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lmbatch.preprocess.dedup import compare_units, sign_units
from lmbatch.preprocess.plan import Plan


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
