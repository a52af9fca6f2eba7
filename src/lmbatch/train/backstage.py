"""What the threads behind training tell each other: a process group of their own.

Two threads that use one group would mix up each other's messages. This one is made at the start, by all processes
together, and used by the thread that saves alone, in the same order everywhere. It is gloo, on every machine: what it
carries lies in host memory.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Self

import torch
import torch.distributed

from lmbatch.train.processes import Ranks

# Longer than the main process may take to write one tensor, or to fsync and publish the whole checkpoint. A process
# that has died is noticed at once; this is for one that stands still, which the watchdog ends as well.
PATIENCE = timedelta(minutes=30)


class Backstage:
    """Messages between the saving threads. Each method raises RuntimeError if another process is gone."""

    def __init__(self, rank: int, world: int, group: Any) -> None:
        self.rank, self.world, self._group = rank, world, group

    @classmethod
    def of(cls, ranks: Ranks) -> Self:
        """That of all processes, which make it together."""
        if ranks.world == 1:
            return cls.alone()
        return cls(ranks.rank, ranks.world, torch.distributed.new_group(backend="gloo", timeout=PATIENCE))

    @classmethod
    def alone(cls) -> Self:
        """That of a process which needs no other."""
        return cls(0, 1, None)

    @property
    def main(self) -> bool:
        """Is this the process that writes?"""
        return self.rank == 0

    def number_from_main(self, value: int) -> int:
        """The main process's number, on every process."""
        if self.world == 1:
            return value
        box = torch.tensor(value, dtype=torch.int64)
        torch.distributed.broadcast(box, src=0, group=self._group)
        return int(box.item())

    def all_of(self, value: Any) -> list[Any]:
        """The plain values of all processes, by rank; for the start, when nothing is saved yet."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(found, value, group=self._group)
        return found

    def send(self, tensor: torch.Tensor) -> None:
        """Hand a contiguous tensor of host memory to the main process."""
        torch.distributed.send(tensor, dst=0, group=self._group)

    def receive(self, tensor: torch.Tensor, rank: int) -> None:
        """Fill a contiguous tensor with what ``rank`` sends, on the main process."""
        torch.distributed.recv(tensor, src=rank, group=self._group)
