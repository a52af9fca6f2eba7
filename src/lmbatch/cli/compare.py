"""`lmbatch compare`: are two runs the same, bit for bit?"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from lmbatch.cli.common import json_option, print_json
from lmbatch.cli.report import write_page
from lmbatch.errors import EXIT_FAILED
from lmbatch.report import compare_runs, run_report, runs_page

EPILOG = """\b
Examples:
  lmbatch compare runs/straight runs/interrupted
  lmbatch compare runs/lr-3e-4 runs/lr-1e-3 --out compared.html

The page lays their curves over each other and names every setting that differs.
Exit code 0 if every step has the same samples, tokens, loss, gradient norm and learning rate, bit for bit; 1 if not.
"""


@click.command(epilog=EPILOG)
@click.argument("first", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("second", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write a page (HTML) with both as well.")
@json_option
def command(first: Path, second: Path, out: Path | None, as_json: bool) -> None:
    """Compare the runs in FIRST and SECOND step by step."""
    found = compare_runs(first, second)
    if out is not None:
        write_page(out, runs_page(run_report(first), run_report(second), found))
    if as_json:
        print_json(found.to_dict())
    else:
        click.echo(f"steps    {found.steps_first} and {found.steps_second}, {found.steps_compared} compared")
        click.echo(f"samples  {'the same, in the same order' if found.same_samples else 'DIFFERENT'}")
        bits = "the same, bit for bit" if found.same_losses else "DIFFERENT"
        click.echo(f"losses   {bits} (largest difference {found.largest_loss_difference:g})")
        click.echo(f"evaluations {'the same, bit for bit' if found.same_evaluations else 'DIFFERENT'}")
        if found.first_difference:
            click.echo(f"first difference: {found.first_difference}")
    if not found.equal:
        sys.exit(EXIT_FAILED)
