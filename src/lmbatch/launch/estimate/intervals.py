"""Sums and bounds of figures that are not known exactly. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lmbatch.preprocess.estimate import Interval

LEVELS = ("low", "likely", "high")


def each_level(value: Callable[[str], float]) -> Interval:
    """``value`` of each level."""
    return Interval(**{level: value(level) for level in LEVELS})


def scaled(interval: Interval, factor: float, constant: float = 0.0) -> Interval:
    """``factor`` times the figure, and a constant."""
    return each_level(lambda level: getattr(interval, level) * factor + constant)


def added(intervals: Iterable[Interval], constant: float = 0.0) -> Interval:
    """The sum: its bounds are wide, as if all were low or all high at once."""
    every = list(intervals)
    return each_level(lambda level: constant + sum(getattr(one, level) for one in every))


def largest(intervals: Iterable[Interval]) -> Interval:
    """The largest of several, at each level."""
    every = list(intervals)
    return each_level(lambda level: max(getattr(one, level) for one in every))
