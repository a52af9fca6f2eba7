"""An estimate in words: before the work, and against what happened."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click

from lmbatch.cli.common import human_bytes, human_seconds, print_table
from lmbatch.preprocess.estimate import Estimate, Interval, Row
from lmbatch.store import Traffic

_IN_ONE_LINE = ("wall time", "CPU time of tasks", "tokens", "peak memory")
UPPER_BOUND = (
    "what de-duplication will drop is not known before it has run: documents, tokens and shards are those before "
    "duplicates, and requests those of the most duplicates that there can be: upper bounds"
)


def print_estimate(estimate: Estimate) -> None:
    """A short table with ranges, and the warnings."""
    shards = ", ".join(f"{count:,} {split}" for split, count in estimate.shards.items())
    local = estimate.executor == "local"
    where = f"{estimate.workers} {'processes' if local else 'array elements'} at a time"
    before = " before duplicates" if estimate.stages else ""
    rows: list[tuple[str, str, str]] = [
        ("tasks", f"{estimate.tasks:,}", f"in {estimate.batches:,} {'batches' if local else 'array elements'}"),
        ("shards", f"{sum(estimate.shards.values()):,}", shards),
        (f"documents{before}", *_numbers(estimate.documents)),
        (f"tokens{before}", *_numbers(estimate.tokens)),
        ("core-hours", *_hours(estimate.core_seconds)),
        ("time", *_times(estimate.wall_seconds)),
        ("memory of a worker", *_sizes(estimate.peak_memory_bytes)),
        ("disk of the spool", *_sizes(estimate.spool_bytes)),
        ("finished store", *_sizes(estimate.stored_bytes)),
        ("requests to the store", f"{estimate.traffic.requests:,}", _kinds(estimate.traffic)),
        ("bytes to the store", human_bytes(estimate.traffic.bytes_up), ""),
        ("requests for input", f"{estimate.input_traffic.requests:,}", _kinds(estimate.input_traffic)),
        ("input read", human_bytes(estimate.input_traffic.bytes_down), f"of {human_bytes(estimate.input_bytes)}"),
        ("requests of the driver", f"{estimate.driver_traffic.requests:,}", _kinds(estimate.driver_traffic)),
    ]
    if estimate.submissions is not None:
        rows.insert(1, ("array jobs", f"{estimate.submissions:,}", f"{estimate.batches:,} elements"))
    click.echo(
        f"on this site ({estimate.executor}, {where}); measured {human_bytes(estimate.measured_bytes)} in "
        f"{estimate.ranges} ranges, a worker starts in {estimate.startup_seconds:.1f} s"
    )
    print_table(("", "likely", "range"), rows)
    if estimate.stages:
        _print_stages(estimate)
    if estimate.dropped_share or estimate.quarantined_share:
        click.echo(f"of the records {estimate.dropped_share:.1%} dropped, {estimate.quarantined_share:.2%} quarantined")
    for warning in estimate.warnings:
        click.echo(f"warning: {warning}")


def _print_stages(estimate: Estimate) -> None:
    """What each stage takes of that, as likely."""
    rows = [
        (
            stage.name,
            f"{stage.units:,}",
            _core(stage.core_seconds.likely),
            human_seconds(stage.wall_seconds.likely),
            human_bytes(stage.peak_memory_bytes.likely),
            human_bytes(stage.spool_bytes.likely),
            human_bytes(stage.stored_bytes.likely),
            f"{stage.traffic.requests:,}",
            human_bytes(stage.traffic.bytes_up),
            human_bytes(stage.traffic.bytes_down),
            human_bytes(stage.input_traffic.bytes_down),
        )
        for stage in estimate.stages
    ]
    headings = ("stage", "units", "core-hours", "time", "memory", "spool", "in the store", "requests", "sent", "read",
                "input read")  # fmt: skip
    print_table(headings, rows)
    click.echo(UPPER_BOUND)


def print_rows(rows: Iterable[Row]) -> None:
    """Predicted against happened."""
    print_table(
        ("", "predicted", "range", "happened", "error"),
        [
            (
                row.what,
                _shown(row.predicted, row.unit),
                "" if row.low == row.high else f"{_shown(row.low, row.unit)} to {_shown(row.high, row.unit)}",
                _shown(row.happened, row.unit),
                "" if row.error is None else f"{row.error:+.0%}",
            )
            for row in rows
        ],
    )


def told_and_found(rows: Sequence[Row]) -> str:
    """The figures that matter most, in one line."""
    chosen = [row for row in rows if row.what in _IN_ONE_LINE]
    return ", ".join(
        f"{row.what} {_shown(row.happened, row.unit)} (expected {_shown(row.predicted, row.unit)})" for row in chosen
    )


def _shown(value: float, unit: str) -> str:
    match unit:
        case "B":
            return human_bytes(value)
        case "s":
            return human_seconds(value)
    return f"{value:,.0f}"


def _numbers(value: Interval) -> tuple[str, str]:
    return f"{value.likely:,.0f}", f"{value.low:,.0f} to {value.high:,.0f}"


def _hours(value: Interval) -> tuple[str, str]:
    return _core(value.likely), f"{_core(value.low)} to {_core(value.high)}"


def _core(seconds: float) -> str:
    """Core-hours; seconds below a minute, since hours would be nothing but zeros."""
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 3600:,.3f}"


def _times(value: Interval) -> tuple[str, str]:
    return human_seconds(value.likely), f"{human_seconds(value.low)} to {human_seconds(value.high)}"


def _sizes(value: Interval) -> tuple[str, str]:
    return human_bytes(value.likely), f"{human_bytes(value.low)} to {human_bytes(value.high)}"


def _kinds(traffic: Traffic) -> str:
    kinds = ("put", "post", "get", "head", "list", "delete")
    return ", ".join(f"{getattr(traffic, kind):,} {kind.upper()}" for kind in kinds if getattr(traffic, kind))
