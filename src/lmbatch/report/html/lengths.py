"""How long the documents are: histograms and quantiles, by split."""

from __future__ import annotations

from collections.abc import Mapping

from lmbatch.preprocess.profile import Histogram, quantile, upper_end
from lmbatch.report.corpus import CorpusReport
from lmbatch.report.html.charts import histogram
from lmbatch.report.html.elements import Html, element, section, table
from lmbatch.report.html.figures import count

_QUANTILES = ((0.05, "5 %"), (0.25, "25 %"), (0.5, "median"), (0.75, "75 %"), (0.95, "95 %"), (0.99, "99 %"))


def lengths_section(report: CorpusReport) -> Html:
    """Tokens and characters of a document; nothing was noted of tasks done by an older version."""
    measures = (("tokens", "tokens with EOD", report.profile.tokens), ("characters", "characters",
                report.profile.characters))  # fmt: skip
    figures = [
        _figure(split, name, bins)
        for name, _, by_split in measures
        for split, bins in by_split.items()
        if sum(bins.values())
    ]
    rows = [
        (f"{split}: {unit}", *_row(bins)) for _, unit, by_split in measures for split, bins in by_split.items() if bins
    ]
    if not figures:
        return section("lengths", "Length of documents", element("p", "Nothing was noted yet.", class_="soft"))
    headings = ("documents for", *(label for _, label in _QUANTILES), "longest, at most")
    return section(
        "lengths",
        "Length of documents",
        element("div", *figures, class_="charts"),
        element("h3", "Lengths that a share of the documents does not exceed"),
        table("Lengths that a share of the documents does not exceed", headings, rows,
              numbers=range(1, len(headings))),
        element("p", "Told from the bins of the histogram, so to within a quarter.", class_="soft"),
    )  # fmt: skip


def _figure(split: str, unit: str, bins: Histogram) -> Html:
    middle = quantile(bins, 0.5) or 0
    label = f"{split}: {count(sum(bins.values()))} documents by {unit}, median about {count(middle)}"
    return element("figure", element("figcaption", label), histogram(bins, unit, label))


def _row(bins: Mapping[int, int]) -> list[str]:
    return [*(count(quantile(bins, at) or 0) for at, _ in _QUANTILES), count(upper_end(max(bins)) - 1)]
