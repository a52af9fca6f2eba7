"""What reports want to know of a stored plan: its tasks and their sizes, without an object for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from lmbatch.preprocess.plan import Plan, load_plan
from lmbatch.store import FORMAT_VERSION, PLAN_KEY, Store


@dataclass(frozen=True, slots=True)
class PlanOutline:
    """A plan's corpus, its fingerprint as stored, and the bytes of input of each task, in order.

    ``earlier_stages``: how many tasks each stage has that comes before documents are tokenized.
    """

    corpus: str
    fingerprint: str
    task_bytes: Mapping[str, int]
    earlier_stages: Mapping[str, int]

    @property
    def input_bytes(self) -> int:
        """Size of all input."""
        return sum(self.task_bytes.values())


def read_outline(store: Store) -> PlanOutline:
    """Only to show it: whether the plan's content gives its fingerprint is not looked at.

    Raises ObjectNotFoundError if there is no plan and PlanError if it cannot be read.
    """
    try:
        value = orjson.loads(store.read(PLAN_KEY))
        if value["format_version"] != FORMAT_VERSION:
            raise ValueError("another version")
        sizes = {task["id"]: sum([piece["bytes"] for piece in task["pieces"]]) for task in value["tasks"]}
        stages = _stages(len(sizes), value.get("partitions"))
        return PlanOutline(value["config"]["corpus"]["name"], value["fingerprint"], sizes, stages)
    except (ValueError, KeyError, TypeError):
        return outline_of(load_plan(store))  # says what is wrong with it


def outline_of(plan: Plan) -> PlanOutline:
    """The same of a plan that has been read whole."""
    sizes = {task.id: task.input_bytes for task in plan.tasks}
    return PlanOutline(plan.config.corpus.name, plan.fingerprint, sizes, _stages(len(sizes), plan.partitions))


def _stages(tasks: int, partitions: int | None) -> dict[str, int]:
    """As `stages_of` gives them, by the names that their tasks begin with."""
    return {} if partitions is None else {"sign": tasks, "compare": partitions}
