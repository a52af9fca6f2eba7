"""A checkpoint of a state that is shared out, from copies: each process keeps its own share, the main one gathers.

::

    process 0   flat tensors ──copy──▶ share ──┐
    process 1   flat tensors ──copy──▶ share ──┴──by parameter, in the background──▶ whole tensors, one at a time
                                                                                     on the main process

The copy is all that training waits for, and it is as large as the share. Where the pieces of a parameter lie is asked
once, at the start, and does not change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import torch

from lmbatch.checkpoint.snapshot import HostBuffers
from lmbatch.checkpoint.tensors import Pending
from lmbatch.train.backstage import Backstage
from lmbatch.train.relay import Relay
from lmbatch.train.zero_partition import KINDS, Stretch

Shapes = Sequence[tuple[str, tuple[int, ...]]]


class Sharing(Protocol):
    """What is needed of a ``Partition``."""

    def flat(self, kind: str) -> list[torch.Tensor]: ...
    def stretches(self, name: str) -> list[Stretch]: ...


class Share:
    """This process's part of all parameters and moments, as it was at the last :meth:`copy`.

    ``parameters``: name and shape of each, in the order by which parts are numbered. All processes make this together.
    """

    def __init__(self, partition: Sharing, parameters: Shapes, stage: Backstage, buffers: HostBuffers) -> None:
        self._partition, self._parameters, self._stage, self._buffers = partition, parameters, stage, buffers
        self._stretches: list[dict[str, list[Stretch]]] = stage.all_of(
            {name: partition.stretches(name) for name, _ in parameters}
        )
        self._flat: dict[str, list[torch.Tensor]] = {}
        self._relay = Relay(stage, self._part)

    def copy(self) -> None:
        """Take the state of this moment."""
        self._flat = {
            kind: [self._buffers.copy((kind, number), flat) for number, flat in enumerate(self._partition.flat(kind))]
            for kind in KINDS
        }
        self._buffers.finish()

    def pending(self, index: int, kind: str) -> Pending:
        """A whole parameter or moment of the copy, put together when its turn comes."""
        number = index * len(KINDS) + KINDS.index(kind)
        return Pending(torch.float32, self._parameters[index][1], partial(self._relay.ask, number))

    def run(self, work: Callable[[], None]) -> None:
        """``work`` on the main process, which may fetch what is pending, while the others hand it their pieces.

        What it raises is raised there, and a CheckpointError on the others.
        """
        self._relay.run(work)

    def _part(self, number: int) -> torch.Tensor:
        index, kind = divmod(number, len(KINDS))
        name, shape = self._parameters[index]
        flat = self._flat[KINDS[kind]]
        if self._stage.main:
            return self._put_together(name, shape, flat)
        for piece in self._stretches[self._stage.rank][name]:
            self._stage.send(piece.of(flat))
        return torch.empty(0)

    def _put_together(self, name: str, shape: tuple[int, ...], flat: list[torch.Tensor]) -> torch.Tensor:
        whole = torch.empty(shape)
        for rank, pieces in enumerate(self._stretches):
            for piece in pieces[name]:
                place = whole.view(-1).narrow(0, piece.start, piece.size)
                if rank == self._stage.rank:
                    place.copy_(piece.of(flat))
                else:
                    self._stage.receive(place, rank)
        return whole
