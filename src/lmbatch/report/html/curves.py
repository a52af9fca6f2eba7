"""Curves in SVG, stretched to the width there is: a band from the least to the greatest value, a line of means, dots.

Nothing runs on the page, so what is under the pointer is told by titles of invisible bars, one for each piece.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lmbatch.report.html.elements import Html, element, join
from lmbatch.report.html.figures import count
from lmbatch.report.run import Curve

_WIDTH, _HEIGHT = 1000, 240
_LOG_FROM = 30.0  # times from the least to the greatest value
_DECADES = (1, 2, 5)
_LEAST = 1e-300  # differences below have no logarithm that a float can hold


@dataclass(frozen=True, slots=True)
class Line:
    """One curve of a chart; ``kind`` is its colour. ``dots`` are single values, for what is measured now and then."""

    name: str
    kind: str
    curve: Curve
    dots: tuple[tuple[int, float], ...] = ()


def line_chart(
    title: str, lines: Sequence[Line], *, write: Callable[[float], str], logarithmic: bool | None = None,
    marks: Sequence[int] = (), note: str = "",
) -> Html:  # fmt: skip
    """A figure with its heading. ``marks`` are steps with a vertical line; by default the axis is logarithmic where the
    values span far, and none of them is 0 or less."""
    values = [value for line in lines for value in _extremes(line)]
    if not values:
        return Html("")
    low, high = min(values), max(values)
    log = low > 0 and high / low > _LOG_FROM if logarithmic is None else logarithmic
    scale = Scale.over(low, high, log=log)
    steps = [step for line in lines for step in _steps(line)]
    first, last = min(steps), max(steps)

    def across(step: float) -> float:
        return _WIDTH * (step - first) / (last - first) if last > first else _WIDTH / 2

    pieces: list[Html] = [_grid(scale)]
    pieces += [
        element("path", d=f"M{across(mark):.2f} 0V{_HEIGHT}", class_="mark") for mark in marks if first <= mark <= last
    ]
    for line in lines:
        pieces += _drawn(line, scale, across)
    pieces += _hints(lines, across, write)
    label = f"{title}: from {write(low)} to {write(high)} over steps {count(first)} to {count(last)}"
    drawing = element("svg", *pieces, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", preserveAspectRatio="none", class_="plot",
                      role="img", aria_label=label)  # fmt: skip
    area = element("div", drawing, _heights(scale, write), class_="area")
    axis = element("div", element("span", count(first)), element("span", f"step {count(last)}"), class_="ends",
                   aria_hidden="true")  # fmt: skip
    words = (f"{note} " if note else "") + ("Logarithmic." if log else "")
    return element("figure", element("h3", title, *_legend(lines)), area, axis,
                   element("figcaption", words) if words else "")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to heights: 0 is the bottom of the axis, 1 its top. ``ticks`` are round values on it."""

    low: float
    high: float
    log: bool
    ticks: tuple[float, ...]

    @classmethod
    def over(cls, low: float, high: float, *, log: bool) -> Scale:
        """An axis on which both ends lie."""
        if log:
            ticks = _decades(low, high)
            return cls(min(low, ticks[0]), max(high, ticks[-1]), True, ticks)
        ticks = round_ticks(low, high)
        return cls(min(low, ticks[0]), max(high, ticks[-1]), False, ticks)

    def height(self, value: float) -> float:
        """Of a value."""
        low, high, at = (map(math.log, (self.low, self.high, value))) if self.log else (self.low, self.high, value)
        return (at - low) / (high - low) if high > low else 0.5


