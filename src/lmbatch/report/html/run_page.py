"""The page of a training run: what it came to, its curves, its attempts, its data, its texts."""

from __future__ import annotations

import shlex

from lmbatch.report.html.curves import Line, line_chart
from lmbatch.report.html.elements import Html, element, section, table
from lmbatch.report.html.figures import compact, count, duration, share, size
from lmbatch.report.html.frame import page, tiles
from lmbatch.report.html.run_attempts import attempts_section
from lmbatch.report.html.run_texts import noted_section, texts_section
from lmbatch.report.run import RunReport, SaveFigures

_STATES = {"finished": "done", "running": "done", "stopped": "open"}


def run_page(report: RunReport) -> str:
    """The whole file, UTF-8. A pure function of the report and the version of lmbatch."""
    sections = (
        curves_section, attempts_section, noted_section, foretold_section, data_section, checkpoints_section,
        texts_section, settings_section,
    )  # fmt: skip
    return page(
        f"Run {report.name}",
        [_state(report), *_words(report), _tiles(report)],
        [build(report) for build in sections],
        f"the folder {report.status.run}",
    )


def _state(report: RunReport) -> Html:
    done, whole = report.status.step, report.status.steps
    steps = f"step {count(done)}" + (f" of {count(whole)}" if whole else "")
    return element("p", element("span", f"{report.state}, {steps}", class_=f"state {_STATES.get(report.state, 'bad')}"))


def _words(report: RunReport) -> list[Html]:
    last = report.status.attempts[-1]
    if report.state == "failed" and last.detail:
        return [element("p", last.detail, class_="bad")]
    return []


def _tiles(report: RunReport) -> Html:
    status, speed = report.status, report.curves["tokens_per_second"]
    best = min((loss for _, loss in report.validation), default=None)
    trained = sum(span.end - span.start for span in report.spans)
    shown = [
        ("Loss", "–" if status.loss is None else f"{status.loss:.4f}", "of the last step, nats per token"),
        ("Validation", "–" if status.validation_loss is None else f"{status.validation_loss:.4f}",
         "" if best is None else f"best {best:.4f}"),
        ("Tokens", compact(report.tokens), "read in steps that count"),
        ("Speed", f"{compact(_mean(report))} tokens/s" if speed else "–", _mfu(report)),
        ("Time", duration(trained), f"in {_attempts(len(status.attempts))}"),
        ("Steps lost", count(status.steps_lost), "had to be taken again"),
    ]  # fmt: skip
    return tiles(shown)


def _mean(report: RunReport) -> float:
    steps = report.status.step
    return report.tokens / steps / report.step_seconds if steps and report.step_seconds else 0.0


def _mfu(report: RunReport) -> str:
    curve = report.curves["mfu"]
    if not curve:
        return "by the median step"
    return f"MFU {100 * sum(bucket.mean for bucket in curve.buckets) / len(curve.buckets):.1f} %"


def _attempts(number: int) -> str:
    return "1 attempt" if number == 1 else f"{count(number)} attempts"


def curves_section(report: RunReport) -> Html:
    """Loss and validation, learning rate, gradient norm, speed, MFU."""
    curves = report.curves
    marks = [span.attempt.resumed_from for span in report.spans[1:] if span.attempt.resumed_from]
    missing = len(curves["loss"].missing)
    note = f"{count(missing)} steps have no finite loss." if missing else ""
    lines = [Line("training", "train", curves["loss"])]
    if report.validation:
        lines.append(Line("validation", "dropped", curve=type(curves["loss"])(()), dots=report.validation))
    charts = [
        line_chart("Loss, nats per token", lines, write=_four, marks=marks, note=note),
        line_chart("Gradient norm before clipping", [Line("norm", "plain", curves["grad_norm"])], write=_short,
                   marks=marks),
        line_chart("Learning rate", [Line("rate", "plain", curves["lr"])], write=_short, logarithmic=False,
                   marks=marks),
        line_chart("Tokens a second", [Line("speed", "validation", curves["tokens_per_second"])], write=compact,
                   logarithmic=False, marks=marks),
        line_chart("Model FLOPs utilisation", [Line("MFU", "validation", curves["mfu"])],
                   write=lambda value: f"{100 * value:.1f} %", logarithmic=False, marks=marks),
    ]  # fmt: skip
    shown = [chart for chart in charts if chart]
    if not shown:
        return section("curves", "Curves", element("p", "No step has been logged yet.", class_="soft"))
    words = "Each line is the mean of neighbouring steps, the band around it their least and greatest value; "
    words += "vertical lines are resumes."
    return section("curves", "Curves", element("p", words, class_="soft"), shown[0],
                   element("div", *shown[1:], class_="charts"))  # fmt: skip


