"""Clusters of duplicates: how large they are, and where the largest lie."""

from __future__ import annotations

from lmbatch.preprocess.dedup import ClusterEntry, Origin
from lmbatch.preprocess.profile import lower_end
from lmbatch.report.corpus import CorpusReport, DuplicateClusters
from lmbatch.report.html.charts import bar, span
from lmbatch.report.html.elements import Html, element, join, section, table
from lmbatch.report.html.figures import count

_NAMED = 3  # dropped documents of a cluster that are named


def duplicates_section(report: CorpusReport) -> Html:
    """Nothing for a corpus whose duplicates were not looked for."""
    if report.plan.config.dedup is None:
        return Html("")
    parts = [_clusters(found, report.ledger.dropped.get(found.reason, 0)) for found in report.duplicates]
    nothing = element("p", "No duplicates were found so far.", class_="soft")
    return section("duplicates", "Duplicates", *(parts or [nothing]))


def _clusters(found: DuplicateClusters, dropped: int) -> Html:
    words = f" · {count(dropped)} documents dropped, {count(found.clusters)} clusters"
    heading = element("h3", element("code", found.reason), words)
    if not found.sizes:
        return heading
    bins: dict[int, int] = {}
    for size, number in found.sizes.items():
        bins[lower_end(size)] = bins.get(lower_end(size), 0) + number
    most = max(bins.values())
    sizes = [(span(lower), count(number), bar(number, most, "dropped")) for lower, number in sorted(bins.items())]
    by_size = table("Clusters by size", ("documents in a cluster", "clusters", ""), sizes, numbers=(1,), bars=(2,))
    headings = ("kept", "documents", "some of those dropped")
    rows = [_row(entry) for entry in found.largest]
    largest = table(f"Largest clusters, {found.reason}", headings, rows, numbers=(1,))
    note = "A document that shares several buckets of signatures is counted in each of them."
    near = element("p", note, class_="soft") if found.reason == "near_duplicate" else ""
    return join([heading, by_size, near, element("h3", "The largest of them"), largest])


def _row(entry: ClusterEntry) -> tuple[object, ...]:
    named = [element("div", _place(origin)) for origin in entry.dropped[:_NAMED]]
    more = entry.size - 1 - len(named)
    rest = element("div", f"and {count(more)} more", class_="soft") if more > 0 else ""
    return (_place(entry.kept), count(entry.size), join([*named, rest]))


def _place(origin: Origin) -> Html:
    return join([element("code", origin.path), f" @ {count(origin.position)}"])
