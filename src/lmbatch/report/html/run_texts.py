"""What the model has said, and the steps that a guard has noted."""

from __future__ import annotations

from itertools import groupby

from lmbatch.report.html.elements import Html, element, section, table
from lmbatch.report.html.figures import count
from lmbatch.report.run import RunReport
from lmbatch.train.records import Record


def texts_section(report: RunReport) -> Html:
    """Texts generated during training, the newest first."""
    if not report.samples:
        words = "No text was generated (samples.prompts names no prompt, or none was due yet)."
        return section("samples", "Samples", element("p", words, class_="soft"))
    rounds = [
        element(
            "details", element("summary", f"After step {count(step)}"),
            *(element("article", element("p", row["prompt"], class_="soft"), element("p", row["text"], class_="words"),
                      class_="sample kept") for row in rows),
            open=number == 0,
        )
        for number, (step, rows) in enumerate(groupby(report.samples, key=lambda row: row["step"]))
    ]  # fmt: skip
    return section("samples", "Samples", *rounds)


def noted_section(report: RunReport) -> Html:
    """Steps whose update was left out, or whose loss or gradient stood out; nothing where there was none."""
    if not report.noted:
        return Html("")
    headings = ("step", "update", "why", "loss", "samples")
    rows = [_noted(row) for row in report.noted]
    title = "Steps that stood out"
    return section("noted", title, table(title, headings, rows, numbers=(3,)))


def _noted(row: Record) -> tuple[object, ...]:
    first, end = row["samples"]
    loss = "–" if row["loss"] is None else f"{row['loss']:.4f}"
    update = "left out" if row.get("skipped") else "applied"
    return (
        count(row["step"]),
        update,
        row.get("skipped") or row.get("spike"),
        loss,
        f"{count(first)} to {count(end - 1)}",
    )
