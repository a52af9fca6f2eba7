"""Charts in SVG, stretched to the width there is; their labels are HTML beside them, so that no text is distorted."""

from __future__ import annotations

from collections.abc import Sequence

from lmbatch.preprocess.profile import Histogram, upper_end
from lmbatch.report.html.elements import Html, element, join
from lmbatch.report.html.figures import count, short

_HEIGHT = 100
_MOST_TICKS = 8


def bar(part: float, whole: float, kind: str = "plain") -> Html:
    """A bar as long as a part is of the whole. The figure stands beside it, so a screen reader passes it by."""
    width = 100 * part / whole if whole else 0
    filled = element("rect", width=f"{max(width, 0.4 if part else 0):.2f}", height=8, class_=f"fill-{kind}")
    return element("svg", filled, **_stretched(100, 8), class_="bar", aria_hidden="true")


def stacked(parts: Sequence[tuple[str, float]], label: str) -> Html:
    """One bar made of parts, each given as (kind, size)."""
    whole = sum(size for _, size in parts) or 1
    pieces, at = [], 0.0
    for kind, size in parts:
        width = 1000 * size / whole
        pieces.append(element("rect", x=f"{at:.2f}", width=f"{width:.2f}", height=8, class_=f"fill-{kind}"))
        at += width
    return element("svg", *pieces, **_stretched(1000, 8), class_="stacked", role="img", aria_label=label)


def histogram(bins: Histogram, unit: str, label: str) -> Html:
    """Bars over the bins of a histogram of lengths (four to a doubling), with an axis that is named below."""
    lowers = _bins_between(min(bins), max(bins))
    top = max(bins.values())
    rects = []
    for column, lower in enumerate(lowers):
        height = _HEIGHT * bins.get(lower, 0) / top
        title = element("title", f"{span(lower)} {unit}: {count(bins.get(lower, 0))} documents")
        shown = max(height, 0.6 if lower in bins else 0)
        place = {"x": f"{column + 0.06:.2f}", "y": f"{_HEIGHT - shown:.2f}", "width": 0.88, "height": f"{shown:.2f}"}
        rects.append(element("rect", title, **place))
    drawing = element("svg", *rects, **_stretched(len(lowers), _HEIGHT), class_="histogram", role="img",
                      aria_label=label)  # fmt: skip
    return element("div", drawing, _axis(lowers), class_="chart")


def _stretched(width: float, height: float) -> dict[str, object]:
    # SVG spells its attributes with capitals, which keyword arguments can hold as they are.
    return {"viewBox": f"0 0 {width} {height}", "preserveAspectRatio": "none"}


def _bins_between(first: int, last: int) -> list[int]:
    lowers = [first]
    while lowers[-1] < last:
        lowers.append(upper_end(lowers[-1]))
    return lowers


def _axis(lowers: Sequence[int]) -> Html:
    """A label at powers of two, at as many as there is room for."""
    room = 0.94 * len(lowers)  # further right a label would leave the page
    powers = [(column, lower) for column, lower in enumerate(lowers) if lower & (lower - 1) == 0 and column <= room]
    step = -(-len(powers) // _MOST_TICKS)
    ticks = [
        element("span", short(lower), style=f"left:{100 * column / len(lowers):.2f}%")
        for column, lower in powers[:: step or 1]
    ]
    return element("div", join(ticks), class_="axis", aria_hidden="true")


def span(lower: int) -> str:
    """The lengths of a bin in words."""
    last = upper_end(lower) - 1
    return count(lower) if last == lower else f"{count(lower)} to {count(last)}"
