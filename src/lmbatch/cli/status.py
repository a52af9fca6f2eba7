"""`lmbatch status`: how far something is."""

from __future__ import annotations

from pathlib import Path

import click

from lmbatch.cli.common import human_bytes, human_seconds, json_option, print_json, print_table
from lmbatch.cli.preprocess import reasons, thrown_away
from lmbatch.report import RunStatus, StoreStatus, run_status, store_status
from lmbatch.store import open_store

EPILOG = """\b
Examples:
  lmbatch status runs/gpt2_zh
  lmbatch status s3://bucket/wudao --json
"""


@click.command(epilog=EPILOG)
@click.argument("place")
@json_option
def command(place: str, as_json: bool) -> None:
    """Show how far PLACE is: the folder of a run, or the store of a preprocessed corpus."""
    if (Path(place) / "attempts.jsonl").is_file():
        run = run_status(Path(place))
        print_json(run.to_dict()) if as_json else print_run(run)
    else:
        store = store_status(open_store(place))
        print_json(store.to_dict()) if as_json else print_store(store)


def print_run(status: RunStatus) -> None:
    """Where the run is, then a line for every attempt: the proof of what was lost."""
    whole = f" of {status.steps}" if status.steps else ""
    left = f", {human_seconds(status.seconds_left)} left" if status.seconds_left else ""
    click.echo(f"{status.run}: step {status.step}{whole}{left}; {status.steps_lost} steps lost in all")
    if status.loss is not None:
        validation = f", validation {status.validation_loss:.4f}" if status.validation_loss is not None else ""
        click.echo(f"loss {status.loss:.4f}{validation}; {status.tokens_per_second or 0:,.0f} tokens/s")
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


def print_store(status: StoreStatus) -> None:
    """Tasks, input and the ledger so far."""
    ledger = status.ledger
    click.echo(f"{status.store}: corpus {status.corpus}, {status.tasks_done} of {status.tasks} tasks done")
    click.echo(
        f"input {human_bytes(status.input_bytes_done)} of {human_bytes(status.input_bytes)}; "
        f"{status.tokens:,} tokens; written by {', '.join(status.engines) or 'nobody yet'}"
    )
    if len(status.stages) > 1:
        done = (f"{stage.name} {stage.tasks_done:,} of {stage.tasks:,}" for stage in status.stages)
        click.echo(f"stages: {', '.join(done)}")
    parts = (
        f"{ledger.records:,} records = {ledger.documents_out:,} documents",
        f"{ledger.records_dropped:,} dropped {reasons(ledger.dropped)}".rstrip(),
        f"{ledger.records_quarantined:,} quarantined {reasons(ledger.quarantined)}".rstrip(),
    )
    click.echo(" + ".join(parts))
    if ledger.changed:
        click.echo(f"changed by cleaning {reasons(ledger.changed)}")
    if ledger.tokens is not None:
        click.echo(f"tokens {thrown_away(ledger.tokens)}")
    click.echo(f"manifest: {status.digest or 'not written yet'}")
