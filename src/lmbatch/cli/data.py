"""`lmbatch data`: hand a preprocessed corpus to other tools, or see what a step was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

from lmbatch.cli.common import json_option, print_json, progress_bar
from lmbatch.cli.data_show import show
from lmbatch.config import CacheConfig, ChunkingConfig, ChunkingMode
from lmbatch.config.load import build
from lmbatch.interchange import ExportedSplit, ExportOptions, export_parquet, shard_prefixes, what_is_kept
from lmbatch.loader import ShardCache, TokenReader, cache_folder, read_manifest
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

KEPT_EPILOG = """\b
Examples:
  lmbatch data kept data/shards/demo --mode drop_short --length 512
  lmbatch data kept s3://bucket/wudao --mode truncate --length 384 --json

Only the shards' indexes are read. Packed, as lmbatch trains by default, or with split_lines every token is kept.
"""


@click.group()
def command() -> None:
    """Hand a preprocessed corpus to other tools, or see what a step was trained on."""


command.add_command(show)


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


@command.command(epilog=KEPT_EPILOG)
@click.argument("store")
@click.option("--mode", type=click.Choice([mode for mode in get_args(ChunkingMode) if mode != "lines"]), required=True)
@click.option("--length", type=int, help="Most tokens of an example, as chunking.length.")
@click.option("--cache", type=click.Path(file_okay=False), help="Folder for copies of remote shards.")
@json_option
def kept(store: str, mode: ChunkingMode, length: int | None, cache: str | None, as_json: bool) -> None:
    """Say how many tokens of the corpus in STORE, which lost none, another way of cutting documents would keep."""
    chunking = build(ChunkingConfig, {"mode": mode, "length": length}, "data kept")
    source = open_store(store)
    manifest = read_manifest(source, None)
    settings = CacheConfig(dir=cache)
    shards = ShardCache(source, cache_folder(settings), settings.max_bytes)
    readers = {split: TokenReader(shards, manifest.of(split), manifest.dtype, indexed=True) for split in SPLITS}
    found = what_is_kept(manifest, readers, chunking)
    if as_json:
        facts = {"documents": found.documents, "encoded": found.encoded, "kept": found.kept, "share": found.share}
        print_json({"mode": mode, "length": length} | facts)
    else:
        click.echo(
            f"{found.encoded:,} tokens of text in {found.documents:,} documents; {mode}"
            f"{f' of {length}' if length else ''} keeps {found.kept:,} ({found.share:.1%}), packed keeps all"
        )
