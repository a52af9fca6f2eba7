"""`lmbatch config`: what a config resolves to, and the reference of every key."""

from __future__ import annotations

import click

from lmbatch.cli.common import json_option, print_json, set_option
from lmbatch.config import dump_yaml, fingerprint, load_config
from lmbatch.config.reference import ROOTS, reference_markdown

EPILOG = """\b
Examples:
  lmbatch config show configs/train/demo.yaml --kind train
  lmbatch config show configs/corpora/demo.yaml --kind preprocess --set tasks.bytes=1MiB
  lmbatch config reference > configs/REFERENCE.md
"""


@click.group(epilog=EPILOG)
def command() -> None:
    """Show a resolved config, or the reference of every key."""


@command.command(epilog=EPILOG)
@click.argument("path")
@click.option("--kind", type=click.Choice(list(ROOTS)), required=True, help="What the config is for.")
@set_option
@json_option
def show(path: str, kind: str, sets: tuple[str, ...], as_json: bool) -> None:
    """Print the config in PATH with its parents, defaults and --set filled in, and its fingerprint."""
    config = load_config(ROOTS[kind], path, sets)
    if as_json:
        print_json({"config": config.model_dump(mode="json"), "fingerprint": fingerprint(config)})
    else:
        click.echo(f"# {fingerprint(config)}\n{dump_yaml(config)}", nl=False)


@command.command()
def reference() -> None:
    """Print the reference of every key as Markdown."""
    click.echo(reference_markdown(), nl=False)
