"""Which tasks share a batch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmbatch.launch.deal import by_bytes, guided, input_bytes
from lmbatch.preprocess import PlannedPiece, Task


def tasks_of(sizes: list[int]) -> list[Task]:
    return [
        Task(id=f"task-{number:06d}", pieces=(PlannedPiece(file=0, start=0, end=size, bytes=size),))
        for number, size in enumerate(sizes)
    ]


def sizes_of(batches: list[tuple[Task, ...]]) -> list[list[int]]:
    return [[input_bytes(task) for task in batch] for batch in batches]


def test_small_tasks_share_a_batch_up_to_the_target() -> None:
    assert sizes_of(by_bytes(tasks_of([4, 4, 4, 4, 4, 9, 1]), 10, 1)) == [[4, 4], [4, 4], [4], [9, 1]]


def test_a_task_above_the_target_has_a_batch_of_its_own() -> None:
    assert sizes_of(by_bytes(tasks_of([1, 50, 1]), 10, 1)) == [[1], [50], [1]]


def test_sharing_does_not_leave_places_without_work() -> None:
    assert len(by_bytes(tasks_of([1] * 16), 100, 4)) == 8
    assert len(by_bytes(tasks_of([1] * 16), 100, 50)) == 16


@given(st.lists(st.integers(0, 1000), max_size=60), st.integers(1, 3000), st.integers(1, 20))
def test_every_task_is_dealt_once_and_in_order(sizes: list[int], target: int, places: int) -> None:
    tasks = tasks_of(sizes)
    batches = by_bytes(tasks, target, places)
    assert [task for batch in batches for task in batch] == tasks
    assert all(batches)
    assert all(len(batch) == 1 or sum(map(input_bytes, batch)) <= target for batch in batches)
    front = guided(tasks, places)
    assert len(front) <= places
    assert [task for batch in front for task in batch] == tasks[: sum(map(len, front))]


@pytest.mark.parametrize("deal", [lambda tasks: by_bytes(tasks, 10, 3), lambda tasks: guided(tasks, 3)])
def test_nothing_to_deal(deal) -> None:
    assert deal([]) == []
