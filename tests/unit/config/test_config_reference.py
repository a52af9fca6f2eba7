"""The reference page is what the schema says."""

from __future__ import annotations

from pathlib import Path

from lmbatch.config.reference import ROOTS, reference_markdown

ROOT = Path(__file__).resolve().parents[3]


def test_the_page_in_the_repository_is_current() -> None:
    assert (ROOT / "configs/REFERENCE.md").read_text(encoding="utf-8") == reference_markdown()


def test_every_key_is_on_the_page_with_a_meaning() -> None:
    rows = [line for line in reference_markdown().splitlines() if line.startswith("| `")]
    assert len(rows) > 60
    for row in rows:
        assert row.rstrip("|").split("|")[-1].strip(), f"no meaning: {row}"
    for root in ROOTS:
        assert f"## {root}" in reference_markdown()
