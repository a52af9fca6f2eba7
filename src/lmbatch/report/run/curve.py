"""A curve of a million steps in a few hundred pieces, none of whose outliers is lost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MOST_BUCKETS = 240


@dataclass(frozen=True, slots=True)
class Bucket:
    """Neighbouring steps as one: from ``first`` to ``last``, the mean of their values, the least and the greatest."""

    first: int
    last: int
    mean: float
    low: float
    high: float

    @property
    def middle(self) -> float:
        """Where it is drawn."""
        return (self.first + self.last) / 2


@dataclass(frozen=True, slots=True)
class Curve:
    """``missing`` are the steps whose value is not a finite number."""

    buckets: tuple[Bucket, ...]
    missing: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.buckets)

    @property
    def low(self) -> float:
        """The least value."""
        return min(bucket.low for bucket in self.buckets)

    @property
    def high(self) -> float:
        """The greatest value."""
        return max(bucket.high for bucket in self.buckets)


def curve_of(points: Iterable[tuple[int, float | None]], most: int = MOST_BUCKETS) -> Curve:
    """Steps and their values, in order, in at most ``most`` buckets of equally many; None: a value is missing."""
    known: list[tuple[int, float]] = []
    missing: list[int] = []
    for step, value in points:
        if value is not None and math.isfinite(value):
            known.append((step, value))
        else:
            missing.append(step)
    size = max(1, -(-len(known) // most))
    groups = [known[at : at + size] for at in range(0, len(known), size)]
    return Curve(tuple(map(_bucket, groups)), tuple(missing))


def _bucket(points: Sequence[tuple[int, float]]) -> Bucket:
    values = [value for _, value in points]
    return Bucket(points[0][0], points[-1][0], math.fsum(values) / len(values), min(values), max(values))
