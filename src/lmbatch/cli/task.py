"""`lmbatch task`: do named tasks of a stored plan in this process."""

from __future__ import annotations

from pathlib import Path

import click

from lmbatch.errors import LmbatchError, TaskError, UsageError
from lmbatch.launch.backend import TaskBatch, TaskFailure
from lmbatch.launch.batch_file import read_batch, write_answer, write_error
from lmbatch.launch.lifeline import hold_lifeline
from lmbatch.launch.preprocess import spool_of, sweep_spool
from lmbatch.preprocess import load_plan, stages_of
from lmbatch.store import open_store

EPILOG = """\b
Examples:
  lmbatch task s3://bucket/wudao task-000017 task-000018
  lmbatch task s3://bucket/wudao sign-000003
  lmbatch task --batch jobs/wudao/slurm-5d0c/123_4_batch.json --answer answer.json

The batch form is what an element of an array job runs inside a container. --batch names a JSON file
with what one element has to do: store, tasks, spool, and engine, heartbeat_seconds, patience, raw.
--answer gets {"failures": {TASK: {"message": ..., "final": true|false}}} (final: trying again cannot
help), or {"error": ..., "remedy": ...} if no task could be begun; a process that is killed leaves none.
With --lifeline the process ends when its standard input does, and leaves SIGTERM and SIGUSR2 alone:
what they mean is decided outside. What is done stands in the store's receipts, as in every form.
"""

_PATH = click.Path(dir_okay=False, path_type=Path)


@click.command(epilog=EPILOG)
@click.argument("store", required=False)
@click.argument("tasks", nargs=-1)
@click.option("--batch", type=_PATH, help="Do what this file says, instead of STORE and TASKS.")
@click.option("--answer", type=_PATH, help="Write here which tasks of the batch failed, and why.")
@click.option("--lifeline", is_flag=True, help="End when standard input does; leave SIGTERM and SIGUSR2 alone.")
def command(store: str | None, tasks: tuple[str, ...], batch: Path | None, answer: Path | None, lifeline: bool) -> None:
    """Do TASKS of the plan in STORE, here and now; those with a receipt are left alone."""
    if lifeline:
        hold_lifeline()
    if batch is not None and store is None:
        failures = do_batch(batch, answer)
    elif batch is None and answer is None and store is not None and tasks:
        failures = do_tasks(store, tasks)
    else:
        raise UsageError("name either STORE and TASKS, or --batch", remedy="see lmbatch task --help")
    if failures:
        raise TaskError("; ".join(f"{task_id}: {failure.message}" for task_id, failure in failures.items()))


def do_batch(path: Path, answer: Path | None) -> dict[str, TaskFailure]:
    """Do what the file says; what becomes of it is written to ``answer`` as well."""
    batch = read_batch(path)
    try:
        failures = batch.run_alone()
    except (LmbatchError, OSError) as error:
        if answer is not None:
            write_error(answer, error)
        raise
    if answer is not None:
        write_answer(answer, failures)
    return failures


def do_tasks(store: str, tasks: tuple[str, ...]) -> dict[str, TaskFailure]:
    """Do these tasks with what the stored plan says. Raises UsageError for one that the plan does not have."""
    target = open_store(store)
    plan = load_plan(target)
    stages = stages_of(plan)
    unknown = set(tasks) - {unit.id for stage in stages for unit in stage.units}
    if unknown:
        raise UsageError(
            f"the plan in {store} has no task {sorted(unknown)[0]}",
            remedy="it has " + ", ".join(f"{stage.units[0].id} to {stage.units[-1].id}" for stage in stages),
        )
    spool = spool_of(plan.config, plan)
    try:
        return TaskBatch(target.uri, tasks, str(spool)).run()
    finally:
        sweep_spool(spool)
