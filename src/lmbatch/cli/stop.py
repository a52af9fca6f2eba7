"""`lmbatch stop`: save, and end for good."""

from __future__ import annotations

from pathlib import Path

import click

from lmbatch.cli.common import stderr
from lmbatch.launch.training import stop_run

EPILOG = """\b
Example:
  lmbatch stop runs/gpt2_zh

The run finishes its step, saves and ends; a Slurm job is not requeued. The command that started it goes on later.
"""


@click.command(epilog=EPILOG)
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--timeout", default=600.0, show_default=True, help="Seconds to wait for the end.")
def command(run: Path, timeout: float) -> None:
    """Let the training of RUN save and stop, wherever it runs, and wait until it has."""
    with stderr.status("waiting for the end of the step") as line:
        done = stop_run(run, seconds=timeout, on_wait=lambda passed: line.update(f"waiting ({passed:.0f} s)"))
    click.echo(f"{run}: {done}")
