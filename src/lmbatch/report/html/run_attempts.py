"""The attempts at a run on a line of time, and one by one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from lmbatch.report.html.elements import Html, element, section, table
from lmbatch.report.html.figures import count, duration, share
from lmbatch.report.run import RunReport, Span
from lmbatch.train.attempts import DIED, Attempt

_WIDTH, _HEIGHT = 1000, 40
_KINDS = {"finished": "train", "stopped": "validation", "failed": "quarantined", DIED: "quarantined"}
_NAMES = (("train", "finished or running"), ("validation", "stopped after saving"), ("quarantined", "failed or died"),
          ("missing", "steps that were lost"))  # fmt: skip


def attempts_section(report: RunReport) -> Html:
    """A bar for each attempt, with its lost end in a colour of its own; then the ledger as a table."""
    rows = [_row(number, span) for number, span in enumerate(report.spans, start=1)]
    headings = ("", "began", "job", "processes", "from", "to", "saved", "first step after", "why it ended", "lost")
    return section(
        "attempts",
        "Attempts",
        _line(report.spans),
        element("p", *_legend(), class_="soft"),
        element("p", _sum(report.spans), class_="soft"),
        table("Attempts", headings, rows, numbers=(3, 4, 5, 6, 7, 9), tight=True),
    )


def _line(spans: Sequence[Span]) -> Html:
    end = max((span.end for span in spans), default=0.0)
    if end <= 0:
        return Html("")
    pieces = []
    for number, span in enumerate(spans, start=1):
        kind = _KINDS.get(span.attempt.why or "", "train")
        words = element("title", f"attempt {number}: {_why(span.attempt)}, {duration(span.end - span.start)}")
        pieces.append(_piece(span.start, span.end - span.lost, end, kind, words))
        if span.lost:
            lost = element("title", f"attempt {number}: {count(span.attempt.steps_lost)} steps lost")
            pieces.append(_piece(span.end - span.lost, span.end, end, "missing", lost))
    drawing = element("svg", *pieces, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", preserveAspectRatio="none", class_="timeline",
                      role="img", aria_label=f"{len(spans)} attempts over {duration(end)}")  # fmt: skip
    first = datetime.fromisoformat(spans[0].attempt.started)
    axis = element("div", element("span", f"{first:%Y-%m-%d %H:%M} UTC"), element("span", f"{duration(end)} later"),
                   class_="ends", aria_hidden="true")  # fmt: skip
    return element("div", drawing, axis)


def _piece(start: float, stop: float, whole: float, kind: str, title: Html) -> Html:
    width = max(_WIDTH * (stop - start) / whole, 1.5)
    return element("rect", title, x=f"{_WIDTH * start / whole:.2f}", width=f"{width:.2f}", height=_HEIGHT,
                   class_=f"fill-{kind}")  # fmt: skip


def _legend() -> list[object]:
    return [element("span", element("span", class_=f"key fill-{kind}"), name, class_="legend") for kind, name in _NAMES]


def _sum(spans: Sequence[Span]) -> str:
    end, trained, lost = (max((span.end for span in spans), default=0.0), sum(span.end - span.start for span in spans),
                          sum(span.lost for span in spans))  # fmt: skip
    guessed = " The end of an attempt that died is worked out from its steps." * any(not span.known for span in spans)
    return (f"{duration(trained)} of {duration(end)} were spent in attempts, {duration(lost)} ({share(lost, trained)}) "
            f"in steps that were lost.{guessed}")  # fmt: skip


def _row(number: int, span: Span) -> tuple[object, ...]:
    one = span.attempt
    return (
        number, f"{datetime.fromisoformat(one.started):%Y-%m-%d %H:%M:%S}", one.job_id or "", one.world_size,
        _number(one.resumed_from), _number(one.last_step), _number(one.last_saved_step),
        "" if one.seconds_to_first_step is None else duration(one.seconds_to_first_step), _why(one), one.steps_lost,
    )  # fmt: skip


def _why(attempt: Attempt) -> str:
    return " ".join(filter(None, (attempt.why or "running, or died unnoticed", attempt.detail)))


def _number(value: int | None) -> str:
    return "" if value is None else count(value)
