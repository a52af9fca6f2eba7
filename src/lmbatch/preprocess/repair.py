"""Make a damaged store ready to be finished again: withdraw what does not hold, keep what does."""

from __future__ import annotations

from dataclasses import dataclass

from lmbatch.preprocess.plan import Plan
from lmbatch.preprocess.stages import stages_of
from lmbatch.preprocess.task import receipt_key
from lmbatch.preprocess.verify import StoreReport
from lmbatch.store import MANIFEST_KEY, Store


@dataclass(frozen=True)
class Withdrawn:
    """What was withdrawn: the tasks that must be done again, and whether the manifest must be written again."""

    tasks: tuple[str, ...]
    manifest: bool


def repair_store(store: Store, plan: Plan, report: StoreReport) -> Withdrawn:
    """Withdraw the receipts of the tasks of any stage that failed verification, and the manifest first.

    Payload is left alone: its name carries its hash, so doing the task again puts the right bytes in its place. After
    this an ordinary preprocessing run does exactly what is missing.
    """
    if report.right:
        return Withdrawn((), False)
    store.delete(MANIFEST_KEY)
    tasks = tuple(unit.id for stage in stages_of(plan) for unit in stage.units if unit.id in report.problems)
    for task_id in tasks:
        store.delete(receipt_key(task_id))
    return Withdrawn(tasks, True)
