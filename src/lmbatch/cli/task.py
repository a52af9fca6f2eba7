"""`lmbatch task`: do named tasks of a stored plan in this process."""

from __future__ import annotations

from pathlib import Path

import click

from lmbatch.errors import TaskError, UsageError
from lmbatch.launch.backend import TaskBatch
from lmbatch.launch.preprocess import spool_of, sweep_spool
from lmbatch.preprocess import load_plan, stages_of
from lmbatch.store import open_store

EPILOG = """\b
Example:
  lmbatch task s3://bucket/wudao task-000017 task-000018
  lmbatch task s3://bucket/wudao sign-000003
"""


@click.command(epilog=EPILOG)
@click.argument("store")
@click.argument("tasks", nargs=-1, required=True)
def command(store: str, tasks: tuple[str, ...]) -> None:
    """Do TASKS of the plan in STORE, here and now; those with a receipt are left alone."""
    target = open_store(store)
    plan = load_plan(target)
    stages = stages_of(plan)
    unknown = set(tasks) - {unit.id for stage in stages for unit in stage.units}
    if unknown:
        raise UsageError(
            f"the plan in {store} has no task {sorted(unknown)[0]}",
            remedy="it has " + ", ".join(f"{stage.units[0].id} to {stage.units[-1].id}" for stage in stages),
        )
    spool: Path = spool_of(plan.config, plan)
    try:
        failures = TaskBatch(target.uri, tasks, str(spool)).run()
    finally:
        sweep_spool(spool)
    if failures:
        raise TaskError("; ".join(f"{task_id}: {failure.message}" for task_id, failure in failures.items()))
