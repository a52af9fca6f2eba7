"""Which tasks share a batch. Pure; every function takes tasks from the front, in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from lmbatch.preprocess import Unit

T = TypeVar("T")


def batch_size(remaining: int, places: int) -> int:
    """Guided self-scheduling (Polychronopoulos & Kuck 1987): large batches first, single tasks at the end.

    It spreads the cost of starting a process over many small tasks without leaving a straggler behind.
    """
    return max(1, -(-remaining // (2 * max(1, places))))


def guided(tasks: Sequence[T], places: int) -> list[tuple[T, ...]]:
    """At most ``places`` batches; what they leave is for when these are done."""
    batches: list[tuple[T, ...]] = []
    taken = 0
    while taken < len(tasks) and len(batches) < places:
        size = batch_size(len(tasks) - taken, places)
        batches.append(tuple(tasks[taken : taken + size]))
        taken += size
    return batches


def by_bytes(tasks: Sequence[Unit], batch_bytes: int, places: int) -> list[tuple[Unit, ...]]:
    """All tasks, neighbours together up to ``batch_bytes`` of input.

    Less where that would leave fewer than two batches for each of ``places``: a place without work costs more than
    starting a process does.
    """
    target = min(batch_bytes, -(-sum(map(input_bytes, tasks)) // (2 * places)))
    batches: list[list[Unit]] = []
    filled = 0
    for task in tasks:
        if not batches or filled + input_bytes(task) > target:
            batches.append([])
            filled = 0
        batches[-1].append(task)
        filled += input_bytes(task)
    return [tuple(batch) for batch in batches]


def input_bytes(task: Unit) -> int:
    """Size of a task's input."""
    return task.input_bytes
