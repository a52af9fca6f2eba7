"""`lmbatch status`: how far something is."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import click

from lmbatch.cli.common import human_bytes, human_seconds, json_option, print_json, print_table
from lmbatch.cli.estimate import print_rows
from lmbatch.cli.show_store import print_store
from lmbatch.launch.training import job_of, told_by_slurm
from lmbatch.report import RunStatus, StoreStatus, StoreWatcher, is_run, run_status
from lmbatch.store import open_store

EPILOG = """\b
Examples:
  lmbatch status runs/gpt2_zh
  lmbatch status s3://bucket/wudao --json
  lmbatch status s3://bucket/wudao --watch        again every 5 seconds, until the manifest is written
  lmbatch status s3://bucket/wudao --watch 60 --json      a line of JSON each time
"""


@click.command(epilog=EPILOG)
@click.argument("place")
@click.option(
    "--watch",
    type=click.FloatRange(min=0.1),
    is_flag=False,
    flag_value=5.0,
    metavar="[SECONDS]",
    help="Look again and again (a store, until its manifest is written).",
)
@json_option
def command(place: str, watch: float | None, as_json: bool) -> None:
    """Show how far PLACE is: the folder of a run, or the store of a preprocessed corpus."""
    store = None if is_run(Path(place)) else StoreWatcher(open_store(place))
    while True:
        status = store.look() if store else with_job(run_status(Path(place)))
        show(status, as_json, watching=watch is not None)
        if watch is None or (isinstance(status, StoreStatus) and status.digest):
            return
        time.sleep(watch)


def with_job(status: RunStatus) -> RunStatus:
    """The same with what Slurm says of the job and of attempts that died, where there is one."""
    job = job_of(Path(status.run), status.attempts[-1].job_id)
    attempts = tuple(told_by_slurm(status.attempts))
    return replace(status, attempts=attempts, job=None if job is None else asdict(job))


def show(status: RunStatus | StoreStatus, as_json: bool, *, watching: bool) -> None:
    """On stdout; who watches on a terminal sees the newest only, and in JSON a line for each."""
    if as_json and watching:
        click.echo(json.dumps(status.to_dict(), ensure_ascii=False))
        return
    if as_json:
        print_json(status.to_dict())
        return
    if watching:
        click.clear()  # does nothing where stdout is no terminal
    print_store(status) if isinstance(status, StoreStatus) else print_run(status)


def print_run(status: RunStatus) -> None:
    """Where the run is, then a line for every attempt: the proof of what was lost."""
    whole = f" of {status.steps}" if status.steps else ""
    left = f", {human_seconds(status.seconds_left)} left" if status.seconds_left else ""
    click.echo(f"{status.run}: step {status.step}{whole}{left}; {status.steps_lost} steps lost in all")
    if status.job is not None:
        click.echo("job {id}: {state} ({reason}) on {nodes}, {left} left of its time limit".format(**status.job))
    if status.loss is not None:
        validation = f", validation {status.validation_loss:.4f}" if status.validation_loss is not None else ""
        click.echo(f"loss {status.loss:.4f}{validation}; {status.tokens_per_second or 0:,.0f} tokens/s")
    if status.steps_skipped:
        click.echo(
            f"{status.steps_skipped} steps skipped by the guards, the last one {status.last_skipped}: "
            f"{status.last_skipped_why}"
        )
    print_table(
        ("attempt", "job", "world", "from", "to", "saved", "first step", "why it ended", "lost"),
        [
            (
                number,
                attempt.job_id or attempt.pid,
                attempt.world_size,
                attempt.resumed_from or 0,
                "" if attempt.last_step is None else attempt.last_step,
                "" if attempt.last_saved_step is None else attempt.last_saved_step,
                f"{attempt.seconds_to_first_step:.1f} s" if attempt.seconds_to_first_step is not None else "",
                " ".join(filter(None, (attempt.why or "running, or died unnoticed", attempt.detail)))[:60],
                attempt.steps_lost,
            )
            for number, attempt in enumerate(status.attempts, start=1)
        ],
    )
    kept = ", ".join(f"{item.step} ({item.state}, {human_bytes(item.bytes)})" for item in status.checkpoints)
    click.echo(f"checkpoints: {kept or 'none'}")
    if status.foretold:
        print_rows(status.foretold)