def data_section(report: RunReport) -> Html:
    """The corpus, and how far the run has come in it."""
    manifest, config = report.manifest, report.config
    if manifest is None or config is None:
        return section("data", "Data", element("p", "The run folder has no copy of its manifest.", class_="soft"))
    length = config.data.sequence_length
    epoch = manifest.tokens("train") / (length * config.batch.size)  # steps
    facts = [
        ("corpus", manifest.corpus),
        ("digest", element("code", manifest.digest)),
        ("store", element("code", config.data.store)),
        ("tokens to train on", count(manifest.tokens("train"))),
        ("sample, global batch", f"{count(length)} tokens, {count(config.batch.size)} samples"),
        ("position", f"sample {count(report.samples_consumed)}, {report.status.step / epoch:.2f} passes over the corpus"
                     if epoch else "–"),
        ("documents of a step", element("code", f"lmbatch data show {shlex.quote(report.status.run)} --step N")),
    ]  # fmt: skip
    return section("data", "Data", table("Data", ("", ""), facts))


def checkpoints_section(report: RunReport) -> Html:
    """What there is to go on from, and what saving has cost."""
    rows = [
        (item.step, item.state, size(item.bytes), "" if item.facts is None else count(item.facts.samples_consumed),
         item.detail)
        for item in report.status.checkpoints
    ]  # fmt: skip
    parts: list[object] = [table("Checkpoints", ("step", "state", "size", "samples", ""), rows, numbers=(2, 3))]
    if report.saves is not None:
        parts.append(element("p", _saving(report.saves, sum(span.end - span.start for span in report.spans))))
    return section("checkpoints", "Checkpoints", *parts)


def _saving(found: SaveFigures, trained: float) -> str:
    stall, behind = _figure(found.stall_median, "s"), _figure(found.write_median, "s")
    return (
        f"{count(found.saves)} saves; training waited {stall} for one, which was written in {behind} (medians): "
        f"{duration(found.stall_sum)} in all, {share(found.stall_sum, trained)} of the time. "
        f"{size(found.bytes)} written."
    )


def foretold_section(report: RunReport) -> Html:
    """What `lmbatch plan train` said beside what happened; nothing for a run of which nothing was said."""
    if not report.status.foretold:
        return Html("")
    rows = [
        (row.what, _figure(row.predicted, row.unit), _figure(row.happened, row.unit),
         "–" if row.error is None else f"{100 * row.error:+.0f} %")
        for row in report.status.foretold
    ]  # fmt: skip
    headings = ("", "predicted", "happened", "difference")
    return section("foretold", "Predicted, and what happened",
                   table("Predicted, and what happened", headings, rows, numbers=(1, 2, 3)))  # fmt: skip


def _figure(value: float, unit: str) -> str:
    if unit == "B":
        return size(value)
    if unit == "s":
        return duration(value) if value >= 1 else f"{value:.2g} s"
    return compact(value)


def settings_section(report: RunReport) -> Html:
    """The model, the resolved config, and the command that goes on."""
    model, last = report.model, report.status.attempts[-1]
    parameters = model.get("parameters", {})
    facts = [
        ("model", f"{model.get('type', '–')}, {count(parameters.get('total', 0))} parameters "
                  f"({count(parameters.get('non_embedding', 0))} without embeddings)"),
        ("FLOPs of a token, forward and backward", compact(model.get("flops_per_token", 0))),
        ("processes", count(last.world_size)),
        ("lmbatch", last.code_version),
        ("config", element("code", last.config)),
    ]  # fmt: skip
    folder = shlex.quote(report.status.run)
    command = f"lmbatch train --config {folder}/config.yaml"
    return section(
        "settings",
        "Settings, and how to go on",
        table("Settings", ("", ""), facts),
        element("pre", element("code", command), tabindex="0"),
        element("details", element("summary", "config.yaml"), element("pre", report.config_text, tabindex="0")),
    )


def _four(value: float) -> str:
    return f"{value:.4g}"


def _short(value: float) -> str:
    return f"{value:.3g}"
