"""`lmbatch plan`: what a job would do, and what it would cost."""

from __future__ import annotations

import time

import click

from lmbatch.cli.common import (
    config_option,
    human_bytes,
    json_option,
    print_json,
    print_table,
    progress_bar,
    set_option,
)
from lmbatch.cli.estimate import print_estimate
from lmbatch.cli.plan_train import train
from lmbatch.cli.preprocess import load_site, on_option, overrides, site_option, workers_option
from lmbatch.config import PreprocessConfig, load_config
from lmbatch.config.base import parse_bytes
from lmbatch.errors import UsageError
from lmbatch.launch import open_target
from lmbatch.launch.estimate import PROBE_BYTES, Estimate, estimate_by_probe
from lmbatch.launch.place import Place, at_site, place_of
from lmbatch.preprocess import Plan, make_plan, store_plan
from lmbatch.preprocess.estimate import save_estimate
from lmbatch.tokens import TextTokenizer

EPILOG = """\b
Examples:
  lmbatch plan preprocess --config configs/corpora/wudao.yaml --raw /data/WuDao
  lmbatch plan preprocess --config configs/corpora/wudao.yaml --on slurm --site configs/sites/example.yaml
  lmbatch plan preprocess --config configs/corpora/wudao.yaml --store s3://bucket/wudao --save
  lmbatch plan preprocess --config configs/corpora/wudao.yaml --no-probe

The probe does the real work on about eight small ranges spread over the input, in ten seconds or so, and throws the
result away; where the config drops duplicates it signs and compares these ranges too, in as much time again. With
--save the plan and what was said go into the store; `lmbatch status` compares it with what happens.
"""
_SHOWN_FILES = 20


@click.group()
def command() -> None:
    """Say what a job would do, before it is run."""


command.add_command(train)


@command.command(epilog=EPILOG)
@config_option
@click.option("--raw", help="Folder or URI of the input files (instead of corpus.raw).")
@click.option("--store", help="Where shards would go (instead of store).")
@click.option("--tokenizer", help="Tokenizer folder (instead of tokenizer.path).")
@on_option
@site_option
@workers_option
@click.option("--probe-bytes", help=f"How much of the input to probe; default: {human_bytes(PROBE_BYTES)}.")
@click.option("--no-probe", is_flag=True, help="Only list and cut the input.")
@click.option("--save", is_flag=True, help="Keep the plan and the estimate in the store.")
@set_option
@json_option
def preprocess(
    config_path: str,
    raw: str | None,
    store: str | None,
    tokenizer: str | None,
    on: str | None,
    site: str | None,
    workers: int | None,
    probe_bytes: str | None,
    no_probe: bool,
    save: bool,
    sets: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show the files and tasks of a preprocessing job and what it would cost; nothing is written without --save."""
    if save and no_probe:
        raise UsageError("--save keeps what the probe says", remedy="leave out --no-probe")
    begun = time.monotonic()
    where = load_site(site)
    config = at_site(load_config(PreprocessConfig, config_path, [*overrides(raw, store, tokenizer), *sets]), where)
    place = place_of(where, on, workers)
    plan, loaded = make_plan(config)
    seconds = time.monotonic() - begun
    estimate = None if no_probe else _probe(plan, loaded, place, _size(probe_bytes), seconds)
    if save and estimate is not None:
        target = open_target(config)
        store_plan(target, plan, loaded)
        save_estimate(target, estimate)
    if as_json:
        probed = estimate.model_dump(mode="json") if estimate is not None else None
        print_json(summary(plan, loaded) | {"store": open_target(config).uri, "estimate": probed})
        return
    print_plan(plan)
    if loaded.origin:
        click.echo(f"tokenizer from the hub: {loaded.origin}")
    if estimate is not None:
        print_estimate(estimate)


def _probe(plan: Plan, tokenizer: TextTokenizer, place: Place, size: int, seconds: float) -> Estimate:
    with progress_bar("probe", "ranges") as update:
        return estimate_by_probe(
            plan,
            tokenizer,
            place,
            open_target(plan.config),
            driver_seconds=seconds,
            total_bytes=size,
            on_progress=lambda done, total: update(done, total, f"{done} of {total} ranges"),
        )


def _size(text: str | None) -> int:
    try:
        size = parse_bytes(text) if text is not None else PROBE_BYTES
    except ValueError as error:
        raise UsageError(f"--probe-bytes: {error}") from None
    if not isinstance(size, int) or size < 1:
        raise UsageError("--probe-bytes must be at least 1")
    return size


def print_plan(plan: Plan) -> None:
    """The files and their pieces; the first ones where there are many."""
    pieces = [0] * len(plan.files)
    for task in plan.tasks:
        for piece in task.pieces:
            pieces[piece.file] += 1
    rows = [(file.path, human_bytes(file.size), count) for file, count in zip(plan.files, pieces, strict=True)]
    print_table(("file", "size", "pieces"), rows[:_SHOWN_FILES])
    if len(rows) > _SHOWN_FILES:
        click.echo(f"… and {len(rows) - _SHOWN_FILES:,} more files")
    click.echo(
        f"{len(plan.files):,} files, {human_bytes(plan.input_bytes)}, {len(plan.tasks):,} tasks, "
        f"{plan.dtype} tokens, {plan.fingerprint}"
    )


def summary(plan: Plan, tokenizer: TextTokenizer) -> dict[str, object]:
    """For ``--json``."""
    return {
        "corpus": plan.config.corpus.name,
        "files": [{"path": file.path, "size": file.size} for file in plan.files],
        "input_bytes": plan.input_bytes,
        "tasks": len(plan.tasks),
        "dtype": plan.dtype,
        "tokenizer": {"fingerprint": tokenizer.fingerprint, "size": tokenizer.size, "hub": tokenizer.origin},
        "fingerprint": plan.fingerprint,
    }
