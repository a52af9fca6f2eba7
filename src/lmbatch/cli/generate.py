"""`lmbatch generate`: text from an exported folder or a run."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from lmbatch.cli.common import json_option, print_json, quiet_transformers
from lmbatch.config import GenerateConfig
from lmbatch.config.load import build
from lmbatch.errors import UsageError

EPILOG = """\b
Examples:
  lmbatch generate data/export/demo -p "第一条 为了" --temperature 0.8 --top-k 50
  lmbatch generate runs/NAME -p 话说          # its newest valid checkpoint, also while it trains
  lmbatch generate data/export/demo -p 话说 -p 却说 --num-beams 5 --no-repeat-ngram-size 2 --json
  cat prompts.txt | lmbatch generate data/export/demo --prompts-from -
"""


@click.command(epilog=EPILOG)
@click.argument("folder", metavar="CKPT", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-p", "--prompt", "prompts", multiple=True, help="A prompt; may be given several times.")
@click.option("--prompts-from", type=click.File(encoding="utf-8"), help="A file with one prompt a line; - for stdin.")
@click.option("--max-new-tokens", type=int, default=100, show_default=True, help="Tokens generated at most.")
@click.option("--temperature", type=float, default=0.8, show_default=True, help="0 takes the likeliest token.")
@click.option("--top-k", type=int, default=50, show_default=True, help="Only the k likeliest tokens; 0: all.")
@click.option(
    "--top-p", type=float, default=1.0, show_default=True, help="Only the smallest set with this probability."
)
@click.option("--num-beams", type=int, default=1, show_default=True, help="Beam search with so many beams.")
@click.option("--early-stopping", is_flag=True, help="Beam search ends when as many texts as beams have ended.")
@click.option("--no-repeat-ngram-size", type=int, default=0, show_default=True, help="No n-gram of this size twice.")
@click.option("--repetition-penalty", type=float, default=1.0, show_default=True, help="Above 1: fewer repetitions.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the sampling.")
@json_option
def command(folder: Path, prompts: tuple[str, ...], prompts_from: object, as_json: bool, **settings: object) -> None:
    """Continue each prompt with the model in CKPT: an exported folder, a run, or a checkpoint of one."""
    lines = [line.rstrip("\n") for line in prompts_from] if prompts_from is not None else []  # type: ignore[attr-defined]
    given = [*prompts, *lines]
    if not given:
        raise UsageError("no prompt was given", remedy="use -p TEXT, or --prompts-from FILE")
    config = build(GenerateConfig, settings, "generate")
    from lmbatch.infer import load_for_generation

    quiet_transformers()
    texts = load_for_generation(folder).generate(given, config)
    if as_json:
        print_json([{"prompt": prompt, "text": text} for prompt, text in zip(given, texts, strict=True)])
        return
    sys.stdout.write("\n\n".join(texts) + "\n")
