"""`lmbatch logs`: what a training job writes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import click

from lmbatch.checkpoint import is_locked
from lmbatch.launch.training import log_of
from lmbatch.train.attempts import read_attempts

EPILOG = """\b
Examples:
  lmbatch logs runs/gpt2_zh
  lmbatch logs runs/gpt2_zh --rank 3 --lines 200
  lmbatch logs runs/gpt2_zh --follow
"""
_POLL_SECONDS = 0.5


@click.command(epilog=EPILOG)
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--rank", type=click.IntRange(min=0), help="Only what this process wrote.")
@click.option("--lines", default=50, show_default=True, type=click.IntRange(min=0), help="Lines from the end.")
@click.option("--follow", "-f", is_flag=True, help="Go on as more is written, until the run ends.")
def command(run: Path, rank: int | None, lines: int, follow: bool) -> None:
    """Show the log of the job that trains RUN."""
    attempts = read_attempts(run)
    path = log_of(run, attempts[-1].job_id if attempts else None)
    with path.open(encoding="utf-8", errors="replace") as log:
        for line in deque((line for line in log if of_rank(line, rank)), maxlen=lines):
            click.echo(line, nl=False)
        for line in growing(log, run) if follow else ():
            if of_rank(line, rank):
                click.echo(line, nl=False)


def of_rank(line: str, rank: int | None) -> bool:
    """Did this process write the line? ``srun --label`` puts the number of the process and a colon in front."""
    return rank is None or line.partition(":")[0].strip() == str(rank)


def growing(log: TextIO, run: Path) -> Iterator[str]:
    """Lines as they are written, until nobody trains any more."""
    part = ""
    while True:
        busy = is_locked(run)
        while piece := log.readline():
            part += piece
            if part.endswith("\n"):
                yield part
                part = ""
        if not busy:
            return
        time.sleep(_POLL_SECONDS)
