"""Two runs side by side: are they the same, where do they differ, and how do their curves lie."""

from __future__ import annotations

from collections.abc import Sequence

from lmbatch.config import TrainConfig, differences, identity
from lmbatch.report.compare import Comparison
from lmbatch.report.html.curves import Line, line_chart
from lmbatch.report.html.elements import Html, element, section, table
from lmbatch.report.html.figures import compact, count, duration
from lmbatch.report.html.frame import page
from lmbatch.report.run import Curve, RunReport

_KINDS = ("train", "dropped")


def runs_page(first: RunReport, second: RunReport, found: Comparison) -> str:
    """The whole file, UTF-8."""
    both = (first, second)
    names = _names(both)
    state = element("p", element("span", _verdict(found), class_=f"state {'done' if found.equal else 'open'}"))
    why = [element("p", f"First difference: {found.first_difference}", class_="soft")] if found.first_difference else []
    return page(
        f"{names[0]} and {names[1]}",
        [state, *why],
        [figures_section(both, names, found), curves_section(both, names), settings_section(both)],
        f"the folders {first.status.run} and {second.status.run}",
    )


def _names(both: Sequence[RunReport]) -> list[str]:
    """The runs' names; their folders where those are the same."""
    names = [report.name for report in both]
    return names if len(set(names)) == len(names) else [report.status.run for report in both]


def _verdict(found: Comparison) -> str:
    if found.equal:
        return "the same, bit for bit"
    if not found.same_samples:
        return "other samples"
    return f"the same samples, losses up to {found.largest_loss_difference:.3g} apart"


def figures_section(both: Sequence[RunReport], names: Sequence[str], found: Comparison) -> Html:
    """What each of them came to."""
    rows = [
        ("state", *(report.state for report in both)),
        ("steps", *(count(report.status.step) for report in both)),
        ("loss of the last step", *(_loss(report.status.loss) for report in both)),
        ("validation, last", *(_loss(report.status.validation_loss) for report in both)),
        ("validation, best", *(_loss(min((loss for _, loss in report.validation), default=None)) for report in both)),
        ("tokens", *(compact(report.tokens) for report in both)),
        ("median step", *(f"{report.step_seconds:.3g} s" for report in both)),
        ("time in attempts", *(duration(sum(span.end - span.start for span in report.spans)) for report in both)),
        ("attempts", *(count(len(report.status.attempts)) for report in both)),
        ("steps lost", *(count(report.status.steps_lost) for report in both)),
        ("parameters", *(count(report.model.get("parameters", {}).get("total", 0)) for report in both)),
        ("processes", *(count(report.status.attempts[-1].world_size) for report in both)),
        ("lmbatch", *(report.status.attempts[-1].code_version for report in both)),
    ]
    words = f"{count(found.steps_compared)} steps were compared; the largest difference of their losses is "
    words += f"{found.largest_loss_difference:.3g} nats per token."
    return section("figures", "Figures", table("Figures", ("", *names), rows, numbers=(1, 2)),
                   element("p", words, class_="soft"))  # fmt: skip


def curves_section(both: Sequence[RunReport], names: Sequence[str]) -> Html:
    """Loss, validation, gradient norm and speed, each over the other's."""

    def lines(column: str) -> list[Line]:
        return [Line(name, kind, report.curves[column]) for report, name, kind in zip(both, names, _KINDS, strict=True)]

    validation = [
        Line(name, kind, Curve(()), dots=report.validation)
        for report, name, kind in zip(both, names, _KINDS, strict=True)
    ]
    charts = [
        line_chart("Loss, nats per token", lines("loss"), write=_number),
        line_chart("Validation loss", validation, write=_number),
        line_chart("Gradient norm before clipping", lines("grad_norm"), write=_number),
        line_chart("Tokens a second", lines("tokens_per_second"), write=compact, logarithmic=False),
    ]
    return section("curves", "Curves", charts[0], element("div", *charts[1:], class_="charts"))


def settings_section(both: Sequence[RunReport]) -> Html:
    """The settings that decide numbers and are not the same."""
    first, second = (report.config for report in both)
    if first is None or second is None:
        return section("settings", "Settings", element("p", "The config of one of them is missing.", class_="soft"))
    found = differences(_settings(first), _settings(second))
    words = "Only settings that decide a number; the first run's value stands first."
    if not found:
        return section("settings", "Settings", element("p", "Every setting that decides a number is the same."))
    return section("settings", "Settings that differ", element("p", words, class_="soft"),
                   element("ul", *(element("li", element("code", line)) for line in found)))  # fmt: skip


def _settings(config: TrainConfig) -> dict[str, object]:
    return identity(config)


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _number(value: float) -> str:
    return f"{value:.4g}"
