"""Where the tokens come from: by input file or folder, and by the values of a field."""

from __future__ import annotations

from collections.abc import Sequence

from lmbatch.preprocess.profile import Counts
from lmbatch.report.corpus import CorpusReport, MergedProfile, SourceRow, ranked_sources
from lmbatch.report.html.charts import bar
from lmbatch.report.html.elements import Html, element, join, section, table
from lmbatch.report.html.figures import count, share, size

_MOST_ROWS = 25
_HEADINGS = ("", "documents", "tokens", "of all", "", "text", "bytes/token", "dropped", "quarantined")
_NUMBERS = (1, 2, 3, 5, 6, 7, 8)


def sources_section(report: CorpusReport) -> Html:
    """Tables by place and, if the config names a field, by its values."""
    merged = report.profile
    if not merged.sources:
        return section("sources", "Sources", element("p", "Nothing was noted yet.", class_="soft"))
    whole = sum(counts.tokens for counts in merged.sources.values())
    by_place = _table("By input file or folder", ranked_sources(merged.sources, _MOST_ROWS), whole)
    field = report.plan.config.report.source_field
    by_value = [element("h3", "By ", element("code", field)), _values(merged, field, whole)] if field else []
    return section("sources", "Tokens per source", element("h3", "By input file or folder"), by_place, *by_value)


def _values(merged: MergedProfile, field: str, whole: int) -> Html:
    ranked = sorted(merged.values.items(), key=lambda item: (-item[1].tokens, item[0]))
    rows = [SourceRow(name, counts) for name, counts in ranked[:_MOST_ROWS]]
    other = sum((counts for _, counts in ranked[_MOST_ROWS:]), merged.other_values)
    extra = [("(all other values)", other), (f"(no {field})", merged.without_value)]
    rows += [SourceRow(name, counts) for name, counts in extra if counts != Counts()]
    return _table(f"By the field {field}", rows, whole)


def _table(caption: str, rows: Sequence[SourceRow], whole: int) -> Html:
    most = max((row.counts.tokens for row in rows), default=0)
    return table(caption, _HEADINGS, [_cells(row, whole, most) for row in rows], numbers=_NUMBERS, bars=(4,))


def _cells(row: SourceRow, whole: int, most: int) -> list[object]:
    found = row.counts
    name = row.name or f"({count(row.together)} others)"
    many = element("span", f" {count(row.together)} files", class_="soft") if row.name and row.together > 1 else ""
    return [
        join([name, many]),
        count(found.documents),
        count(found.tokens),
        share(found.tokens, whole),
        bar(found.tokens, most),
        size(found.text_bytes),
        f"{found.text_bytes / found.tokens:.2f}" if found.tokens else "–",
        count(found.dropped),
        count(found.quarantined),
    ]
