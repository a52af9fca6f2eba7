"""The page of a run in a real browser: it is drawn, runs nothing, fetches nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmbatch.report import compare_runs, run_page, run_report, runs_page
from support.browser import screenshot, visit
from support.told_run import EVIL, write_run


@pytest.fixture(scope="module", params=["one", "two"])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("run-page")
    first, second = write_run(base / "a"), write_run(base / "b", steps=15)
    target = base / "page.html"
    both = run_report(first), run_report(second)
    text = run_page(both[0]) if request.param == "one" else runs_page(*both, compare_runs(first, second))
    target.write_text(text, encoding="utf-8")
    return target


def test_nothing_runs_and_nothing_is_fetched(page: Path, tmp_path: Path) -> None:
    seen = visit(page, tmp_path)
    assert [url for url in seen.requests if not url.startswith("data:")] == []
    assert seen.console == ()
    assert "<title>owned" not in seen.dom
    assert "<img" not in seen.dom
    assert EVIL not in seen.dom


@pytest.mark.parametrize("width", [390, 1100])
def test_the_page_is_drawn(page: Path, tmp_path: Path, width: int) -> None:
    picture = screenshot(page, tmp_path, width=width, height=1600)
    assert len(picture) > 40_000  # an empty page of that size is a few kilobytes
