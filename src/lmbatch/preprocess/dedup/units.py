"""The units of work of the two stages, as the plan gives them."""

from __future__ import annotations

from dataclasses import dataclass

from lmbatch.preprocess.plan import Plan, Task


@dataclass(frozen=True)
class SignTask:
    """Sign the documents of one task; ``number`` is the task's in the plan."""

    id: str
    number: int
    task: Task

    @property
    def input_bytes(self) -> int:
        """Size of its input."""
        return self.task.input_bytes


@dataclass(frozen=True)
class ComparePartition:
    """Compare the keys of one partition; ``input_bytes`` is its share of the input, for progress and time."""

    id: str
    number: int
    input_bytes: int


def sign_units(plan: Plan) -> tuple[SignTask, ...]:
    """One per task of the plan; none without de-duplication."""
    if plan.partitions is None:
        return ()
    return tuple(SignTask(f"sign-{number:06d}", number, task) for number, task in enumerate(plan.tasks))


def compare_units(plan: Plan) -> tuple[ComparePartition, ...]:
    """One per partition; none without de-duplication."""
    count, total = plan.partitions or 0, plan.input_bytes
    shares = [total * (number + 1) // count - total * number // count for number in range(count)]
    return tuple(ComparePartition(f"compare-{number:04d}", number, share) for number, share in enumerate(shares))
