"""`lmbatch preprocess`: the whole way from raw files to a manifest."""

from __future__ import annotations

from pathlib import Path

import click

from lmbatch.cli.common import (
    config_option,
    human_bytes,
    human_seconds,
    json_option,
    print_json,
    progress_bar,
    set_option,
)
from lmbatch.cli.estimate import told_and_found
from lmbatch.config import PreprocessConfig, SiteConfig, load_config
from lmbatch.launch import PreprocessResult, Progress, at_site, place_of, run_preprocess
from lmbatch.preprocess import TaskAtWork
from lmbatch.store import SPLITS, TokenLedger

EPILOG = """\b
Examples:
  lmbatch preprocess --config configs/corpora/demo.yaml
  lmbatch preprocess --config configs/corpora/wudao.yaml --raw /data/WuDao --store s3://bucket/wudao --workers 16
  lmbatch preprocess --config configs/corpora/wudao.yaml --set tasks.bytes=128MiB
  lmbatch preprocess --config configs/corpora/wudao.yaml --on slurm --site configs/sites/example.yaml

Run the same command again after an interruption: it does only what has no receipt. On Slurm, Ctrl-C
cancels the jobs; a driver that is closed or killed otherwise leaves them, and the next one goes on with them.
"""

on_option = click.option(
    "--on", type=click.Choice(["local", "slurm"]), help="Where the tasks run; default: what the site says."
)
site_option = click.option("--site", type=click.Path(dir_okay=False), help="Site file (YAML); default: this machine.")
workers_option = click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Processes at a time; default: the site's, or the cores of this machine.",
)


@click.command(epilog=EPILOG)
@config_option
@click.option("--raw", help="Folder or URI of the input files (instead of corpus.raw).")
@click.option("--store", help="Where shards go: a folder, file:// or s3:// (instead of store).")
@click.option("--tokenizer", help="Tokenizer folder (instead of tokenizer.path).")
@on_option
@site_option
@workers_option
@set_option
@json_option
def command(
    config_path: str,
    raw: str | None,
    store: str | None,
    tokenizer: str | None,
    on: str | None,
    site: str | None,
    workers: int | None,
    sets: tuple[str, ...],
    as_json: bool,
) -> None:
    """Turn a raw corpus into verified token shards in a store."""
    where = load_site(site)
    config = at_site(load_config(PreprocessConfig, config_path, [*overrides(raw, store, tokenizer), *sets]), where)
    place = place_of(where, on, workers)
    with progress_bar(config.corpus.name, "B") as update:

        def show(now: Progress) -> None:
            done = now.bytes_done + now.bytes_at_work
            update(done, now.bytes, "\n".join(progress_lines(now)), left=now.seconds_left)

        result = run_preprocess(config, place.backend, on_progress=show, place=place)
    print_json(as_dict(result)) if as_json else print_result(result)


def progress_lines(now: Progress) -> list[str]:
    """What is shown below the bar: counts and rates, what was left out, and the tasks that take longest."""
    stage = "" if now.stage == "tokenize" else f"{now.stage}: "
    lines = [f"{stage}{now.tasks_done:,}/{now.tasks:,} tasks, {now.documents:,} documents, {now.tokens:,} tokens"]
    if now.bytes_per_second:
        lines[0] += (
            f"; now {human_bytes(now.bytes_per_second)}/s, {now.documents_per_second or 0:,.0f} documents/s, "
            f"{now.tokens_per_second or 0:,.0f} tokens/s"
        )
    out = [f"{what} {reasons(counts)}" for what, counts in (("dropped", now.dropped), ("quarantined", now.quarantined))
           if counts]  # fmt: skip
    lines += [", ".join(out)] if out else []
    if now.slowest:
        tasks = "; ".join(describe_task(item) for item in now.slowest)
        lines.append(f"{now.workers} workers; longest at work: {tasks}")
    return lines


def describe_task(item: TaskAtWork) -> str:
    """``task-000017 part-1.json 43 % in 2:05``, and whether it has fallen silent."""
    silent = " (silent)" if item.silent else ""
    beat = item.beat
    file = f" {beat.file.rpartition('/')[2]}" if beat.file else ""
    return f"{beat.task}{file} {100 * item.share:.0f} % in {human_seconds(beat.seconds)}{silent}"


