"""`lmbatch checkpoints`: what a run has saved, in its folder or in the store that it is copied to."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from lmbatch.cli.checkpoint_place import Place, rule_of
from lmbatch.cli.common import human_bytes, json_option, print_json, print_table, progress_bar, quiet_transformers
from lmbatch.errors import EXIT_FAILED, UsageError

EPILOG = """\b
Examples:
  lmbatch checkpoints list runs/gpt2_zh
  lmbatch checkpoints list s3://bucket/runs/gpt2_zh
  lmbatch checkpoints verify runs/gpt2_zh --step 2000
  lmbatch checkpoints pin runs/gpt2_zh --step 2000 --note "as in the paper"
  lmbatch checkpoints prune runs/gpt2_zh --keep 3 --keep-best 1 --dry-run
  lmbatch checkpoints export s3://bucket/runs/gpt2_zh --step 2000 --out data/export/gpt2_zh-2000

RUN is a run's folder, or its copy: save.store of its config, a slash, and its name.
"""

PRUNE_EPILOG = """\b
Examples:
  lmbatch checkpoints prune runs/gpt2_zh --dry-run
  lmbatch checkpoints prune s3://bucket/runs/gpt2_zh --keep 2 --keep-every 10000 --keep-best 1

What stays is said by save.keep, save.keep_every and save.keep_best of the run's config, as far as no flag says
otherwise; pinned ones always do. In a folder a run that is being trained is refused, for it prunes by itself. In a
store it is safe beside one: only checkpoints that have a receipt are deleted, the receipt first, never what is being
copied at the moment. A checkpoint in a folder counts as one of the newest only if every byte of it is right, in a store
if every file has its size (--verify: every byte, which is downloaded).
"""

EXPORT_EPILOG = """\b
Examples:
  lmbatch checkpoints export runs/gpt2_zh --step 2000 --out data/export/gpt2_zh-2000
  lmbatch checkpoints export s3://bucket/runs/gpt2_zh --out data/export/gpt2_zh
"""

run_argument = click.argument("run", metavar="RUN")


def step_option(required: bool, text: str) -> Callable[..., Any]:
    """--step."""
    return click.option("--step", type=click.IntRange(min=0), required=required, help=text)


@click.group(epilog=EPILOG)
def command() -> None:
    """List, verify, pin, prune or export the checkpoints of a run."""


@command.command("list", epilog=EPILOG)
@run_argument
@json_option
def list_(run: str, as_json: bool) -> None:
    """List the checkpoints of RUN, by their receipts and the sizes of their files, and why each is kept."""
    found = Place.open(run).listed()
    if as_json:
        print_json([asdict(item) | {"facts": item.facts.model_dump() if item.facts else None} for item in found])
        return
    print_table(
        ("step", "state", "size", "files", "saved", "samples", "validation loss", "kept", "detail"),
        [
            (
                item.step,
                item.state,
                human_bytes(item.bytes),
                item.files,
                f"{datetime.fromtimestamp(item.saved_at, UTC):%Y-%m-%d %H:%M:%S}Z" if item.saved_at else "",
                item.facts.samples_consumed if item.facts else "",
                "" if item.validation_loss is None else f"{item.validation_loss:.4f}",
                ", ".join(item.kept),
                item.detail,
            )
            for item in found
        ],
    )


@command.command(epilog=EPILOG)
@run_argument
@step_option(False, "Only this one; default: all.")
@json_option
def verify(run: str, step: int | None, as_json: bool) -> None:
    """Re-read every byte of the checkpoints of RUN; exit code 0 only if all are right."""
    place = Place.open(run)
    steps = [step] if step is not None else sorted(place.inventory.receipts)
    if not steps:
        raise UsageError(f"{run}: holds no checkpoint", remedy="give the folder of a run, such as runs/NAME")
    with progress_bar("verifying", "B") as update:
        problems = place.verify(steps, update)
    if as_json:
        print_json({"run": run, "problems": problems, "right": not any(problems.values())})
    else:
        for one, found in problems.items():
            click.echo(f"step {one}: {'; '.join(found) or 'right'}")
    if any(problems.values()):
        sys.exit(EXIT_FAILED)


@command.command(epilog=EPILOG)
@run_argument
@step_option(True, "The checkpoint.")
@click.option("--note", default="", help="Why.")
def pin(run: str, step: int, note: str) -> None:
    """Keep a checkpoint of RUN whatever the rule says, here and in the store that the run is copied to."""
    for place in Place.open(run).pinned_too(step):
        place.pin(step, note)
        click.echo(f"pinned: step {step} in {place.store.uri}")


@command.command(epilog=EPILOG)
@run_argument
@step_option(True, "The checkpoint.")
def unpin(run: str, step: int) -> None:
    """Let the rule decide again; nothing is deleted before the next save or prune."""
    for place in Place.open(run).pinned_too(step):
        place.unpin(step)
        click.echo(f"unpinned: step {step} in {place.store.uri}")


@command.command(epilog=PRUNE_EPILOG)
@run_argument
@click.option("--keep", type=click.IntRange(min=2), help="The newest valid ones.")
@click.option("--keep-every", type=click.IntRange(min=0), help="Those whose step is a multiple of this; 0: none.")
@click.option("--keep-best", type=click.IntRange(min=0), help="Those with the lowest validation loss; 0: none.")
@click.option("--verify", "thorough", is_flag=True, help="In a store: download the newest and check every byte.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@json_option
def prune(
    run: str,
    keep: int | None,
    keep_every: int | None,
    keep_best: int | None,
    thorough: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Delete the checkpoints of RUN that there is no reason to keep."""
    place = Place.open(run)
    rule = rule_of(place, keep, keep_every, keep_best)
    with place.held(dry_run), progress_bar("verifying", "B") as update:
        reasons, gone = place.prune(rule, update, thorough=thorough, dry_run=dry_run)
    if as_json:
        print_json({"run": run, "dry_run": dry_run, "deleted": list(gone), "kept": reasons})
        return
    for step, why in reasons.items():
        click.echo(f"step {step}: kept, {', '.join(why)}")
    for step in gone:
        click.echo(f"step {step}: {'would be deleted' if dry_run else 'deleted'}")


@command.command(epilog=EXPORT_EPILOG)
@run_argument
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@step_option(False, "The checkpoint; default: the newest valid one.")
def export(run: str, out: Path, step: int | None) -> None:
    """Write a checkpoint's weights as a folder that plain transformers loads."""
    from lmbatch.infer import export_model

    place = Place.open(run)
    with progress_bar("fetching", "B") as update, place.on_disk(step, update, out.parent) as folder:
        quiet_transformers()
        click.echo(f"exported: {export_model(folder, out, step=step)}")
