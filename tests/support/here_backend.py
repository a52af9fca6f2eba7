"""A backend without processes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lmbatch.launch import BatchEnd, TaskBatch
from lmbatch.launch.deal import guided
from lmbatch.preprocess import Unit


class HereBackend:
    """Batches in this process, one after the other: quick, and with the receipts of real tasks.

    Without a number of ``places`` to deal for, a batch is one task.
    """

    def __init__(self, places: int | None = None) -> None:
        self._places = places
        self._ended: list[BatchEnd] = []

    def adopt(self, run: str) -> None:
        pass

    def deal(self, tasks: Sequence[Unit]) -> list[tuple[Unit, ...]]:
        if self._places is not None:
            return guided(tasks, self._places)
        return [tuple(tasks[:1])] if tasks else []

    def submit(self, batches: Sequence[TaskBatch]) -> None:
        self._ended += [BatchEnd(batch, batch.run()) for batch in batches]

    def poll(self, receipts: Collection[str]) -> list[BatchEnd]:
        ended, self._ended = self._ended, []
        return ended

    def running(self) -> list[TaskBatch]:
        return []

    def at_work(self) -> list[TaskBatch]:
        return []

    def cancel(self) -> None:
        pass
