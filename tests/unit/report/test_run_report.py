"""What the page of a run is made of."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from lmbatch.cli import cli
from lmbatch.errors import UsageError
from lmbatch.preprocess.estimate import Row
from lmbatch.report import compare_runs, run_page, run_report, runs_page
from lmbatch.report.html.curves import Scale, round_ticks
from lmbatch.report.run import curve_of, timeline
from lmbatch.train.attempts import read_attempts
from lmbatch.train.metrics import METRICS_FILE
from lmbatch.train.records import RecordLog
from support.told_run import BEGAN, EVIL, row, write_run


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=500), st.integers(1, 50))
def test_a_curve_keeps_every_extreme_and_the_mean(values: list[float], most: int) -> None:
    curve = curve_of(enumerate(values, start=1), most)
    assert len(curve.buckets) <= most
    assert (curve.low, curve.high) == (min(values), max(values))
    assert curve.buckets[0].first == 1
    assert curve.buckets[-1].last == len(values)
    assert all(a.last + 1 == b.first for a, b in zip(curve.buckets, curve.buckets[1:], strict=False))
    whole = sum(bucket.mean * (bucket.last - bucket.first + 1) for bucket in curve.buckets) / len(values)
    assert whole == pytest.approx(sum(values) / len(values), abs=1e-6, rel=1e-9)


def test_a_curve_tells_what_is_missing() -> None:
    curve = curve_of([(1, 2.0), (2, None), (3, math.inf), (4, 1.0)])
    assert curve.missing == (2, 3)
    assert [bucket.mean for bucket in curve.buckets] == [2.0, 1.0]
    assert not curve_of([(1, None)])


@given(st.floats(-1e9, 1e9), st.floats(0, 1e9))
@example(0.0, 5e-324)
def test_round_ticks_enclose_the_values_and_are_few(low: float, width: float) -> None:
    ticks = round_ticks(low, low + width)
    slack = 1e-6 * (abs(low) + width)  # of an axis that is drawn
    assert 2 <= len(ticks) <= 8
    assert ticks[0] <= low + slack
    assert ticks[-1] >= low + width - slack


@given(st.floats(1e-12, 1e12), st.floats(1.0, 1e12))
def test_a_logarithmic_axis_holds_its_values(low: float, times: float) -> None:
    scale = Scale.over(low, low * times, log=True)
    assert -1e-9 <= scale.height(low) <= scale.height(low * times) <= 1 + 1e-9
    assert 1 <= len(scale.ticks) <= 9


def test_attempts_stand_on_one_clock_and_a_dead_one_ends_with_its_steps(tmp_path: Path) -> None:
    dead, alive = timeline(read_attempts(write_run(tmp_path)), 2.0)
    assert (dead.start, dead.end, dead.lost, dead.known) == (0.0, 5 + 12 * 2, 2 * 2.0, False)
    assert (alive.start, alive.end, alive.lost, alive.known) == (89.0, 89 + 5 + 10 * 2, 0.0, True)


def test_an_attempt_that_runs_lasts_until_now(tmp_path: Path) -> None:
    attempts = read_attempts(write_run(tmp_path, last=None))
    assert timeline(attempts, 2.0, BEGAN + timedelta(seconds=500))[-1].end == 500.0


def test_the_page_shows_what_the_folder_tells(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    log = RecordLog(run / METRICS_FILE)
    log.append(
        {"kind": "save", "step": 10, "stall_seconds": 0.25, "waited_seconds": 0.0, "write_seconds": 4.0, "bytes": 2048}
    )
    log.append(row(21, loss=math.pi, spike="loss 3.14 is above"))
    report = run_report(run)
    page = run_page(report)
    assert report.state == "finished"
    assert not report.running
    assert "finished, step 21 of 20" in page
    assert "loss 3.14 is above" in page
    assert "training waited 0.25 s for one, which was written in 4.0 s (medians)" in page
    assert "validation 1.5 after step 8" in page
    assert page.index("After step 20") < page.index("After step 10")
    assert "died without notice" in page
    assert "sample 168" in page or "no copy of its manifest" in page
    assert f"从前，{EVIL}" not in page
    assert "从前，&lt;script&gt;" in page


def test_what_was_predicted_stands_beside_what_happened(tmp_path: Path) -> None:
    report = run_report(write_run(tmp_path))
    assert "Predicted" not in run_page(report)
    rows = (Row("checkpoint", "B", 2048.0, 2048.0, 2048.0, 1024.0), Row("a save", "s", 0.5, 0.5, 0.5, 90.0))
    page = run_page(replace(report, status=replace(report.status, foretold=rows)))
    assert "2.0 KiB" in page
    assert "-50 %" in page
    assert "1 min 30 s" in page


def test_a_run_that_has_only_begun_has_a_page(tmp_path: Path) -> None:
    run = write_run(tmp_path, last=None)
    (run / METRICS_FILE).unlink()
    (run / "samples.jsonl").unlink()
    page = run_page(run_report(run))
    assert "No step has been logged yet" in page
    assert "No text was generated" in page


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run has started here"):
        run_report(tmp_path)


def test_two_runs_on_a_page(tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "a"), write_run(tmp_path / "b", optimizer={"lr": 0.5})
    page = runs_page(run_report(first), run_report(second), compare_runs(first, second))
    assert "the same, bit for bit" in page
    assert "optimizer.lr" in page
    assert str(first) in page
    RecordLog(second / METRICS_FILE).append(row(21))
    RecordLog(first / METRICS_FILE).append(row(21, loss=1.0))
    page = runs_page(run_report(first), run_report(second), compare_runs(first, second))
    assert "the same samples, losses up to 0.619 apart" in page


def test_the_commands_write_pages(tmp_path: Path) -> None:
    run, other = write_run(tmp_path / "a"), write_run(tmp_path / "b")
    out = tmp_path / "report.html"
    told = CliRunner().invoke(cli, ["report", str(run), "--out", str(out)], catch_exceptions=False)
    assert "run tiny, finished at step 20" in told.stdout
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")
    told = CliRunner().invoke(cli, ["report", str(run), "--json"], catch_exceptions=False)
    assert json.loads(told.stdout)["steps_lost"] == 2
    told = CliRunner().invoke(cli, ["compare", str(run), str(other), "--out", str(out)], catch_exceptions=False)
    assert told.exit_code == 0
    assert "the same, bit for bit" in out.read_text(encoding="utf-8")
    with pytest.raises(UsageError, match="--card is of a corpus"):
        CliRunner().invoke(cli, ["report", str(run), "--card"], catch_exceptions=False)
