"""`lmbatch train`: become the training process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from lmbatch.cli.common import config_option, set_option

EPILOG = """\b
Examples:
  lmbatch train --config configs/train/demo.yaml
  lmbatch train --accelerate configs/accelerate/single_3090.yaml --config configs/train/gpt2_zh.yaml
  lmbatch train --config configs/train/demo.yaml --set batch.micro=4 --set run.name=small

SIGTERM, SIGINT and SIGUSR2 stop it after saving (exit code 75); the same command resumes. This is the form whose
exit code a script can trust: under `accelerate launch` the launcher turns 75 into 1.
"""


@click.command(epilog=EPILOG)
@config_option
@click.option(
    "--accelerate", "accelerate_config", type=click.Path(exists=True, dir_okay=False), help="An accelerate config file."
)
@set_option
def command(config_path: str, accelerate_config: str | None, sets: tuple[str, ...]) -> None:
    """Train a model; run it again to resume."""
    arguments = ["--config", config_path]
    for item in sets:
        arguments += ["--set", item]
    if accelerate_config is not None:
        from lmbatch.train.launcher import exec_training

        exec_training(Path(accelerate_config), arguments)
    os.execv(sys.executable, [sys.executable, "-m", "lmbatch.train", *arguments])  # noqa: S606