def load_site(path: str | None) -> SiteConfig:
    """The site file; without one, this machine."""
    return load_config(SiteConfig, path) if path else SiteConfig(name="here")


def overrides(raw: str | None, store: str | None, tokenizer: str | None) -> list[str]:
    """Options that stand for a key of the config, as ``--set`` items."""
    # Quoted as YAML strings: a path may hold anything that YAML would read otherwise.
    pairs = (("corpus.raw", raw), ("store", store), ("tokenizer.path", tokenizer))
    return [f"{key}='{value.replace(chr(39), chr(39) * 2)}'" for key, value in pairs if value is not None]


def as_dict(result: PreprocessResult) -> dict[str, object]:
    """For ``--json``."""
    manifest = result.manifest
    tokens = manifest.ledger.tokens
    return {
        "manifest": f"{result.store}/manifest.json",
        "digest": manifest.digest,
        "tasks": result.tasks,
        "tasks_done_now": result.tasks_done,
        "shards": len(manifest.shards),
        "tokens": {split: manifest.tokens(split) for split in SPLITS},
        "sequences": {split: manifest.sequences(split) for split in SPLITS},
        "share_thrown_away": tokens.share_lost if tokens is not None else 0.0,
        "ledger": manifest.ledger.model_dump(),
        "input_bytes": result.input_bytes,
        "seconds": result.seconds,
        "cpu_seconds": result.cpu_seconds,
        "peak_memory_bytes": result.peak_memory_bytes,
        "driver_traffic": result.traffic.model_dump(),
        "estimate": [row.to_dict() for row in result.estimate],
    }


def print_result(result: PreprocessResult) -> None:
    """The ledger in words; the last line names the manifest and its digest."""
    manifest, ledger = result.manifest, result.manifest.ledger
    kept = ", ".join(f"{count:,} {split}" for split, count in ledger.documents.items())
    click.echo(f"records   {ledger.records:,} in = {ledger.documents_out:,} documents ({kept})")
    click.echo(f"          + {ledger.records_dropped:,} dropped {reasons(ledger.dropped)}".rstrip())
    click.echo(f"          + {ledger.records_quarantined:,} quarantined {reasons(ledger.quarantined)}".rstrip())
    if ledger.unread:
        click.echo(f"unread    {left_unread(ledger.unread)}")
    if ledger.changed:
        click.echo(f"changed   documents by rule {reasons(ledger.changed)}")
    tokens = ", ".join(f"{manifest.tokens(split):,} {split}" for split in SPLITS)
    click.echo(f"tokens    {tokens} ({manifest.dtype}), in {len(manifest.shards)} shards")
    if ledger.tokens is not None:
        click.echo(f"          {thrown_away(ledger.tokens)}")
        click.echo(f"examples  {', '.join(f'{manifest.sequences(split):,} {split}' for split in SPLITS)}")
    click.echo(
        f"work      {result.tasks_done} of {result.tasks} tasks done now, {human_bytes(result.input_bytes)} of input, "
        f"{human_seconds(result.seconds)}; a worker's peak memory {human_bytes(result.peak_memory_bytes)}"
    )
    if result.estimate and result.tasks_done:
        click.echo(f"estimate  {told_and_found(result.estimate)}; more: lmbatch status {result.store}")
    click.echo(f"manifest: {result.store}/{Path('manifest.json')} digest: {manifest.digest}")


def thrown_away(tokens: TokenLedger) -> str:
    """How many tokens cutting cost, by reason, with their share."""
    return (
        f"{tokens.encoded:,} encoded + {tokens.eod:,} EOD, {tokens.lost:,} thrown away "
        f"({tokens.share_lost:.2%}) {reasons(tokens.thrown_away)}"
    ).rstrip() + (f", {tokens.padding:,} of padding while training" if tokens.padding is not None else "")


def left_unread(counts: dict[str, int]) -> str:
    """What corpus.max_records left of the input: ``2 files and the rest of 1, behind corpus.max_records``."""
    words = {"all": "{} files", "rest": "the rest of {}"}
    parts = " and ".join(text.format(counts[name]) for name, text in words.items() if name in counts)
    return f"{parts}, behind corpus.max_records"


def reasons(counts: dict[str, int]) -> str:
    """``(missing_text 3, truncated 1)``, or nothing."""
    return f"({', '.join(f'{reason} {count:,}' for reason, count in counts.items())})" if counts else ""
