"""Records to look at, by what became of them."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher
from itertools import groupby

from lmbatch.preprocess.profile import Sample
from lmbatch.report.corpus import CorpusReport
from lmbatch.report.html.elements import Html, element, join, section, text
from lmbatch.report.html.figures import count

_LONGEST_COMPARED = 2000  # characters; comparing takes their square

_TITLES = {
    "kept": "Kept",
    "changed": "Changed by cleaning",
    "dropped": "Dropped",
    "quarantined": "Quarantined: could not be read",
}


def samples_section(report: CorpusReport) -> Html:
    """A few of each kind and reason, chosen by a hash of their place."""
    samples = report.profile.samples
    if not samples:
        words = "No samples were kept (report.samples_per_reason is 0, or an older version did the tasks)."
        return section("samples", "Samples", element("p", words, class_="soft"))
    language = next(iter(report.plan.config.corpus.language), None)
    groups = [
        _kind(report, kind, list(found), language) for kind in _TITLES
        if (found := [sample for sample in samples if sample.kind == kind])
    ]  # fmt: skip
    note = "Chosen by a hash of their place, so every run shows the same ones. Long texts are cut at …"
    return section("samples", "Samples", element("p", note, class_="soft"), *groups)


def _kind(report: CorpusReport, kind: str, samples: Iterable[Sample], language: str | None) -> Html:
    parts: list[object] = [element("summary", _TITLES[kind])]
    for reason, group in groupby(samples, key=lambda sample: sample.reason):
        if reason:
            parts.append(element("h3", element("code", reason), f" · {_number(report, kind, reason)}"))
        parts += [_sample(sample, language) for sample in group]
    return element("details", *parts, open=True)


def _number(report: CorpusReport, kind: str, reason: str) -> str:
    number = getattr(report.ledger, kind).get(reason, 0)
    return f"{count(number)} {'document' if kind == 'changed' else 'record'}{'' if number == 1 else 's'}"


def _sample(sample: Sample, language: str | None) -> Html:
    tokens = f" · {count(sample.tokens)} tokens" if sample.tokens is not None else ""
    place = element("p", element("code", sample.path), f" @ byte {count(sample.position)}{tokens}", class_="soft")
    detail = element("p", sample.detail, class_="soft") if sample.detail else ""
    return element("article", place, detail, _words(sample, language), class_=f"sample {sample.kind}")


def marked_changes(before: str, after: str) -> tuple[Html, Html]:
    """Both texts with what differs marked as ``del`` and ``ins``, but for the ends at which they were cut."""
    if max(len(before), len(after)) > _LONGEST_COMPARED:
        return text(before), text(after)
    codes = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    # Where both were cut after so many characters, what one shows more before its … says nothing.
    cut = before.endswith("…") and after.endswith("…") and codes[-1][2] - codes[-1][1] == 1
    left: list[object] = []
    right: list[object] = []
    for number, (what, i, j, k, m) in enumerate(codes):
        same = what == "equal" or (cut and number == len(codes) - 2)
        left.append(_mark("del", before[i:j], same))
        right.append(_mark("ins", after[k:m], same))
    return join(left), join(right)


def _mark(tag: str, part: str, same: bool) -> object:
    return part if same or not part else element(tag, part.replace("\n", "↵\n"))


def _words(sample: Sample, language: str | None) -> Html:
    if sample.before is None:
        return element("p", sample.text, class_="words", lang=language)
    before, after = (element("p", part, class_="words", lang=language)
                     for part in marked_changes(sample.before, sample.text))  # fmt: skip
    return element(
        "div",
        element("div", element("p", "before", class_="soft"), before),
        element("div", element("p", "after", class_="soft"), after),
        class_="pair",
    )
