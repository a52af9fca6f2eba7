"""The page: head, overview, and its sections in order."""

from __future__ import annotations

from lmbatch.report.corpus import CorpusReport
from lmbatch.report.html.chunking import chunking_section
from lmbatch.report.html.duplicates import duplicates_section
from lmbatch.report.html.elements import Html, element
from lmbatch.report.html.figures import count, share, size
from lmbatch.report.html.frame import page, tiles
from lmbatch.report.html.ledger import ledger_section
from lmbatch.report.html.lengths import lengths_section
from lmbatch.report.html.samples import samples_section
from lmbatch.report.html.sources import sources_section
from lmbatch.report.html.work import settings_section, work_section

_SECTIONS = (
    ledger_section,
    chunking_section,
    lengths_section,
    sources_section,
    duplicates_section,
    samples_section,
    work_section,
    settings_section,
)


def corpus_page(report: CorpusReport) -> str:
    """The whole file, UTF-8. A pure function of the report and the version of lmbatch."""
    title = f"Corpus {report.plan.config.corpus.name}"
    sections = [build(report) for build in _SECTIONS]
    return page(title, _overview(report), sections, f"the receipts of {report.store}")


def _overview(report: CorpusReport) -> list[Html]:
    digest = element("p", "Digest ", element("code", report.digest), class_="soft") if report.digest else Html("")
    notes = [element("p", problem, class_="bad") for problem in (*report.problems[:5], *_gaps(report))]
    return [element("p", _state(report)), digest, *notes, _tiles(report)]


def _state(report: CorpusReport) -> Html:
    if report.finished:
        return element("span", "finished", class_="state done")
    if report.tasks_done == report.tasks:
        return element("span", "not finished: every task is done, the manifest is missing", class_="state open")
    words = f"not finished: {count(report.tasks_done)} of {count(report.tasks)} tasks"
    return element("span", words, class_="state open")


def _gaps(report: CorpusReport) -> list[str]:
    unnoted = report.tasks_done - report.profile.tasks
    if not unnoted:
        return []
    return [f"Lengths, sources and samples leave out {count(unnoted)} of {count(report.tasks_done)} tasks: what was "
            "noted of them is missing, or an older version did them."]  # fmt: skip


def _tiles(report: CorpusReport) -> Html:
    total, ledger = report.total, report.ledger
    per_token = f"{total.text_bytes / total.tokens:.2f} bytes of text each" if total.tokens else ""
    shown = [
        ("Records read", count(ledger.records), f"{size(report.input_bytes_done)} of input"),
        ("Documents kept", count(ledger.documents_out), f"{share(ledger.documents_out, ledger.records)} of records"),
        ("Tokens", count(total.tokens), per_token),
        ("Text kept", size(total.text_bytes), "UTF-8, cleaned"),
        ("Dropped", count(ledger.records_dropped), share(ledger.records_dropped, ledger.records)),
        ("Quarantined", count(ledger.records_quarantined), share(ledger.records_quarantined, ledger.records)),
    ]
    return tiles(shown)
