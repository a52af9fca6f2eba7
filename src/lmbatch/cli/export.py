"""`lmbatch export`: a Hugging Face folder from a run."""

from __future__ import annotations

from pathlib import Path

import click

from lmbatch.cli.common import quiet_transformers

EPILOG = """\b
Examples:
  lmbatch export runs/gpt2_zh --out data/export/gpt2_zh
  lmbatch export runs/gpt2_zh --step 36000 --out data/export/gpt2_zh-36000
"""


@click.command(epilog=EPILOG)
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@click.option("--step", type=int, help="Export this checkpoint; default: the newest valid one.")
def command(run: Path, out: Path, step: int | None) -> None:
    """Write a folder that plain transformers loads, from the run folder RUN: with AutoModelForCausalLM, or of a masked
    model with AutoModelForMaskedLM."""
    from lmbatch.infer import export_model

    quiet_transformers()
    click.echo(f"exported: {export_model(run, out, step=step)}")
