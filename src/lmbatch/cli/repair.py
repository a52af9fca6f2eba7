"""`lmbatch repair`: verify, withdraw what fails, do it again."""

from __future__ import annotations

import os
import sys

import click

from lmbatch.cli.common import json_option, print_json
from lmbatch.cli.preprocess import overrides
from lmbatch.cli.verify import check, print_report
from lmbatch.config.load import apply_sets, build
from lmbatch.config.preprocess import PreprocessConfig
from lmbatch.errors import EXIT_FAILED
from lmbatch.launch import LocalBackend, run_preprocess
from lmbatch.preprocess import load_plan, make_plan, repair_store, stages_of, store_plan
from lmbatch.store import open_store

EPILOG = """\b
Examples:
  lmbatch repair s3://bucket/wudao
  lmbatch repair data/shards/demo --dry-run

The input files must still be where the plan found them (or under --raw), unchanged.
"""


@click.command(epilog=EPILOG)
@click.argument("store")
@click.option("--raw", help="Where the input files lie now.")
@click.option("--tokenizer", help="Where the tokenizer folder lies now.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes at a time; default: the cores of this machine.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done again.")
@json_option
def command(
    store: str, raw: str | None, tokenizer: str | None, workers: int | None, dry_run: bool, as_json: bool
) -> None:
    """Do again only the tasks of STORE that fail verification."""
    target = open_store(store)
    plan = load_plan(target)
    before = check(store, 4)
    if before.right or dry_run:
        print_json(before.to_dict()) if as_json else print_report(before)
        sys.exit(0 if before.right else EXIT_FAILED)
    settings = apply_sets(plan.config.model_dump(mode="json"), overrides(raw, target.uri, tokenizer))
    config = build(PreprocessConfig, settings, f"{store}/plan.json")
    # Nothing is withdrawn before it is known that it can be made again: same input, same tokenizer, same plan.
    store_plan(target, *make_plan(config))
    count = workers or len(os.sched_getaffinity(0))
    withdrawn: list[str] = []
    after = before
    # Mostly once. More only if a stage that is done again comes out otherwise: then what stands on it follows.
    for _ in stages_of(plan):
        withdrawn += repair_store(target, plan, after).tasks
        run_preprocess(config, lambda folder: LocalBackend(folder, count))
        after = check(store, 4)
        if after.right:
            break
    if as_json:
        print_json({"withdrawn": withdrawn, "before": before.to_dict(), "after": after.to_dict()})
    else:
        click.echo(f"done again: {len(withdrawn)} tasks {' '.join(withdrawn[:10])}".rstrip())
        print_report(after)
    sys.exit(0 if after.right else EXIT_FAILED)
