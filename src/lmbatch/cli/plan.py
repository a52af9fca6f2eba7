"""`lmbatch plan`: what a job would do."""

from __future__ import annotations

import click

from lmbatch.cli.common import config_option, human_bytes, json_option, print_json, print_table, set_option
from lmbatch.cli.preprocess import overrides
from lmbatch.config import PreprocessConfig, load_config
from lmbatch.launch import open_target
from lmbatch.preprocess import Plan, make_plan

EPILOG = """\b
Example:
  lmbatch plan preprocess --config configs/corpora/wudao.yaml --raw /data/WuDao
"""


@click.group()
def command() -> None:
    """Say what a job would do, before it is run."""


@command.command(epilog=EPILOG)
@config_option
@click.option("--raw", help="Folder or URI of the input files (instead of corpus.raw).")
@click.option("--store", help="Where shards would go (instead of store).")
@click.option("--tokenizer", help="Tokenizer folder (instead of tokenizer.path).")
@set_option
@json_option
def preprocess(
    config_path: str,
    raw: str | None,
    store: str | None,
    tokenizer: str | None,
    sets: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show the files and tasks of a preprocessing job; nothing is written."""
    config = load_config(PreprocessConfig, config_path, [*overrides(raw, store, tokenizer), *sets])
    plan, _ = make_plan(config)
    if as_json:
        print_json(summary(plan) | {"store": open_target(config).uri})
        return
    tasks = [
        sum(piece.file == number for task in plan.tasks for piece in task.pieces) for number in range(len(plan.files))
    ]
    print_table(
        ("file", "size", "pieces"),
        [(file.path, human_bytes(file.size), count) for file, count in zip(plan.files, tasks, strict=True)],
    )
    click.echo(
        f"{len(plan.files)} files, {human_bytes(plan.input_bytes)}, {len(plan.tasks)} tasks, "
        f"{plan.dtype} tokens, {plan.fingerprint}"
    )


def summary(plan: Plan) -> dict[str, object]:
    """For ``--json``."""
    return {
        "corpus": plan.config.corpus.name,
        "files": [{"path": file.path, "size": file.size} for file in plan.files],
        "input_bytes": plan.input_bytes,
        "tasks": len(plan.tasks),
        "dtype": plan.dtype,
        "fingerprint": plan.fingerprint,
    }
