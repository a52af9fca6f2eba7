"""Simulated time: events in order, and a clock for whoever waits among them."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable

Event = Callable[[], None]


class World:
    """Seconds since the beginning, and what will happen. It is the `Clock` of a driver: while that sleeps, time passes.

    An event may plan others. Whoever sleeps must not be called from within an event.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Event]] = []
        self._numbers = itertools.count()  # of two events at one time, the one that was planned first

    def monotonic(self) -> float:
        """Now."""
        return self.now

    def sleep(self, seconds: float, /) -> None:
        """Let all happen that lies within ``seconds`` from now."""
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = end

    def after(self, seconds: float, event: Event) -> None:
        """Plan an event; one that is infinitely far away never comes."""
        if seconds == math.inf:
            return
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), event))
