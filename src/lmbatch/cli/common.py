"""Options, tables and progress that several verbs share."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

stderr = Console(stderr=True, highlight=False)

config_option = click.option(
    "--config", "config_path", required=True, type=click.Path(dir_okay=False), help="Config file (YAML)."
)
set_option = click.option(
    "--set", "sets", multiple=True, metavar="A.B=V", help="Override a key of the config; may be given several times."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def print_json(value: Any) -> None:
    """One JSON document on stdout; Chinese stays readable."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=1))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, pipe_width: int = 200) -> None:
    """A plain table on stdout; wide (Chinese) characters count as two columns.

    ``pipe_width`` is where lines are folded if stdout is no terminal: a pipe has no width of its own.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*[str(cell) for cell in row])
    Console(highlight=False, width=None if sys.stdout.isatty() else pipe_width).print(table)


def human_bytes(size: float) -> str:
    """1536 → "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def human_seconds(seconds: float) -> str:
    """3725 → "1:02:05"; below a minute "4.2 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextmanager
def progress_bar(label: str, unit: str) -> Iterator[Callable[[float, float, str], None]]:
    """A bar with rate and time left on stderr; nothing at all where stderr is no terminal.

    Yields ``update(done, total, note)``.
    """
    if not stderr.is_terminal:
        yield lambda done, total, note: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=stderr) as bar:
        row = bar.add_task(label, total=None, rate="", note="")
        begun = time.monotonic()

        def update(done: float, total: float, note: str) -> None:
            passed = time.monotonic() - begun
            rate = f"{_rate(done / passed, unit)}/s" if passed > 0.5 and done else ""
            bar.update(row, completed=done, total=total, rate=rate, note=note)

        yield update


def _rate(value: float, unit: str) -> str:
    return human_bytes(value) if unit == "B" else f"{value:,.1f} {unit}"


def quiet_transformers() -> None:
    """No progress bars of a library for work of a second, least of all into a log."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
