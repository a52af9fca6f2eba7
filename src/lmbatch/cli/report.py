"""`lmbatch report`: a corpus on one page."""

from __future__ import annotations

from pathlib import Path

import click

from lmbatch.cli.common import human_bytes, json_option, print_json, progress_bar
from lmbatch.preprocess import CARD_KEY, load_plan, read_receipts, write_card
from lmbatch.report import corpus_page, corpus_report
from lmbatch.store import MANIFEST_KEY, Store, open_store, parse_manifest
from lmbatch.store.files import replacing, store_errors

EPILOG = """\b
Examples:
  lmbatch report s3://bucket/wudao
  lmbatch report data/shards/demo --out demo.html
  lmbatch report data/shards/demo --json
  lmbatch report data/shards/demo --card

Works on a store that is not finished too: it tells what is done so far. Reads the plan, the receipts and what the
tasks noted; the shards are not read. The page needs no network and runs no script. The data
card (DATA_CARD.md) is written beside the manifest when a corpus is finished; what you write into it stays, until
--card replaces it.
"""


@click.command(epilog=EPILOG)
@click.argument("store")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default="report.html",
    show_default=True,
    help="File that the page is written to.",
)
@click.option("--card", is_flag=True, help="Write the data card into the store anew, and nothing else.")
@json_option
def command(store: str, out: Path, card: bool, as_json: bool) -> None:
    """Show the corpus in STORE: ledger, lengths, sources and samples, as one HTML file."""
    if card:
        click.echo(write_data_card(open_store(store)))
        return
    with progress_bar("report", "tasks") as update:
        report = corpus_report(open_store(store), lambda done, total: update(done, total, ""))
    if as_json:
        print_json(report.to_dict())
        return
    page = corpus_page(report).encode()
    with store_errors("write", str(out)), replacing(out) as file:
        file.write(page)
    state = "finished" if report.finished else f"not finished: {report.tasks_done} of {report.tasks} tasks"
    click.echo(f"{out}: {human_bytes(len(page))}, corpus {report.plan.config.corpus.name}, {state}")


def write_data_card(store: Store) -> str:
    """Write it anew, and give its place. Raises ObjectNotFoundError for a store without a manifest."""
    plan = load_plan(store)
    manifest = parse_manifest(store.read(MANIFEST_KEY), store.where(MANIFEST_KEY))
    engines = [receipt.engine for receipt in read_receipts(store, plan.tasks).values()]
    write_card(store, plan, manifest, engines, anew=True)
    return store.where(CARD_KEY)
