"""A preprocessing store's status in words and tables."""

from __future__ import annotations

from collections.abc import Iterator

import click

from lmbatch.cli.common import human_bytes, human_seconds, print_table
from lmbatch.cli.estimate import UPPER_BOUND, print_estimate, print_rows
from lmbatch.cli.preprocess import left_unread, reasons, thrown_away
from lmbatch.report import RunningTask, StoreStatus


def print_store(status: StoreStatus) -> None:
    """How far it is, how fast, the ledger so far, what was left out, and what takes longest."""
    for line in _lines(status):
        click.echo(line)
    _print_left_out(status)
    if status.running:
        click.echo("\nlongest at work")
        headings = ("task", "file", "read", "for", "speed", "documents", "worker", "last heard")
        print_table(headings, [_running(item) for item in status.running])
    if status.slowest and status.tasks_done < status.tasks:
        click.echo("\nslowest finished")
        rows = [(item.task, item.file, human_seconds(item.seconds), _per_second(item.bytes_per_second),
                 human_bytes(item.memory_bytes)) for item in status.slowest]  # fmt: skip
        print_table(("task", "file", "took", "speed", "memory"), rows)
    if status.failures:
        click.echo("\ngiven up by workers; tried again if retries are left")
        print_table(("task", "reason"), status.failures.items())
    if status.estimate is not None:
        click.echo("\nwhat was expected")
        if status.estimate.compared:
            print_rows(status.estimate.compared)
            if status.estimate.predicted.stages:
                click.echo(UPPER_BOUND)
        else:
            print_estimate(status.estimate.predicted)


def _lines(status: StoreStatus) -> Iterator[str]:
    ledger = status.ledger
    left = status.tasks - status.tasks_done - status.tasks_running
    yield (
        f"{status.store}: corpus {status.corpus}, {status.tasks_done:,} of {status.tasks:,} tasks done, "
        f"{status.tasks_running:,} at work, {max(0, left):,} waiting"
    )
    if len(status.stages) > 1:
        done = (f"{stage.name} {stage.tasks_done:,} of {stage.tasks:,}" for stage in status.stages)
        yield f"stages: {', '.join(done)}"
    read = status.input_bytes_done + status.input_bytes_at_work
    share = 100 * read / status.input_bytes if status.input_bytes else 0.0
    yield (
        f"input {human_bytes(status.input_bytes_done)} finished + {human_bytes(status.input_bytes_at_work)} at work "
        f"of {human_bytes(status.input_bytes)} ({share:.1f} %); {status.tokens:,} tokens; "
        f"written by {', '.join(status.engines) or 'nobody yet'}"
    )
    if status.bytes_per_second is not None:
        time = f"; {human_seconds(status.seconds_left)} left" if status.seconds_left is not None else ""
        yield (
            f"now {_per_second(status.bytes_per_second)}, {status.documents_per_second or 0:,.0f} documents/s, "
            f"{status.tokens_per_second or 0:,.0f} tokens/s{time}"
        )
    if status.worker_bytes_per_second:
        yield (
            f"a worker's mean {_per_second(status.worker_bytes_per_second)}; "
            f"{human_seconds(status.cpu_seconds)} of CPU so far"
        )
    parts = (
        f"{ledger.records:,} records = {ledger.documents_out:,} documents",
        f"{ledger.records_dropped:,} dropped {reasons(ledger.dropped)}".rstrip(),
        f"{ledger.records_quarantined:,} quarantined {reasons(ledger.quarantined)}".rstrip(),
    )
    yield " + ".join(parts)
    if ledger.unread:
        yield f"left unread: {left_unread(ledger.unread)}"
    if ledger.changed:
        yield f"changed by cleaning {reasons(ledger.changed)}"
    if ledger.tokens is not None:
        yield f"tokens {thrown_away(ledger.tokens)}"
    yield f"manifest: {status.digest or 'not written yet'}"


def _print_left_out(status: StoreStatus) -> None:
    """Every reason with its share of the records, those of tasks at work included."""
    records = status.ledger.records + status.at_work["records"]
    rows = []
    for what, finished in (("dropped", status.ledger.dropped), ("quarantined", status.ledger.quarantined)):
        at_work = status.at_work[what]
        for reason in sorted(finished.keys() | at_work.keys()):
            count = finished.get(reason, 0) + at_work.get(reason, 0)
            rows.append((what, reason, f"{count:,}", f"{100 * count / records:.2f} %" if records else ""))
    if rows:
        click.echo("\nleft out")
        print_table(("", "reason", "records", "share"), rows)


def _running(item: RunningTask) -> tuple[str, ...]:
    if item.silent:
        heard = "silent"
    else:
        heard = "" if item.behind_seconds is None else f"{human_seconds(item.behind_seconds)} before the newest"
    worker = f"{item.worker} (job {item.job})" if item.job else item.worker
    return (item.task, item.file, f"{100 * item.share:.0f} %", human_seconds(item.seconds),
            _per_second(item.bytes_per_second), f"{item.documents:,}", worker, heard)  # fmt: skip


def _per_second(size: float) -> str:
    return f"{human_bytes(size)}/s"
