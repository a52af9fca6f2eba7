"""What breaks, how often; drawn from a seed. Rates are means of exponential waiting times."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from lmbatch.errors import UsageError

_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Nodes:
    """The machines of a cluster. Times in seconds, but for the mean time between failures of one node, in hours.

    ``detect``: until Slurm takes a silent node for dead (SlurmdTimeout); ``requeue``: until what was requeued may start
    again (twice the life of a credential, 120 s by default); ``repair``: until a dead node is back.
    """

    count: int = 64
    places: int = 16  # elements of arrays that one of them runs at a time
    hours_between_failures: float = math.inf
    repair: float = 4 * _HOUR
    detect: float = 300.0
    requeue: float = 120.0

    def __post_init__(self) -> None:
        if min(self.count, self.places) < 1 or self.hours_between_failures <= 0:
            raise UsageError("a cluster has one node and one place at least, and its nodes live for a while")


class Chance:
    """Draws; everything from one seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311  (a simulation, no secret)

    def wait(self, hours: float) -> float:
        """Seconds until something happens that happens every ``hours`` in the mean; never for infinity."""
        return math.inf if math.isinf(hours) else self._random.expovariate(1.0 / (hours * _HOUR))

    def happens(self, probability: float) -> bool:
        """Does it?"""
        return self._random.random() < probability

    def around(self, mean: float, spread: float) -> float:
        """Log-normal with this mean; ``spread`` is the standard deviation of its logarithm."""
        return mean * self._random.lognormvariate(-(spread**2) / 2, spread) if spread else mean
