"""One process works, and the others hand it the parts that they hold when it asks for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from lmbatch.errors import CheckpointError

_DONE, _FAILED = -1, -2


class Speaker(Protocol):
    """What is needed of ``Ranks``."""

    @property
    def main(self) -> bool: ...
    def number_from_main(self, value: int) -> int: ...


class Relay:
    """``answer(n)`` makes part number n together: every process calls it, in the order in which the main one asks.

    Only the main process decides whether and in which order parts are wanted. Were each to follow a list of its own,
    a full disk, or a checkpoint that stands already, would leave the others waiting in a collective for ever.
    """

    def __init__(self, ranks: Speaker, answer: Callable[[int], torch.Tensor]) -> None:
        self._ranks, self._answer = ranks, answer
        self._answering = False

    def run(self, work: Callable[[], None]) -> None:
        """``work`` on the main process, which may ``ask``; all return together when it is done.

        What ``work`` raises is raised there, and a CheckpointError on the others.
        """
        if not self._ranks.main:
            self._follow()
            return
        try:
            work()
        except Exception:
            # In the middle of an answer the others wait for something else, and only our end can tell them.
            if not self._answering:
                self._ranks.number_from_main(_FAILED)
            raise
        self._ranks.number_from_main(_DONE)

    def ask(self, number: int) -> torch.Tensor:
        """Part ``number``, on the main process."""
        self._ranks.number_from_main(number)
        self._answering = True
        found = self._answer(number)
        self._answering = False
        return found

    def _follow(self) -> None:
        while (number := self._ranks.number_from_main(_DONE)) >= 0:
            self._answer(number)
        if number == _FAILED:
            raise CheckpointError("the main process could not save", remedy="its message says why")
