"""`lmbatch verify`: believe nothing but the bytes."""

from __future__ import annotations

import sys

import click

from lmbatch.cli.common import human_bytes, json_option, print_json, progress_bar
from lmbatch.errors import EXIT_FAILED
from lmbatch.preprocess import StoreReport, verify_store
from lmbatch.store import open_store

EPILOG = """\b
Examples:
  lmbatch verify s3://bucket/wudao
  lmbatch verify data/shards/demo --json

Exit code 0 only if every byte is right; 1 otherwise.
"""


@click.command(epilog=EPILOG)
@click.argument("store")
@click.option("--workers", type=click.IntRange(min=1), default=4, show_default=True, help="Readers at a time.")
@json_option
def command(store: str, workers: int, as_json: bool) -> None:
    """Re-read every byte of STORE against its receipts and manifest."""
    report = check(store, workers)
    print_json(report.to_dict()) if as_json else print_report(report)
    if not report.right:
        sys.exit(EXIT_FAILED)


def check(store: str, workers: int) -> StoreReport:
    """Verify with a progress bar."""
    with progress_bar("verify", "tasks") as update:
        return verify_store(open_store(store), workers=workers, progress=lambda done, total: update(done, total, ""))


def print_report(report: StoreReport) -> None:
    """Problems by task, then the verdict."""
    for place, problems in sorted(report.problems.items()):
        for problem in problems:
            click.echo(f"{place}: {problem}")
    if report.right:
        click.echo(
            f"right: {report.tasks} receipts, {report.shards} shards, {report.tokens:,} tokens, "
            f"{human_bytes(report.bytes_read)} re-read; digest: {report.digest}"
        )
    else:
        count = sum(len(problems) for problems in report.problems.values())
        click.echo(f"wrong: {count} problems in {report.uri}; `lmbatch repair {report.uri}` does the bad tasks again")
