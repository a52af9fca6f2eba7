"""`lmbatch report`: a corpus or a training run on one page."""

from __future__ import annotations

from pathlib import Path

import click

from lmbatch.cli.common import human_bytes, json_option, print_json, progress_bar
from lmbatch.errors import UsageError
from lmbatch.preprocess import CARD_KEY, load_plan, read_receipts, write_card
from lmbatch.report import corpus_page, corpus_report, is_run, run_page, run_report
from lmbatch.store import MANIFEST_KEY, Store, open_store, parse_manifest
from lmbatch.store.files import replacing, store_errors

EPILOG = """\b
Examples:
  lmbatch report runs/gpt2_zh
  lmbatch report runs/gpt2_zh --out gpt2_zh.html
  lmbatch report s3://bucket/wudao
  lmbatch report data/shards/demo --out demo.html
  lmbatch report data/shards/demo --json
  lmbatch report data/shards/demo --card

Of a run: loss, validation, learning rate, gradient norm, speed, every attempt on a line of time, position in the data,
checkpoints and sample texts; while it trains, too.

Works on a store that is not finished too: it tells what is done so far. Reads the plan, the receipts and what the
tasks noted; the shards are not read. The page needs no network and runs no script. The data
card (DATA_CARD.md) is written beside the manifest when a corpus is finished; what you write into it stays, until
--card replaces it.
"""


@click.command(epilog=EPILOG)
@click.argument("place")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default="report.html",
    show_default=True,
    help="File that the page is written to.",
)
@click.option("--card", is_flag=True, help="Write the data card into the store anew, and nothing else.")
@json_option
def command(place: str, out: Path, card: bool, as_json: bool) -> None:
    """Show PLACE, a corpus in its store or the folder of a run, as one HTML file that needs nothing else."""
    if is_run(Path(place)):
        if card:
            raise UsageError(f"{place}: is a run; --card is of a corpus")
        _show_run(Path(place), out, as_json)
    else:
        _show_corpus(place, out, card, as_json)


def _show_run(run: Path, out: Path, as_json: bool) -> None:
    report = run_report(run)
    if as_json:
        print_json(report.status.to_dict())
        return
    written = write_page(out, run_page(report))
    click.echo(f"{out}: {human_bytes(written)}, run {report.name}, {report.state} at step {report.status.step:,}")


def write_page(out: Path, text: str) -> int:
    """Write it whole or not at all; its size in bytes."""
    page = text.encode()
    with store_errors("write", str(out)), replacing(out) as file:
        file.write(page)
    return len(page)


def _show_corpus(store: str, out: Path, card: bool, as_json: bool) -> None:
    if card:
        click.echo(write_data_card(open_store(store)))
        return
    with progress_bar("report", "tasks") as update:
        report = corpus_report(open_store(store), lambda done, total: update(done, total, ""))
    if as_json:
        print_json(report.to_dict())
        return
    written = write_page(out, corpus_page(report))
    state = "finished" if report.finished else f"not finished: {report.tasks_done} of {report.tasks} tasks"
    click.echo(f"{out}: {human_bytes(written)}, corpus {report.plan.config.corpus.name}, {state}")


def write_data_card(store: Store) -> str:
    """Write it anew, and give its place. Raises ObjectNotFoundError for a store without a manifest."""
    plan = load_plan(store)
    manifest = parse_manifest(store.read(MANIFEST_KEY), store.where(MANIFEST_KEY))
    engines = [receipt.engine for receipt in read_receipts(store, plan.tasks).values()]
    write_card(store, plan, manifest, engines, anew=True)
    return store.where(CARD_KEY)
