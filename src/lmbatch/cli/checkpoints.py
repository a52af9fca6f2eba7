"""`lmbatch checkpoints`: list and verify those of a run."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from lmbatch.checkpoint import Checkpoints
from lmbatch.cli.common import human_bytes, json_option, print_json, print_table
from lmbatch.errors import EXIT_FAILED, UsageError
from lmbatch.store import open_store

EPILOG = """\b
Examples:
  lmbatch checkpoints list runs/gpt2_zh
  lmbatch checkpoints verify runs/gpt2_zh --step 2000
"""

run_argument = click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))


@click.group(epilog=EPILOG)
def command() -> None:
    """List or verify the checkpoints of a run."""


@command.command("list", epilog=EPILOG)
@run_argument
@json_option
def list_(run: Path, as_json: bool) -> None:
    """List the checkpoints in the folder RUN, by what their receipts say."""
    found = Checkpoints(open_store(str(run))).list()
    if as_json:
        print_json(
            [
                {
                    "step": item.step,
                    "state": item.state,
                    "detail": item.detail,
                    "bytes": item.bytes,
                    "files": item.files,
                    "saved_at": item.saved_at,
                    "facts": item.facts.model_dump() if item.facts else None,
                }
                for item in found
            ]
        )
        return
    print_table(
        ("step", "state", "size", "files", "saved", "samples", "detail"),
        [
            (
                item.step,
                item.state,
                human_bytes(item.bytes),
                item.files,
                f"{datetime.fromtimestamp(item.saved_at, UTC):%Y-%m-%d %H:%M:%S}Z" if item.saved_at else "",
                item.facts.samples_consumed if item.facts else "",
                item.detail,
            )
            for item in found
        ],
    )


@command.command(epilog=EPILOG)
@run_argument
@click.option("--step", type=int, help="Only this one; default: all.")
@json_option
def verify(run: Path, step: int | None, as_json: bool) -> None:
    """Re-read every byte of the checkpoints in RUN; exit code 0 only if all are right."""
    checkpoints = Checkpoints(open_store(str(run)))
    steps = [step] if step is not None else [item.step for item in checkpoints.list()]
    if not steps:
        raise UsageError(f"{run}: holds no checkpoint", remedy="give the folder of a run, such as runs/NAME")
    problems = {one: checkpoints.verify(one) for one in steps}
    if as_json:
        print_json({"run": str(run), "problems": problems, "right": not any(problems.values())})
    else:
        for one, found in problems.items():
            click.echo(f"step {one}: {'; '.join(found) or 'right'}")
    if any(problems.values()):
        sys.exit(EXIT_FAILED)