def round_ticks(low: float, high: float, most: int = 5) -> tuple[float, ...]:
    """Round values from ``low`` or below to ``high`` or above: 1, 2 or 5 times a power of ten apart."""
    if high - low <= max(1e-9 * abs(low), _LEAST):  # of values so close to each other the digits would not tell
        room = abs(low) * 0.1 or 1.0
        low, high = low - room, high + room
    rough = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(times * power for times in (1, 2, 5, 10) if times * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(number * step for number in range(first, last + 1))


def _decades(low: float, high: float) -> tuple[float, ...]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    times = _DECADES if last - first <= 2 else (1,)
    found = [factor * 10.0**power for power in range(first, last + 1) for factor in times]
    below = max((one for one in found if one <= low), default=found[0])
    above = min((one for one in found if one >= high), default=found[-1])
    kept = [one for one in found if below <= one <= above]
    return tuple(kept[:: -(-len(kept) // 8)])


def _extremes(line: Line) -> list[float]:
    ends = [line.curve.low, line.curve.high] if line.curve else []
    return ends + [value for _, value in line.dots]


def _steps(line: Line) -> list[int]:
    ends = [line.curve.buckets[0].first, line.curve.buckets[-1].last] if line.curve else []
    return ends + [step for step, _ in line.dots]


def _grid(scale: Scale) -> Html:
    lines = [f"M0 {_down(scale, tick)}H{_WIDTH}" for tick in scale.ticks]
    return element("path", d="".join(lines), class_="grid")


def _drawn(line: Line, scale: Scale, across: Callable[[float], float]) -> list[Html]:
    found = []
    if line.curve:
        places = [(across(bucket.middle), bucket) for bucket in line.curve.buckets]
        upper = [f"{x:.2f} {_down(scale, bucket.high)}" for x, bucket in places]
        lower = [f"{x:.2f} {_down(scale, bucket.low)}" for x, bucket in reversed(places)]
        means = [f"{x:.2f} {_down(scale, bucket.mean)}" for x, bucket in places]
        found.append(element("path", d=f"M{'L'.join([*upper, *lower])}Z", class_=f"band stroke-{line.kind}"))
        found.append(element("path", d=f"M{'L'.join(means)}{'h0' if len(means) == 1 else ''}",
                             class_=f"curve stroke-{line.kind}"))  # fmt: skip
    if line.dots:
        # A line of no length with round ends: a dot that is not stretched with the drawing.
        dots = "".join(f"M{across(step):.2f} {_down(scale, value)}h0" for step, value in line.dots)
        found.append(element("path", d=dots, class_=f"dots stroke-{line.kind}"))
    return found


def _hints(lines: Sequence[Line], across: Callable[[float], float], write: Callable[[float], str]) -> list[Html]:
    """An invisible bar over each piece of the first curve, with all that there is to tell in its title."""
    if not lines[0].curve:
        return []
    found = []
    for bucket in lines[0].curve.buckets:
        where = count(bucket.first) if bucket.first == bucket.last else f"{count(bucket.first)} to {count(bucket.last)}"
        spread = "" if bucket.low == bucket.high else f" ({write(bucket.low)} to {write(bucket.high)})"
        words = [f"step {where}: {lines[0].name} {write(bucket.mean)}{spread}"]
        words += [f"{line.name} {write(value)} after step {count(step)}" for line in lines for step, value in line.dots
                  if bucket.first <= step <= bucket.last]  # fmt: skip
        left, right = across(bucket.first - 0.5), across(bucket.last + 0.5)
        found.append(element("rect", element("title", "\n".join(words)), x=f"{left:.2f}", y=0,
                             width=f"{max(right - left, 0.5):.2f}", height=_HEIGHT, class_="hint"))  # fmt: skip
    return found


def _heights(scale: Scale, write: Callable[[float], str]) -> Html:
    labels = [element("span", write(tick), style=f"top:{100 * (1 - scale.height(tick)):.2f}%") for tick in scale.ticks]
    return element("div", join(labels), class_="heights", aria_hidden="true")


def _legend(lines: Sequence[Line]) -> list[Html]:
    if len(lines) < 2:
        return []
    return [element("span", element("span", class_=f"key fill-{line.kind}"), line.name, class_="legend")
            for line in lines]  # fmt: skip


def _down(scale: Scale, value: float) -> str:
    return f"{_HEIGHT * (1 - scale.height(value)):.2f}"
