"""`lmbatch fill-mask`: the likeliest tokens for the masks of a text."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmbatch.cli.common import json_option, print_json, print_table, quiet_transformers
from lmbatch.errors import UsageError

if TYPE_CHECKING:
    from lmbatch.infer import Filled

EPILOG = """\b
Examples:
  lmbatch fill-mask data/export/s1_roberta -p "Human thinking involves human <mask>."
  lmbatch fill-mask data/export/s1_roberta -p "The <mask> of pure <mask>." --top-k 3 --json
  cat prompts.txt | lmbatch fill-mask data/export/s1_roberta --prompts-from -
"""


@click.command(epilog=EPILOG)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-p", "--prompt", "prompts", multiple=True, help="A text with masks; may be given several times.")
@click.option("--prompts-from", type=click.File(encoding="utf-8"), help="A file with one text a line; - for stdin.")
@click.option("--top-k", default=5, show_default=True, type=click.IntRange(1, 1000), help="Tokens for each mask.")
@json_option
def command(folder: Path, prompts: tuple[str, ...], prompts_from: object, top_k: int, as_json: bool) -> None:
    """Say what the masked model in FOLDER (written by `lmbatch export`) puts in place of each mask."""
    lines = [line.rstrip("\n") for line in prompts_from] if prompts_from is not None else []  # type: ignore[attr-defined]
    given = [*prompts, *lines]
    if not given:
        raise UsageError("no prompt was given", remedy="use -p TEXT, or --prompts-from FILE")
    from lmbatch.infer import MaskFiller

    quiet_transformers()
    found = MaskFiller.from_folder(folder).fill(given, top_k=top_k)
    if as_json:
        print_json([_plain(filled) for filled in found])
        return
    for number, filled in enumerate(found):
        click.echo(("\n" if number else "") + filled.best)
        print_table(("mask", "token", "probability"), _rows(filled))


def _plain(filled: Filled) -> dict[str, Any]:
    masks = [[asdict(choice) for choice in choices] for choices in filled.masks]
    return {"prompt": filled.prompt, "best": filled.best, "text": filled.text, "masks": masks}


def _rows(filled: Filled) -> list[tuple[object, ...]]:
    return [
        (number, repr(choice.token), f"{choice.probability:.4f}")
        for number, choices in enumerate(filled.masks, 1)
        for choice in choices
    ]
