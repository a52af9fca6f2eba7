"""Where every record went: the sum, and its parts by reason."""

from __future__ import annotations

from collections.abc import Mapping

from lmbatch.report.corpus import CorpusReport
from lmbatch.report.html.charts import bar, stacked
from lmbatch.report.html.elements import Html, element, join, section, table
from lmbatch.report.html.figures import count, share
from lmbatch.store import Ledger


def ledger_section(report: CorpusReport) -> Html:
    """Records in = documents + dropped + quarantined, drawn and written out."""
    parts = _parts(report.ledger)
    label = ", ".join(f"{name}: {count(size)}" for name, _, size in parts)
    return section(
        "ledger",
        "What became of every record",
        stacked([(kind, size) for _, kind, size in parts], label),
        _sum(report.ledger, parts),
        _verdict(report.ledger),
        _reasons("Dropped, by reason", "dropped", report.ledger.dropped, report.ledger.records),
        _reasons("Quarantined, by reason", "quarantined", report.ledger.quarantined, report.ledger.records),
        _changed(report.ledger),
    )


def _parts(ledger: Ledger) -> list[tuple[str, str, int]]:
    written = [(f"documents for {split}", split, number) for split, number in ledger.documents.items()]
    parts = [
        *written,
        ("dropped", "dropped", ledger.records_dropped),
        ("quarantined", "quarantined", ledger.records_quarantined),
    ]
    return [*parts, ("unaccounted for", "missing", ledger.missing)] if ledger.missing > 0 else parts


def _sum(ledger: Ledger, parts: list[tuple[str, str, int]]) -> Html:
    rows = [
        element(
            "tr",
            element("th", element("span", class_=f"key fill-{kind}"), "+ " if i else "", name, scope="row"),
            element("td", count(number), class_="number"),
            element("td", share(number, ledger.records), class_="number"),
        )
        for i, (name, kind, number) in enumerate(parts)
    ]
    total = element(
        "tr",
        element("th", "= records read", scope="row"),
        element("td", count(ledger.records), class_="number"),
        element("td", share(ledger.records, ledger.records), class_="number"),
        class_="sum",
    )
    return element(
        "table", element("caption", "The conservation ledger", class_="unseen"), element("tbody", *rows, total)
    )


def _verdict(ledger: Ledger) -> Html:
    if ledger.missing:
        words = f"The sum is wrong by {count(abs(ledger.missing))} records: run lmbatch verify."
        return element("p", words, class_="bad")
    return element("p", "✓ The sum is right: no record is lost and none is counted twice.", class_="done")


def _reasons(title: str, kind: str, counts: Mapping[str, int], records: int) -> Html:
    if not counts:
        return element("p", f"{title}: none.", class_="soft")
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    most = ranked[0][1]
    rows = [(element("code", name), count(n), share(n, records), bar(n, most, kind)) for name, n in ranked]
    return join(
        [element("h3", title), table(title, ("reason", "records", "of all", ""), rows, numbers=(1, 2), bars=(3,))]
    )


def _changed(ledger: Ledger) -> Html:
    if not ledger.changed:
        return element("p", "Cleaning changed no text that was kept.", class_="soft")
    ranked = sorted(ledger.changed.items(), key=lambda item: (-item[1], item[0]))
    out = ledger.documents_out
    rows = [(element("code", rule), count(n), share(n, out), bar(n, out)) for rule, n in ranked]
    note = "A document that several rules changed counts for each of them; these figures are no part of the sum."
    return join(
        [
            element("h3", "What cleaning changed"),
            table("Documents by the rule that changed them", ("rule", "documents", "of those kept", ""), rows,
                  numbers=(1, 2), bars=(3,)),
            element("p", note, class_="soft"),
        ]
    )  # fmt: skip
