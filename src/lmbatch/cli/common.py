"""Options, tables and progress that several verbs share."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import click
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

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


class Update(Protocol):
    """Moves a progress bar."""

    def __call__(self, done: float, total: float, note: str, *, left: float | None = None) -> None:
        """``left``: seconds, where the caller knows better than the mean rate; a note may have several lines."""


@contextmanager
def progress_bar(label: str, unit: str) -> Iterator[Update]:
    """A bar with rate and time left on stderr, with a note below it; nothing at all where stderr is no terminal.

    The rate is of what was done since the first update: what an earlier run did is not this one's speed.
    """
    if not stderr.is_terminal:
        yield lambda done, total, note, *, left=None: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    bar, below = Progress(*columns), Text()
    row = bar.add_task(label, total=None, rate="", left="")
    first: list[tuple[float, float]] = []

    def update(done: float, total: float, note: str, *, left: float | None = None) -> None:
        first.append((time.monotonic(), done)) if not first else None
        passed, fresh = time.monotonic() - first[0][0], done - first[0][1]
        rate = fresh / passed if passed > 0.5 and fresh > 0 else None
        left = left if left is not None or rate is None else (total - done) / rate
        bar.update(row, completed=done, total=total, rate=f"{_rate(rate, unit)}/s" if rate else "",
                   left=f"{human_seconds(left)} left" if left is not None else "")  # fmt: skip
        below.plain = note

    with Live(Group(bar, below), console=stderr, refresh_per_second=4):
        yield update


def _rate(value: float, unit: str) -> str:
    return human_bytes(value) if unit == "B" else f"{value:,.1f} {unit}"


def quiet_transformers() -> None:
    """No progress bars of a library for work of a second, least of all into a log."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
