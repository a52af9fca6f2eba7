"""`lmbatch data`: hand a preprocessed corpus to other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lmbatch.cli.common import json_option, print_json, progress_bar
from lmbatch.config import CacheConfig
from lmbatch.interchange import ExportedSplit, ExportOptions, export_parquet, shard_prefixes
from lmbatch.loader import ShardCache, cache_folder, read_manifest
from lmbatch.store import SPLITS, Split, open_store

EXPORT_EPILOG = """\b
Examples:
  lmbatch data export data/shards/demo data/parquet/demo
  lmbatch data export s3://bucket/wudao /data/wudao-parquet --split train --origins
  lmbatch data export data/shards/demo data/parquet/demo-512 --sequence-length 512

\b
Then, in Python:
  datasets.load_dataset("parquet", data_dir="data/parquet/demo")

Run the same command again after an interruption: files that are complete are not written again.

Megatron-LM and GPT-NeoX need no export: they read the shards as they are (.bin and .idx). `lmbatch data paths`
lists them.
"""

PATHS_EPILOG = """\b
Examples:
  pretrain_gpt.py … --data-path $(lmbatch data paths data/shards/demo)
  lmbatch data paths data/shards/demo --split validation
  lmbatch data paths data/shards/demo --json

Each shard is WEIGHT PREFIX, its weight being its tokens, as Megatron-LM's --data-path wants them. For GPT-NeoX put
the `prefixes` and `weights` of --json under train-data-paths and train-data-weights. Documents end with EOD already.
"""


@click.group()
def command() -> None:
    """Hand a preprocessed corpus to other tools."""


@command.command(epilog=EXPORT_EPILOG)
@click.argument("store")
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--format", "kind", type=click.Choice(["parquet"]), default="parquet", show_default=True)
@click.option("--split", type=click.Choice(SPLITS), help="Only this split; default: each that has any rows.")
@click.option(
    "--sequence-length", type=click.IntRange(min=1), help="Rows are the packed samples of N tokens, unshuffled."
)
@click.option("--origins", is_flag=True, help="Also the columns path, position and id of each row's document.")
@click.option("--rows-per-file", type=click.IntRange(min=1), help="Default: so many that a file has about 67 M tokens.")
@click.option("--cache", type=click.Path(file_okay=False), help="Folder for copies of remote shards.")
@json_option
def export(
    store: str,
    out: Path,
    kind: str,
    split: Split | None,
    sequence_length: int | None,
    origins: bool,
    rows_per_file: int | None,
    cache: str | None,
    as_json: bool,
) -> None:
    """Write the tokens of STORE to Parquet files with a column input_ids in the folder OUT.

    A row is a document with its EOD, or an example where documents were cut.
    """
    source = open_store(store)
    manifest = read_manifest(source, None)
    options = ExportOptions(sequence_length, origins, rows_per_file)
    settings = CacheConfig(dir=cache)
    done: list[ExportedSplit] = []
    for each in (split,) if split else tuple(each for each in SPLITS if manifest.of(each)):
        shards = ShardCache(source, cache_folder(settings), settings.max_bytes)
        with progress_bar(each, "rows") as update:
            done.append(
                export_parquet(
                    source, manifest, each, out, shards, options, lambda now, total: update(now, total, str(out))
                )
            )
    if as_json:
        print_json({"out": str(out), "digest": manifest.digest, "splits": [_as_dict(found) for found in done]})
        return
    for found in done:
        click.echo(
            f"{found.split}: {found.rows:,} rows in {len(found.files)} files, {found.files_written} written now: {out}"
        )


def _as_dict(found: ExportedSplit) -> dict[str, Any]:
    return {
        "split": found.split,
        "rows": found.rows,
        "files": list(found.files),
        "files_written_now": found.files_written,
    }


@command.command(epilog=PATHS_EPILOG)
@click.argument("store")
@click.option("--split", type=click.Choice(SPLITS), default="train", show_default=True)
@json_option
def paths(store: str, split: Split, as_json: bool) -> None:
    """Print the shards of the local STORE as Megatron-LM's --data-path wants them: weights and prefixes."""
    source = open_store(store)
    prefixes = shard_prefixes(source, read_manifest(source, None), split)
    if as_json:
        print_json({"prefixes": [each.path for each in prefixes], "weights": [each.weight for each in prefixes]})
    else:
        click.echo(" ".join(f"{each.weight} {each.path}" for each in prefixes))
